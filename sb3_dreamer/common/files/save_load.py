"""Saving and loading with SB3's methods, and files of JSON and safetensors only."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch as th
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces, get_system_info

from sb3_dreamer.common.checks import warn_other_preset
from sb3_dreamer.common.files.json_codec import encode
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable
from sb3_dreamer.common.files.model_file import read_model, write_model
from sb3_dreamer.common.files.optimizer_state import load_optimizer, optimizer_to_tensors
from sb3_dreamer.common.policy import PolicyState
from sb3_dreamer.common.replay.files import Path, ReplayFileMethods

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm

Self = TypeVar("Self", bound="FileMethods")
OPTIMIZER_JSON = "_optimizer_settings"
POLICY_CLASS = "policy_class"
NEEDED = ("observation_space", "action_space", "policy_kwargs", POLICY_CLASS, OPTIMIZER_JSON)


class FileMethods(ReplayFileMethods):
    """``save``, ``load`` and parameters of a :class:`WorldModelAlgorithm`."""

    def _excluded_save_params(self) -> list[str]:
        """What a model file never holds: what is built anew, and what belongs to the running process."""
        rebuilt = ["optimizers", "ratio", "warmup_behavior", "_carry", *self._optimizer_names()]
        process = ["_forecast", "_metrics", "replay_buffer_class", "lr_schedule", "lr_schedules", "start_time"]
        process += ["_graphed", "_callback", "_resume", "_restart_seed", "_collecting", "_world_size"]
        return [*super()._excluded_save_params(), *rebuilt, *process, POLICY_CLASS]

    def _optimizer_names(self) -> list[str]:
        return list(cast("WorldModelAlgorithm", self).optimizers)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *self._optimizer_names()], []

    def save(
        self,
        path: Path,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the model: a zip of JSON and safetensors, whole or not at all.

        :param path: file name (``.zip`` is added if it has no suffix) or binary file object
        :param exclude: attributes to leave out
        :param include: attributes to store although they are left out by default
        """
        skipped = (set(exclude or ()) | set(self._excluded_save_params())) - set(include or ())
        data, unstorable = {}, []
        for name, value in self.__dict__.items():
            if name in skipped:
                continue
            try:
                encode(value, name)
                data[name] = value
            except NotEncodable:
                unstorable.append(name)
        if "learning_rate" in unstorable:  # A lambda: what it gives now is better than nothing.
            data["learning_rate"] = float(self.lr_schedule(self._current_progress_remaining))
        if unstorable:
            warnings.warn(
                f"{', '.join(unstorable)} cannot be stored without code and will be missing in the file: "
                "pass it again with load(..., custom_objects={...})",
                stacklevel=2,
            )
        data[POLICY_CLASS] = self.policy_class.__name__
        tensors: dict[str, dict[str, th.Tensor]] = {"policy": self.get_parameters()["policy"]}
        settings = {}
        for name in self._optimizer_names():
            tensors[name], settings[name] = optimizer_to_tensors(getattr(self, name))
        data[OPTIMIZER_JSON] = settings
        carry = cast("WorldModelAlgorithm", self)._carry
        if carry is not None:
            tensors["carry"] = carry._asdict()
        write_model(cast(Any, path), kind=type(self).__name__, data=data, tensors=tensors, verbose=self.verbose)

    @classmethod
    def load(
        cls: type[Self],
        path: Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Read what :meth:`save` wrote. No code of the file is run.

        :param path: file name (with or without ``.zip``) or binary file object
        :param env: environment to go on with; None if the model is only to predict
        :param device: where the model goes
        :param custom_objects: values to use instead of stored ones, by attribute name; also ``policy_class``
        :param print_system_info: print where the file was written, and where it is read
        :param force_reset: reset ``env`` before learning goes on
        :param kwargs: attributes to change
        :raises ModelFileError: if the file is damaged, of another algorithm, or holds pickled data
        :raises ValueError: if ``env`` has other spaces than the model
        """
        custom = custom_objects or {}
        file = read_model(cast(Any, path), kind=cls.__name__, device="cpu", skip=tuple(custom))
        if print_system_info:
            print("== CURRENT SYSTEM INFO ==")
            get_system_info()
            print(f"== SAVED MODEL SYSTEM INFO ==\n{file.system_info}")
        data = file.data | {name: custom[name] for name in NEEDED if name in custom}
        for name in NEEDED:
            if name not in data:
                raise ModelFileError(f"{path} has no {name!r}: it was saved with exclude, or is not a model of ours")
        if "policy_kwargs" in kwargs and kwargs["policy_kwargs"] != data["policy_kwargs"]:
            raise ValueError(
                f"The specified policy kwargs do not equal the stored policy kwargs. "
                f"Stored kwargs: {data['policy_kwargs']}, specified kwargs: {kwargs['policy_kwargs']}"
            )
        if env is not None:
            env = cls._wrap_env(env, data.get("verbose", 0))
            check_for_correct_spaces(env, data["observation_space"], data["action_space"])
            data["n_envs"] = env.num_envs
            if force_reset:
                data["_last_obs"] = None
        settings = data.pop(OPTIMIZER_JSON)
        policy_class = cls._stored_policy_class(data.pop(POLICY_CLASS))
        model = cls(policy=policy_class, env=env, device=device, _init_setup_model=False)  # type: ignore[call-arg]
        model.__dict__.update(data)
        # As in SB3, custom objects replace what is there and add nothing.
        model.__dict__.update({name: value for name, value in custom.items() if hasattr(model, name)})
        model.__dict__.update(kwargs)
        model._setup_model()
        model._restore_tensors(file.tensors, settings, str(path))
        warn_other_preset(data.get("suite_preset"), model.env)
        return model

    @classmethod
    def _stored_policy_class(cls, stored: Any) -> Any:
        """The class for a stored name: only our own aliases are looked up."""
        if not isinstance(stored, str):
            return stored
        for policy_class in cls.policy_aliases.values():
            if policy_class.__name__ == stored:
                return policy_class
        raise ModelFileError(
            f"the model uses the policy class {stored!r}, which is not part of this library: "
            f"pass it with load(..., custom_objects={{'policy_class': {stored}}})"
        )

    def _restore_tensors(self, tensors: dict[str, dict[str, th.Tensor]], settings: Any, name: str) -> None:
        missing = [part for part in self._get_torch_save_params()[0] if part not in tensors]
        if missing:
            raise ModelFileError(f"{name} holds no tensors for {', '.join(missing)}: the file is not complete")
        try:
            self.policy.load_state_dict(tensors["policy"])
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise ModelFileError(f"{name} does not fit its own settings ({first[0].strip()})") from error
        for part in self._optimizer_names():
            load_optimizer(getattr(self, part), tensors[part], settings[part])
        algorithm = cast("WorldModelAlgorithm", self)
        carry = tensors.get("carry")
        if carry is not None and len(carry["deter"]) == self.n_envs and self._last_obs is not None:
            algorithm._carry = PolicyState(**{key: value.to(self.device) for key, value in carry.items()})

    def get_parameters(self) -> dict[str, dict]:
        """State dicts of the policy and the optimizers, by name; SB3's ``set_parameters`` takes them back."""
        params = {}
        for name in self._get_torch_save_params()[0]:
            part = recursive_getattr(self, name)
            params[name] = getattr(part, "_orig_mod", part).state_dict()
        return params

    def set_parameters(
        self,
        load_path_or_dict: Any,
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """Take over parameters from a model file or from what :meth:`get_parameters` gave.

        :param load_path_or_dict: file name, file object or dict of state dicts
        :param exact_match: refuse missing and unknown entries
        :param device: accepted for SB3's sake; tensors go where the model is
        """
        if not isinstance(load_path_or_dict, dict):
            file = read_model(load_path_or_dict, kind=type(self).__name__, device="cpu")
            self._restore_tensors(file.tensors, file.data[OPTIMIZER_JSON], str(load_path_or_dict))
            return
        super().set_parameters(load_path_or_dict, exact_match, device)
