"""Typed JSON for the values that algorithm attributes hold: a model file then needs no format that can run code.

Plain JSON stands for None, booleans, integers, finite floats, strings, lists and dicts with string keys. Everything
else is ``{"$": tag, "v": parts}``: the tag selects one codec of a closed table, the parts are typed JSON themselves.
"""

import base64
import binascii
import collections
import dataclasses
import enum
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import noise as sb3_noise
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_dreamer.common.files.json_text import (
    MAX_DEPTH,
    MAX_INT_BITS,
    MAX_JSON_DEPTH,
    ModelFileError,
    NotEncodable,
    one_line,
)

TAG = "$"
MAX_ARRAY_BYTES = 16 * 2**20
_SCALARS = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_DTYPES = {dtype.str: dtype for order in "<>" for dtype in (np.dtype(order + code) for code in _SCALARS)}
_ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish"),
    *("PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink"),
)


class Codec(NamedTuple):
    """How values of one type are taken apart and put together."""

    tag: str
    pack: Callable[[Any], Any]  # value -> encodable parts; ValueError(reason) refuses the value
    unpack: Callable[[Any], Any]  # decoded parts -> value; whatever it raises becomes a ModelFileError


_BY_TYPE: dict[type, Codec] = {}
_BY_TAG: dict[str, Codec] = {}
_CLASSES: dict[str, type] = {f"torch.nn.{name}": getattr(th.nn, name) for name in _ACTIVATIONS}
_CLASSES |= {f"numpy.{dtype.type.__name__}": dtype.type for dtype in _DTYPES.values()}
_CLASS_NAMES = {cls: name for name, cls in _CLASSES.items()}


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


def register_type(name: str, cls: type) -> None:
    """
    Let model files hold a class by its name and, for frozen dataclasses, NamedTuples and enums, its instances.

    :param name: name in the file; it must never change. Letters, digits, ``_`` and ``.``
    :param cls: the class. Instances are rebuilt through its constructor, so its checks run on load
    :raises ValueError: for a dataclass that is not frozen, or a name that another class has
    """
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name, re.ASCII):
        raise ValueError(f"{name!r} is not a type name: use letters, digits, '_' and '.', as in 'RSSMSpec'")
    known = _CLASSES.get(name)
    same = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
    if not same and (known is not None or name in _BY_TAG):
        raise ValueError(f"the type name {name!r} is taken: register {cls.__qualname__} under another name")
    if dataclasses.is_dataclass(cls):
        if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise ValueError(f"{cls.__qualname__} can change: declare it with @dataclass(frozen=True)")
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        _add(cls, name, lambda value: {key: getattr(value, key) for key in names}, lambda parts: cls(**parts))
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        _add(cls, name, lambda value: value._asdict(), lambda parts: cls(**parts))
    elif issubclass(cls, enum.Enum):
        _add(cls, name, lambda value: value.name, lambda parts: cls[parts])
    _CLASSES[name], _CLASS_NAMES[cls] = cls, name


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
    codec = _codec_of(value)
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
    codec = _BY_TAG.get(tag) if isinstance(tag, str) else None
    if codec is None or value.keys() != {TAG, "v"}:
        raise ModelFileError(f"{path} has the unknown type {one_line(tag)}: import the package that registers it first")
    parts = _decode(value["v"], path, depth + 1)
    try:
        return codec.unpack(parts)
    except Exception as error:  # the parts come from a file: whatever a constructor makes of them is the file's fault
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ModelFileError(f"{path} is not a valid {one_line(tag)} ({reason})") from error


def _codec_of(value: Any) -> Codec | None:
    """The codec of a value that is not plain JSON; None if files do not hold it."""
    if type(value) in _BY_TYPE:
        return _BY_TYPE[type(value)]
    families = {np.generic: "scalar", np.dtype: "dtype", np.memmap: "ndarray", pathlib.PurePath: "path"}
    for base, tag in families.items():
        if isinstance(value, base):
            return _BY_TAG[tag]
    return _BY_TAG["class"] if isinstance(value, type) and value in _CLASS_NAMES else None


def _add(cls: type | None, tag: str, pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> None:
    codec = _BY_TAG[tag] = Codec(tag, pack, unpack)
    if cls is not None:
        _BY_TYPE[cls] = codec


def _pack_array(array: np.ndarray) -> list[Any]:
    if array.dtype.str not in _DTYPES:
        raise ValueError(f"arrays of dtype {array.dtype} are not stored; convert it to numbers")
    if array.nbytes > MAX_ARRAY_BYTES:
        raise ValueError(f"the array has {array.nbytes / 2**20:.0f} MiB; store it as a tensor")
    return [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode("ascii")]


def _unpack_array(parts: list[Any]) -> np.ndarray:
    name, shape, text = parts
    dtype, raw = _DTYPES[name], base64.b64decode(text, validate=True)
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError("the shape does not fit the bytes")
    if dtype.kind == "b" and raw.translate(None, b"\0\1"):
        raise binascii.Error("booleans are 0 or 1")
    return np.frombuffer(raw, dtype).reshape(shape).copy()


def _pack_box(box: spaces.Box) -> list[Any]:
    bounded = [box.bounded_below, box.bounded_above]
    rebuilt = spaces.Box(box.low, box.high, dtype=box.dtype.type)
    if rebuilt != box:
        raise ValueError(f"{box} does not survive gymnasium's own constructor")
    derived = np.array_equal([rebuilt.bounded_below, rebuilt.bounded_above], bounded)
    return [box.low, box.high, None if derived else bounded]


def _unpack_box(parts: list[Any]) -> spaces.Box:
    low, high, bounded = parts
    box: spaces.Box = spaces.Box(low, high, dtype=low.dtype.type)
    if bounded is not None:  # integer boxes keep there that a bound was given as infinite
        box.bounded_below, box.bounded_above = (np.broadcast_to(flags, box.shape).astype(bool) for flags in bounded)
    return box


def _unpack_discrete(parts: list[Any]) -> spaces.Discrete:
    n, start, dtype = parts
    extra = {} if dtype == np.int64 else {"dtype": dtype.type}  # gymnasium 1.1 has no dtype argument
    return spaces.Discrete(n, start=start, **extra)


def _unpack_dict_space(parts: list[Any]) -> spaces.Dict:
    pairs, sort_keys = parts
    space = spaces.Dict([tuple(pair) for pair in pairs])  # a list: gymnasium would sort a dict
    if sort_keys is not None:
        space.sort_keys = bool(sort_keys)
    return space


def _pack_ou(noise: Any) -> list[Any]:
    return [noise._mu, noise._sigma, noise._theta, noise._dt, noise.initial_noise, noise._dtype, noise.noise_prev]


def _unpack_ou(parts: list[Any]) -> sb3_noise.OrnsteinUhlenbeckActionNoise:
    noise = sb3_noise.OrnsteinUhlenbeckActionNoise(*parts[:6])
    noise.noise_prev = parts[6]
    return noise


def _unpack_vector_noise(parts: list[Any]) -> sb3_noise.VectorizedActionNoise:
    base, noises = parts
    vector = sb3_noise.VectorizedActionNoise(base, 1)
    vector.n_envs, vector._noises = len(noises), noises  # the public setter would reset them
    return vector


_add(None, "dict", list, lambda parts: {key: item for key, item in parts})  # noqa: C416 - refuses items that are not pairs
_add(float, "float", repr, lambda parts: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[parts])
_add(tuple, "tuple", list, tuple)
_add(set, "set", lambda value: sorted(value, key=repr), set)
_add(frozenset, "frozenset", lambda value: sorted(value, key=repr), frozenset)
_add(collections.OrderedDict, "odict", lambda v: [list(pair) for pair in v.items()], collections.OrderedDict)
_add(collections.deque, "deque", lambda v: [list(v), v.maxlen], lambda parts: collections.deque(*parts))
_add(np.ndarray, "ndarray", _pack_array, _unpack_array)
_add(None, "scalar", lambda value: _pack_array(np.asarray(value)), lambda parts: _unpack_array(parts)[()])
_add(None, "dtype", lambda value: _pack_array(np.empty(0, value))[0], _DTYPES.__getitem__)
_add(None, "path", str, pathlib.Path)
_add(None, "class", _CLASS_NAMES.__getitem__, _CLASSES.__getitem__)
_add(th.device, "device", str, th.device)
_add(spaces.Box, "Box", _pack_box, _unpack_box)
_add(spaces.Discrete, "Discrete", lambda s: [int(s.n), int(s.start), np.dtype(s.dtype)], _unpack_discrete)
_add(spaces.MultiBinary, "MultiBinary", lambda s: s.n, spaces.MultiBinary)
_add(
    spaces.MultiDiscrete,
    "MultiDiscrete",
    lambda s: [s.nvec, s.start],
    lambda parts: spaces.MultiDiscrete(parts[0], dtype=parts[0].dtype.type, start=parts[1]),
)
_add(spaces.Tuple, "Tuple", lambda s: list(s.spaces), spaces.Tuple)
_add(
    spaces.Dict,
    "Dict",
    lambda s: [[list(pair) for pair in s.spaces.items()], getattr(s, "sort_keys", None)],
    _unpack_dict_space,
)
_add(ConstantSchedule, "ConstantSchedule", lambda s: s.val, ConstantSchedule)
_add(LinearSchedule, "LinearSchedule", lambda s: [s.start, s.end, s.end_fraction], lambda parts: LinearSchedule(*parts))
_add(FloatSchedule, "FloatSchedule", lambda s: s.value_schedule, FloatSchedule)
_add(
    sb3_noise.NormalActionNoise,
    "NormalActionNoise",
    lambda value: [value._mu, value._sigma, value._dtype],
    lambda parts: sb3_noise.NormalActionNoise(*parts),
)
_add(sb3_noise.OrnsteinUhlenbeckActionNoise, "OrnsteinUhlenbeckActionNoise", _pack_ou, _unpack_ou)
_add(sb3_noise.VectorizedActionNoise, "VectorizedActionNoise", lambda v: [v.base_noise, v.noises], _unpack_vector_noise)
for _name, _cls in (
    ("RolloutReturn", RolloutReturn),
    ("TrainFreq", TrainFreq),
    ("TrainFrequencyUnit", TrainFrequencyUnit),
):
    register_type(_name, _cls)
