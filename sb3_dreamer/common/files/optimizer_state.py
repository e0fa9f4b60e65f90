"""The state of a torch optimizer as tensors and JSON, and back, exactly."""

from collections.abc import Mapping
from typing import Any

import torch as th

from sb3_dreamer.common.files.json_codec import decode, encode
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable, one_line

_STATE = ("lr", "params")  #: options of a group that training changes; the others follow from the model's arguments


def optimizer_to_tensors(optimizer: th.optim.Optimizer) -> tuple[dict[str, th.Tensor], Any]:
    """
    Split an optimizer's state into tensors and JSON.

    :return: state tensors by ``"<parameter index>.<state key>"`` (and ``"group.<group index>.<option>"``), and JSON
        with the options of each group, the state that is not a tensor, and the shapes of the parameters
    :raises NotEncodable: for state that neither form holds
    """
    state = optimizer.state_dict()
    tensors: dict[str, th.Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for index, entries in state["state"].items():
        if type(index) is not int:
            raise NotEncodable(
                f"{type(optimizer).__name__} keeps state outside its parameters ({index!r}): not supported"
            )
        rest[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, th.Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                rest[str(index)][key] = encode(value, f"state of parameter {index}: {key}")
    for index, group in enumerate(state["param_groups"]):
        groups.append({})
        for key, value in group.items():
            if isinstance(value, th.Tensor):
                tensors[f"group.{index}.{key}"] = value
            else:
                groups[-1][key] = encode(value, f"parameter group {index}: {key}")
    shapes = [[list(param.shape) for param in group["params"]] for group in optimizer.param_groups]
    return tensors, {"class": type(optimizer).__name__, "param_groups": groups, "state": rest, "shapes": shapes}


def load_optimizer(optimizer: th.optim.Optimizer, tensors: Mapping[str, th.Tensor], json: Any) -> None:
    """
    Restore what ``optimizer_to_tensors`` gave, exactly: types of the state are kept even where torch would cast them.

    Options other than the learning rate stay as the given optimizer has them.

    :param optimizer: an optimizer of the same class over parameters of the same shapes; unchanged after an error
    :raises ModelFileError: when the state does not fit the optimizer
    """
    name = type(optimizer).__name__
    order = [param for group in optimizer.param_groups for param in group["params"]]
    try:
        state, groups = _optimizer_state(optimizer, tensors, json)
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ModelFileError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"the optimizer state in the file does not fit {name} ({one_line(error)})") from error
    for index, items in state.items():
        for key, value in items.items():
            loaded = optimizer.state[order[index]][key]
            # torch casts state to the parameter's type
            if isinstance(value, th.Tensor) and value.dtype != loaded.dtype:
                optimizer.state[order[index]][key] = value.to(loaded.device)


def _optimizer_state(
    optimizer: th.optim.Optimizer, tensors: Mapping[str, th.Tensor], json: Any
) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """Join tensors and JSON to the two halves of a torch optimizer's state dict, checked against the optimizer."""
    name = type(optimizer).__name__
    if json["class"] != name:
        raise ModelFileError(f"the file holds the state of {one_line(json['class'])}, not of {name}: build that class")
    shapes = [[list(param.shape) for param in group["params"]] for group in optimizer.param_groups]
    if json["shapes"] != shapes:
        raise ModelFileError(
            f"the optimizer state in the file is of other parameters than {name} has: same model_size?"
        )
    groups = [{key: decode(value, f"{name}.{key}") for key, value in group.items()} for group in json["param_groups"]]
    state = {int(at): {key: decode(value) for key, value in items.items()} for at, items in json["state"].items()}
    for key, tensor in tensors.items():
        at, _, entry = key.partition(".")
        if at == "group":
            at, _, entry = entry.partition(".")
            groups[int(at)][entry] = tensor.detach().clone()
        else:
            state[int(at)][entry] = tensor.detach().clone()
    for group, current in zip(groups, optimizer.param_groups, strict=True):
        group.update({key: value for key, value in current.items() if key not in _STATE})
        for key, value in current.items():
            if isinstance(value, th.Tensor) and key in group:
                group[key] = value.clone().fill_(group[key])
            elif isinstance(group.get(key), th.Tensor):
                group[key] = group[key].item()
    if not state.keys() <= set(range(sum(map(len, shapes)))):
        raise ModelFileError(f"the optimizer state in the file names parameters that {name} lacks: same model_size?")
    return state, groups
