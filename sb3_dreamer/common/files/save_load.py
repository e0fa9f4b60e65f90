"""Write an algorithm to a model file and read it back. Nothing of a file is run."""

import io
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

from sb3_dreamer.common.files.json_codec import encode
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable, one_line
from sb3_dreamer.common.files.model_file import read_model, write_model
from sb3_dreamer.common.files.optimizer_state import load_optimizer, optimizer_to_tensors

Path = str | pathlib.Path | io.BufferedIOBase
OPTIMIZER_JSON = "_optimizer_settings"
POLICY_CLASS = "policy_class"
LEFT_OUT = "_left_out"
WITH_ENV = ("n_envs",)  #: attributes that a model has once it has an environment
COUNTS = {"n_envs": 1, "buffer_size": 1}
COUNTS |= dict.fromkeys(("num_timesteps", "_n_updates", "_episode_num", "_owed", "_logged_step"), 0)
_NONE = type(None)
#: types of the entries that are used before the algorithm checks its arguments
KINDS: dict[str, tuple[type, ...]] = {
    "observation_space": (spaces.Space,),
    "action_space": (spaces.Space,),
    "policy_kwargs": (dict,),
    "replay_buffer_kwargs": (dict, _NONE),
    "model_size": (str,),
    "seed": (int, _NONE),
    "verbose": (int,),
    "_ratio_state": (list,),
    "mixed_precision": (bool,),
    "overlap": (bool,),
} | dict.fromkeys(COUNTS, (int,))
NEEDED = ("observation_space", "action_space", "policy_kwargs", POLICY_CLASS, OPTIMIZER_JSON)


class StoredModel(NamedTuple):
    """Contents of a model file.

    :param name: of the file, for messages
    :param data: attributes of the algorithm
    :param policy_class: name of the policy class, or the class that ``custom_objects`` names
    :param settings: of the optimizers, by name; empty if the file was saved without them
    :param tensors: by part: ``policy``, the optimizers, ``carry``
    :param system_info: where the file was written
    :param left_out: attributes that the file could not hold; see :func:`left_out_sentences`
    """

    name: str
    data: dict[str, Any]
    policy_class: Any
    settings: dict[str, Any]
    tensors: dict[str, dict[str, th.Tensor]]
    system_info: str
    left_out: dict[str, float | None]


def storable(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Split attributes into those that a file can hold and the names of the others."""
    data, unstorable = {}, []
    for name, value in attributes.items():
        try:
            encode(value, name)
            data[name] = value
        except NotEncodable:
            unstorable.append(name)
    return data, unstorable


def write_algorithm(
    path: Path,
    kind: str,
    attributes: Mapping[str, Any],
    policy: BasePolicy,
    optimizers: Mapping[str, th.optim.Optimizer],
    carry: Mapping[str, th.Tensor] | None,
    *,
    warn: Callable[[str], None],
    verbose: int = 0,
) -> None:
    """Write a model file, whole or not at all.

    A schedule that is a function is stored as the value with which a call of ``learn`` begins.

    :param path: file name (``.zip`` is added if it has no suffix) or binary file object
    :param kind: name of the algorithm's class
    :param attributes: of the algorithm
    :param policy: whose class and weights are stored
    :param optimizers: by name; none for a file to share
    :param carry: recurrent state of the running episodes
    :param warn: called with what the file cannot hold
    :param verbose: 1 names the file
    """
    data, unstorable = storable(attributes)
    left_out = {name: first_value(attributes[name]) for name in unstorable}
    data |= {name: value for name, value in left_out.items() if value is not None}
    for sentence in left_out_sentences(left_out):
        warn(sentence)
    if left_out:
        data[LEFT_OUT] = left_out
    policy = getattr(policy, "_orig_mod", policy)  # what torch.compile wrapped
    tensors: dict[str, Any] = {"policy": policy.state_dict()}
    settings = {}
    for name, optimizer in optimizers.items():
        tensors[name], settings[name] = optimizer_to_tensors(optimizer)
    if carry is not None:
        tensors["carry"] = dict(carry)
    data |= {POLICY_CLASS: type(policy).__name__, OPTIMIZER_JSON: settings}
    write_model(cast(Any, path), kind=kind, data=data, tensors=tensors, verbose=verbose)


def first_value(value: Any) -> float | None:
    """The value with which a schedule begins; None for anything else."""
    try:
        return float(value(1.0))
    except Exception:  # it may be any object
        return None


def left_out_sentences(left_out: Mapping[str, float | None]) -> list[str]:
    """What to tell the user of attributes that a file cannot hold.

    :param left_out: the value that the file has instead, by name; None: it has none
    """
    again = "pass it again with load(..., custom_objects={...})"
    values = [f"{name}={value:g}" for name, value in left_out.items() if value is not None]
    missing = [name for name, value in left_out.items() if value is None]
    sentences = []
    if values:
        sentences.append(
            f"the file cannot hold a function and has its first value instead: {', '.join(values)}; {again}"
        )
    if missing:
        sentences.append(f"{', '.join(missing)} cannot be stored without code and is missing in the file: {again}")
    return sentences


def warn_left_out(stored: StoredModel, given: Iterable[str]) -> None:
    """Warn of what a file could not hold and was not passed again.

    :param given: names of what was passed
    """
    known = set(given)
    missing = {one_line(name): value for name, value in stored.left_out.items() if name not in known}
    for sentence in left_out_sentences(missing):
        warnings.warn(f"{stored.name}: {sentence}", stacklevel=3)


def read_algorithm(path: Path, kind: str, custom_objects: Mapping[str, Any]) -> StoredModel:
    """Read what :func:`write_algorithm` wrote.

    :param path: file name (with or without ``.zip``) or binary file object
    :param kind: name of the algorithm's class
    :param custom_objects: values to use instead of stored ones, by attribute name
    :raises ModelFileError: if the file is damaged, of another algorithm, or holds pickled data
    """
    file = read_model(cast(Any, path), kind=kind, skip=tuple(custom_objects))
    data = file.data | {name: custom_objects[name] for name in NEEDED if name in custom_objects}
    for name in NEEDED:
        if name not in data:
            raise ModelFileError(f"{path} has no {name!r}: it was saved with exclude, or is not a model of ours")
    policy_class, settings = data.pop(POLICY_CLASS), data.pop(OPTIMIZER_JSON)
    if not isinstance(settings, dict):
        raise ModelFileError(f"{path} has {OPTIMIZER_JSON}={one_line(settings)}: expected a table of optimizers")
    left_out = data.pop(LEFT_OUT, {})
    if not isinstance(left_out, dict) or not all(v is None or isinstance(v, float) for v in left_out.values()):
        raise ModelFileError(f"{path} has {LEFT_OUT}={one_line(left_out)}: expected a table of numbers")
    # A file does not choose where its reader writes.
    data.pop("tensorboard_log", None)
    if isinstance(data.get("replay_buffer_kwargs"), dict):
        data["replay_buffer_kwargs"].pop("replay_dir", None)
    return StoredModel(str(path), data, policy_class, settings, file.tensors, file.system_info, left_out)


def check_attributes(data: Mapping[str, Any], model: object, name: str) -> None:
    """Refuse entries that are no settings of the algorithm, or of another type than its settings have.

    :param data: attributes of the file
    :param model: just constructed, with the defaults of all settings
    :param name: of the file, for the message
    :raises ModelFileError: naming the entry
    """
    for key, value in data.items():
        if key not in (*vars(model), *NEEDED, *WITH_ENV):
            what = "a method or property" if hasattr(type(model), key) else "no setting"
            raise ModelFileError(
                f"{name} has an entry {one_line(key)!r}, which is {what} of {type(model).__name__}: if you trust it, "
                f"leave it out with load(..., custom_objects={{{one_line(key)!r}: None}})"
            )
        kinds = KINDS.get(key)
        if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ModelFileError(
                f"{name} has {key}={one_line(value)}: expected {' or '.join(k.__name__ for k in kinds)}"
            )
    for key, low in COUNTS.items():
        if isinstance(data.get(key), int) and not low <= data[key] < 2**63:
            raise ModelFileError(f"{name} has {key}={one_line(data[key])}: expected a number from {low} up")


def find_policy_class(stored: Any, known: Iterable[type[BasePolicy]]) -> Any:
    """The policy class of a stored name: only the algorithm's own are looked up.

    :raises ModelFileError: for any other name
    """
    if not isinstance(stored, str):
        return stored
    for policy_class in known:
        if policy_class.__name__ == stored:
            return policy_class
    raise ModelFileError(
        f"the model uses the policy class {stored!r}, which is not part of this library: "
        f"pass it with load(..., custom_objects={{'policy_class': {stored}}})"
    )


def restore_tensors(policy: BasePolicy, optimizers: Mapping[str, th.optim.Optimizer], stored: StoredModel) -> None:
    """Load the weights and the states of the optimizers, unless the file was saved without any.

    :raises ModelFileError: if tensors are missing, or do not fit the model's settings
    """
    optimizers = optimizers if stored.settings else {}
    missing = [part for part in ("policy", *optimizers) if part not in stored.tensors]
    missing += [part for part in optimizers if part not in stored.settings and part not in missing]
    if missing:
        raise ModelFileError(f"{stored.name} holds no tensors for {', '.join(missing)}: the file is not complete")
    try:
        policy.load_state_dict(stored.tensors["policy"])
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ModelFileError(
            f"the weights in {stored.name} do not fit this model ({first[0].strip()}): they belong to other spaces, "
            "another model_size or other policy_kwargs"
        ) from error
    for part, optimizer in optimizers.items():
        load_optimizer(optimizer, stored.tensors[part], stored.settings[part])
