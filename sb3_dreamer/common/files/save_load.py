"""Write an algorithm to a model file and read it back. Nothing of a file is run."""

import io
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_dreamer.common.files.json_codec import encode
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable
from sb3_dreamer.common.files.model_file import read_model, write_model
from sb3_dreamer.common.files.optimizer_state import load_optimizer, optimizer_to_tensors

Path = str | pathlib.Path | io.BufferedIOBase
OPTIMIZER_JSON = "_optimizer_settings"
POLICY_CLASS = "policy_class"
NEEDED = ("observation_space", "action_space", "policy_kwargs", POLICY_CLASS, OPTIMIZER_JSON)


class StoredModel(NamedTuple):
    """Contents of a model file.

    :param name: of the file, for messages
    :param data: attributes of the algorithm
    :param policy_class: name of the policy class, or the class that ``custom_objects`` names
    :param settings: of the optimizers, by name
    :param tensors: by part: ``policy``, the optimizers, ``carry``
    :param system_info: where the file was written
    """

    name: str
    data: dict[str, Any]
    policy_class: Any
    settings: Any
    tensors: dict[str, dict[str, th.Tensor]]
    system_info: str


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
    learning_rate: float,
    warn: Callable[[str], None],
    verbose: int = 0,
) -> None:
    """Write a model file, whole or not at all.

    :param path: file name (``.zip`` is added if it has no suffix) or binary file object
    :param kind: name of the algorithm's class
    :param attributes: of the algorithm
    :param policy: whose class and weights are stored
    :param optimizers: by name
    :param carry: recurrent state of the running episodes
    :param learning_rate: stored in place of a schedule that is a function
    :param warn: called with what the file cannot hold
    :param verbose: 1 names the file
    """
    data, unstorable = storable(attributes)
    if "learning_rate" in unstorable:  # A function: what it gives now is better than nothing.
        data["learning_rate"] = learning_rate
    if unstorable:
        warn(
            f"{', '.join(unstorable)} cannot be stored without code and will be missing in the file: "
            "pass it again with load(..., custom_objects={...})"
        )
    tensors: dict[str, Any] = {"policy": policy.state_dict()}
    settings = {}
    for name, optimizer in optimizers.items():
        tensors[name], settings[name] = optimizer_to_tensors(optimizer)
    if carry is not None:
        tensors["carry"] = dict(carry)
    data |= {POLICY_CLASS: type(policy).__name__, OPTIMIZER_JSON: settings}
    write_model(cast(Any, path), kind=kind, data=data, tensors=tensors, verbose=verbose)


def read_algorithm(path: Path, kind: str, custom_objects: Mapping[str, Any]) -> StoredModel:
    """Read what :func:`write_algorithm` wrote.

    :param path: file name (with or without ``.zip``) or binary file object
    :param kind: name of the algorithm's class
    :param custom_objects: values to use instead of stored ones, by attribute name
    :raises ModelFileError: if the file is damaged, of another algorithm, or holds pickled data
    """
    file = read_model(cast(Any, path), kind=kind, device="cpu", skip=tuple(custom_objects))
    data = file.data | {name: custom_objects[name] for name in NEEDED if name in custom_objects}
    for name in NEEDED:
        if name not in data:
            raise ModelFileError(f"{path} has no {name!r}: it was saved with exclude, or is not a model of ours")
    policy_class, settings = data.pop(POLICY_CLASS), data.pop(OPTIMIZER_JSON)
    return StoredModel(str(path), data, policy_class, settings, file.tensors, file.system_info)


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
    """Load the weights and the states of the optimizers.

    :raises ModelFileError: if tensors are missing, or do not fit the model's settings
    """
    missing = [part for part in ("policy", *optimizers) if part not in stored.tensors]
    if missing:
        raise ModelFileError(f"{stored.name} holds no tensors for {', '.join(missing)}: the file is not complete")
    try:
        policy.load_state_dict(stored.tensors["policy"])
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ModelFileError(f"{stored.name} does not fit its own settings ({first[0].strip()})") from error
    for part, optimizer in optimizers.items():
        load_optimizer(optimizer, stored.tensors[part], stored.settings[part])
