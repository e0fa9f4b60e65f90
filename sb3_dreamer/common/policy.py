"""The policy that SB3 sees: a world model, a behavior, and the recurrent state between two observations."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import get_device

from sb3_dreamer.common.arguments import check_range
from sb3_dreamer.common.files.fit import only_stored
from sb3_dreamer.common.files.model_file import read_model, write_model
from sb3_dreamer.common.spaces import (
    ActionCodec,
    advise_on_image,
    as_dict,
    observation_keys,
    outside_choices,
    space_dict,
)
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.types import ActionLayout, LatentState, ObsKey
from sb3_dreamer.core.world_model import WorldModel

FORGETFUL_CALLS = 20  #: calls of predict() without state before a warning


class PolicyState(NamedTuple):
    """Recurrent state that a policy carries from one observation to the next, environments on axis 0.

    :param deter: ``(n, D)``
    :param stoch: ``(n, S, K)`` or ``(n, S)``
    :param prev_action: the action that was executed, as the model sees it, ``(n, A)``
    """

    deter: th.Tensor
    stoch: th.Tensor
    prev_action: th.Tensor


class Networks(NamedTuple):
    """World model and behavior of an algorithm."""

    world_model: WorldModel
    behavior: Behavior


class WorldModelPolicy(BasePolicy):
    """A recurrent policy: filters observations with the world model and lets a behavior act on the latent state.

    Subclasses give :meth:`build_networks`.

    :param observation_space: Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these; images channel-first
    :param action_space: Box with finite bounds, Discrete, MultiDiscrete or MultiBinary
    :param lr_schedule: accepted for compatibility with SB3; optimizers belong to the algorithm
    :param model_size: name of a size of the algorithm
    :param ignore_keys: keys of a Dict observation that are neither seen nor reconstructed
    :param normalize_images: uint8 images are divided by 255 either way; False: Boxes of floats with three axes, the
        channels first and values of about 0 to 1, are also images instead of vectors
    :param gamma: see :meth:`set_gamma`; the algorithm passes its own
    :param spec_overrides: fields of the algorithm's spec to replace, and ``net_arch`` for the widths of all MLPs
    """

    size_name: str  #: resolved name of the size, set by build_networks
    requires: str = ""  #: kind of observation that the alias demands: "image", "vector" or "dict"

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        *,
        model_size: str = "auto",
        ignore_keys: tuple[str, ...] = (),
        normalize_images: bool = True,
        gamma: float | None = None,
        use_sde: bool = False,
        **spec_overrides: Any,
    ):
        if use_sde:
            raise ValueError("use_sde=True is not supported by world-model policies: leave it False")
        super().__init__(observation_space, action_space, normalize_images=normalize_images)
        self.model_size = model_size
        self.ignore_keys = tuple(ignore_keys)
        self.spec_overrides = spec_overrides
        self.codec = ActionCodec(action_space)
        self.keys = observation_keys(observation_space, self.ignore_keys, normalize_images=normalize_images)
        for key in (key for key in self.keys if key.kind != "image"):
            advise_on_image(key.name, space_dict(observation_space)[key.name])
        self._check_alias()
        self.world_model, self.behavior = self.build_networks(self.keys, self.codec.layout, model_size, spec_overrides)
        self.gamma = gamma
        if gamma is not None:
            self.set_gamma(gamma)
        self.random_state: th.Tensor | None = None
        self._forgetful_calls = 0

    @property
    def device(self) -> th.device:
        """Where the weights are; SB3's property walks through all modules, and acting asks for it at every step."""
        return self.world_model.rssm.post_out.weight.device

    def build_networks(
        self, keys: tuple[ObsKey, ...], actions: ActionLayout, model_size: str, overrides: dict[str, Any]
    ) -> Networks:
        """World model and behavior of the algorithm."""
        raise NotImplementedError

    def set_gamma(self, gamma: float) -> None:
        """Take over the discount of the run, which some continue heads learn together with the flag.

        :param gamma: above 0 and at most 1
        """
        check_range("gamma", gamma, 0.0, 1.0, above=True)
        self.gamma = gamma

    @classmethod
    def former_defaults(
        cls, overrides: Mapping[str, Any], model_size: Any, weights: Mapping[str, th.Tensor]
    ) -> dict[str, Any]:
        """Fields of the spec, and ``model_size``, whose default has changed since a file was written.

        :param overrides: fields that the file sets itself
        :param model_size: of the file
        :param weights: of the file
        """
        return {}

    def _check_alias(self) -> None:
        has_image = any(key.kind == "image" for key in self.keys)
        is_dict = isinstance(self.observation_space, spaces.Dict)
        # SB3's own tests and users know this one as an AssertionError.
        assert self.requires != "image" or (has_image and not is_dict), (
            f"You should use CnnPolicy only with image observations (uint8, 3 axes, 0 to 255), "
            f"not with {self.observation_space}: use MlpPolicy for vectors and MultiInputPolicy for Dict spaces"
        )
        if self.requires == "dict" and not is_dict:
            raise ValueError(
                f"MultiInputPolicy needs a Dict observation space, not {self.observation_space}: "
                f"use {'CnnPolicy' if has_image else 'MlpPolicy'}"
            )

    # ---- acting ------------------------------------------------------------------------------------------------

    @th.no_grad()
    def initial_state(self, n: int) -> PolicyState:
        """State before the first observation of ``n`` environments."""
        latent = self.world_model.rssm.initial(n)
        action = latent.deter.new_zeros(n, self.codec.layout.size)
        return PolicyState(latent.deter.clone(), latent.stoch.clone(), action)

    @th.no_grad()
    def step(
        self,
        obs: dict[str, th.Tensor],
        state: PolicyState,
        is_first: th.Tensor,
        *,
        deterministic: bool = False,
        behavior: Behavior | None = None,
    ) -> PolicyState:
        """One step of acting, all tensors.

        :param obs: raw observations by key, ``(n, *shape)``
        :param state: ``(n, ...)``
        :param is_first: ``(n,)`` bool; resets the state of these environments
        :param deterministic: modes instead of samples, for the latent and the action
        :param behavior: acts instead of the policy's own behavior (a planner, chance)
        :return: the next state; its ``prev_action`` is the action to take
        """
        embed = self.world_model.encode(obs)
        latent = self.world_model.rssm.obs_step(
            LatentState(state.deter, state.stoch), state.prev_action, embed, is_first, mode=deterministic
        )
        actor = behavior or self.behavior
        actor.begin(is_first)
        action = actor.act(self.world_model, latent, deterministic=deterministic)
        return PolicyState(latent.deter, latent.stoch, self.codec.executed(action))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        behavior: Behavior | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for an observation, with SB3's recurrent interface.

        :param observation: one observation or a batch of any size n
        :param state: what the previous call returned; None starts new episodes (the agent has no memory then)
        :param episode_start: ``(n,)`` bool, environments that begin an episode with this observation
        :param deterministic: modes instead of samples; repeated calls give equal actions
        :param behavior: acts instead of the policy's own behavior, for example a planner
        :return: action(s) in the action space, and the state for the next call: a tuple of arrays with n on axis 0
        :raises ValueError: if an ``(observation, info)`` tuple or a state of another batch size is given
        """
        self.set_training_mode(False)
        if behavior is not None and not isinstance(behavior, Behavior):
            raise TypeError(f"planner={behavior!r} is not a Behavior: pass a CEMPlanner, for example")
        layout = getattr(behavior, "layout", self.codec.layout)
        if layout != self.codec.layout:
            raise ValueError(
                f"the planner chooses {layout}, and the actions of this model are {self.codec.layout}: make it with "
                "model.policy.codec.layout"
            )
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            raise ValueError(
                "predict() was given the tuple that gymnasium's env.reset() returns: you are mixing Gym API with "
                "SB3 VecEnv API. Pass the observation alone: obs, info = env.reset(); model.predict(obs)"
            )
        tensors, vectorized = self.obs_to_tensor(observation)
        obs = as_dict(tensors)
        n = len(next(iter(obs.values())))
        self._note_state(state is None and episode_start is None)
        before = self._state_to_tensors(state, n)
        starts = np.zeros(n, bool) if episode_start is None else np.asarray(episode_start, bool).reshape(-1)
        if len(starts) != n:
            raise ValueError(f"episode_start has {len(starts)} entries for {n} observations: pass one for each")
        is_first = th.as_tensor(starts if state is not None else np.ones(n, bool), device=self.device)
        with self.own_random_state():
            after = self.step(obs, before, is_first, deterministic=deterministic, behavior=behavior)
        actions = self.codec.to_env(self.codec.to_replay(after.prev_action))
        if not vectorized:
            actions = actions.squeeze(0)
        return actions, tuple(part.cpu().numpy() for part in after)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Action for observations that begin episodes, in replay form, as SB3's policies have it.

        :param observation: tensors ``(n, *shape)``, or a dict of these
        :param deterministic: modes instead of samples
        """
        return self._predict(observation, deterministic)

    def set_training_mode(self, mode: bool) -> None:
        """Switch between training and evaluation mode; nothing is walked through if the mode is set already."""
        if self.training != mode:
            self.train(mode)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Action of a fresh episode in replay form (SB3's internal hook)."""
        obs = as_dict(observation)
        n = len(next(iter(obs.values())))
        first = th.ones(n, dtype=th.bool, device=self.device)
        return self.codec.from_model(
            self.step(obs, self.initial_state(n), first, deterministic=deterministic).prev_action
        )

    def _note_state(self, forgetful: bool) -> None:
        """Warn once of a caller who drops the recurrent state between observations.

        :param forgetful: neither ``state`` nor ``episode_start`` was passed
        """
        self._forgetful_calls = self._forgetful_calls + 1 if forgetful else 0
        if self._forgetful_calls == FORGETFUL_CALLS:
            warnings.warn(
                f"predict() was called {FORGETFUL_CALLS} times in a row without state: the agent forgets everything "
                "before each observation. Pass on what it returns: action, state = model.predict(obs, state, "
                "episode_start)",
                UserWarning,
                stacklevel=4,
            )

    def obs_to_tensor(self, observation: Any) -> tuple[PyTorchObs, bool]:
        """Observations as tensors with a batch axis, and whether they had one.

        SB3's method takes a 2-D MultiDiscrete observation for a batch.

        :raises ValueError: for a missing key, a shape that is neither one observation nor a batch, keys with batches
            of different sizes, an empty batch, what is no number, NaN, infinity, or an index outside a discrete space
        """
        single = not isinstance(self.observation_space, spaces.Dict)
        if single and isinstance(observation, dict):
            raise ValueError(
                f"the observation is a dict of {list(observation)}: pass an array, the model's observations are of "
                f"{self.observation_space}"
            )
        arrays, tensors, batched, device = as_dict(observation), {}, False, self.device
        known = space_dict(self.observation_space)
        for name in (key.name for key in self.keys):
            space = known[name]
            if name not in arrays:
                raise ValueError(f"the observation has no {name!r}: the model needs {[key.name for key in self.keys]}")
            array, shape = np.asarray(arrays[name]), space.shape or ()
            if is_image_space(space):
                array = maybe_transpose(array, space)
            if array.shape[1:] != shape and array.shape != shape:
                raise ValueError(
                    f"Unexpected observation shape {array.shape} for {space}: pass one of shape {shape} or a batch "
                    f"{('n', *shape)}".replace("'", "")
                )
            batched = array.ndim == len(shape) + 1
            array = np.ascontiguousarray(array if batched else array[None])
            if array.dtype.kind not in "biuf" or not len(array):
                raise ValueError(
                    f"observation {name!r} is an array of {array.dtype} and shape {array.shape}: pass numbers, and at "
                    "least one observation"
                )
            if outside_choices(array, space).any():
                raise ValueError(f"the observation {array.tolist()} is outside its space {space}")
            tensors[name] = tensor = th.as_tensor(array, device=device)
            if tensor.is_floating_point() and not th.isfinite(tensor.float()).all():
                raise ValueError(f"NaN or infinity in observation {name!r} (as float32): check where it comes from")
        if len({len(tensor) for tensor in tensors.values()}) > 1:
            sizes = {name: len(tensor) for name, tensor in tensors.items()}
            raise ValueError(f"the keys of the observation have batches of different sizes: {sizes}")
        return (next(iter(tensors.values())) if single else tensors), batched

    def _state_to_tensors(self, state: tuple[np.ndarray, ...] | None, n: int) -> PolicyState:
        if state is None:
            return self.initial_state(n)
        device, rssm = self.device, self.world_model.rssm
        own = [(rssm.feat_size - rssm.latent.flat_size,), rssm.latent.shape, (self.codec.layout.size,)]
        shapes = [np.shape(part) for part in state]
        if [shape[1:] for shape in shapes] != own:
            raise ValueError(
                f"the recurrent state has parts of shape {shapes}, and this model's have "
                f"{[(n, *part) for part in own]}: pass what predict() of the same model returned, or None to start new "
                "episodes"
            )
        parts = PolicyState(*(th.as_tensor(part, device=device, dtype=th.float32) for part in state))
        if len(parts.deter) != n:
            raise ValueError(
                f"the recurrent state is for {len(parts.deter)} environments, but there are {n} observations: "
                "pass the state of the same environments, or None to start new episodes"
            )
        return parts

    @contextmanager
    def own_random_state(self) -> Iterator[None]:
        """Draw from the policy's own stream, so that evaluating between updates does not change the training."""
        device = self.device
        get, put = (
            (th.cuda.get_rng_state, th.cuda.set_rng_state)
            if device.type == "cuda"
            else (th.get_rng_state, th.set_rng_state)
        )
        training = get()
        if self.random_state is None:
            self.seed_random_state(int(th.initial_seed()))
        assert self.random_state is not None
        put(self.random_state)
        try:
            yield
        finally:
            self.random_state = get()
            put(training)

    def seed_random_state(self, seed: int) -> None:
        """Restart the stream that :meth:`predict` draws from."""
        generator = th.Generator(self.device).manual_seed((seed + 1) % 2**63)
        self.random_state = generator.get_state()

    # ---- files -------------------------------------------------------------------------------------------------

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "model_size": self.size_name,
            "ignore_keys": self.ignore_keys,
            "normalize_images": self.normalize_images,
            "gamma": self.gamma,
            **self.spec_overrides,
        }

    def save(self, path: str | Path) -> None:
        """Write the policy alone: JSON and safetensors in a zip, nothing that runs code when loaded."""
        tensors = {"policy": self.state_dict()}
        write_model(path, kind=type(self).__name__, data=self._get_constructor_parameters(), tensors=tensors)

    @classmethod
    def load(cls, path: str | Path, device: th.device | str = "auto") -> "WorldModelPolicy":
        """Read what :meth:`save` wrote.

        :raises ModelFileError: if the file is damaged, of another policy class, or holds pickled data
        """
        device = get_device(device)
        file = read_model(path, kind=cls.__name__, device=str(device))
        weights = file.tensors.get("policy", {})
        with only_stored(weights, str(path)):
            policy = cls(**file.data | cls.former_defaults(file.data, file.data.get("model_size"), weights))
        policy.load_state_dict(file.tensors["policy"])
        return policy.to(device)
