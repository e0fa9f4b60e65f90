"""Typed JSON for the values that algorithm attributes hold: a model file then needs no format that can run code.

Plain JSON stands for None, booleans, integers, finite floats, strings, lists and dicts with string keys. Everything
else is ``{"$": tag, "v": parts}``: the tag selects one codec of a closed table, the parts are typed JSON themselves.
"""

import math
from typing import Any

import torch as th

from sb3_dreamer.common.files.json_text import (
    MAX_DEPTH,
    MAX_INT_BITS,
    MAX_JSON_DEPTH,
    ModelFileError,
    NotEncodable,
    one_line,
)
from sb3_dreamer.common.files.json_types import codec_for_tag, codec_of, register_type

__all__ = ["TAG", "decode", "encode", "register_type"]

TAG = "$"


def encode(value: object, path: str = "value") -> Any:
    """
    Turn a value into typed JSON.

    :param value: None, bool, int, float, str, list, tuple, dict, set, frozenset, deque, ``pathlib.Path``, numpy scalar,
        array (at most 16 MiB) or dtype, ``th.device``, a gymnasium space, an SB3 schedule, action noise or
        ``TrainFreq``, a class of the activation list, or what ``register_type`` added
    :param path: name of the attribute, for the message
    :return: what ``json.dumps`` takes; ``decode`` gives the value back, types included
    :raises NotEncodable: for anything else (functions, files, environments, tensors), naming the place
    """
    return _encode(value, path, 0)


def decode(value: Any, path: str = "value") -> Any:
    """
    Give back the value that ``encode`` turned into JSON. Constructs objects of the codec table only.

    :param value: parsed JSON
    :param path: name of the attribute, for the message
    :raises ModelFileError: when the JSON is not what ``encode`` writes
    """
    return _decode(value, path, 0)


def _encode(value: Any, path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotEncodable(f"{path[:200]} is nested more than {MAX_DEPTH} levels deep (does it contain itself?)")
    kind = type(value)
    if value is None or kind in (bool, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is int and value.bit_length() <= MAX_INT_BITS:
        return value
    if kind is list:
        return [_encode(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if kind is dict:
        items = {key: _encode(item, f"{path}[{key!r:.80}]", depth + 1) for key, item in value.items()}
        if TAG not in items and all(type(key) is str for key in items):
            return items
        return {TAG: "dict", "v": [[_encode(key, f"{path} key", depth + 1), item] for key, item in items.items()]}
    codec = codec_of(value)
    if codec is None:
        raise NotEncodable(_refusal(value, path))
    try:
        parts = codec.pack(value)
    except ValueError as error:
        raise NotEncodable(f"{path} cannot be stored in a model file: {error}") from error
    return {TAG: codec.tag, "v": _encode(parts, path, depth + 1)}


def _refusal(value: Any, path: str) -> str:
    name = getattr(value, "__qualname__", None) if callable(value) else None
    shown = f"{type(value).__module__}.{type(value).__qualname__}" + (f" {name}" if isinstance(name, str) else "")
    hint = "exclude the attribute when saving and pass it again when loading"
    if isinstance(value, th.Tensor):
        hint = "store tensors beside the JSON, as parameters or as a numpy array"
    elif isinstance(value, type):
        hint = "only registered classes have a name in model files, see register_type"
    elif callable(value):
        hint = "SB3's ConstantSchedule and LinearSchedule can be stored; for others, " + hint
    return f"{path} holds {shown}, which model files do not store: {hint}"


def _decode(value: Any, path: str, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise ModelFileError(f"{path[:200]} is nested too deeply: get the file again from its source")
    if isinstance(value, list):
        return [_decode(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if ":serialized:" in value:
        raise ModelFileError(f"{path} contains pickled data, which can run code on load; it was not loaded")
    if TAG not in value:
        return {key: _decode(item, f"{path}[{key!r:.80}]", depth + 1) for key, item in value.items()}
    tag = value[TAG]
    codec = codec_for_tag(tag)
    if codec is None or value.keys() != {TAG, "v"}:
        raise ModelFileError(f"{path} has the unknown type {one_line(tag)}: import the package that registers it first")
    parts = _decode(value["v"], path, depth + 1)
    try:
        return codec.unpack(parts)
    except Exception as error:  # the parts come from a file: whatever a constructor makes of them is the file's fault
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ModelFileError(f"{path} is not a valid {one_line(tag)} ({reason})") from error
