"""Check hyperparameters against the constructor that will receive them."""

import collections.abc
import inspect
import types
import typing
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.arguments import parse_value
from sb3_dreamer.zoo.config.errors import UsageError, quote

# What the programs read themselves, with the type of each.
ZOO_KEYS: dict[str, type] = {
    "n_timesteps": int,
    "n_envs": int,
    "policy": str,
    "env": str,
    "preset": str,
    "env_kwargs": dict,
    "env_wrapper": object,
}
# Constructor arguments that have a flag of their own.
FLAGS = {
    "seed": "--seed",
    "device": "--device",
    "verbose": "--verbose",
    "tensorboard_log": "--tensorboard-log",
}
UNSUPPORTED = {  # keys of rl_zoo3: what to use instead
    "normalize": "a world model scales its inputs itself",
    "frame_stack": "put frame_stack into env_kwargs; a recurrent model rarely needs it",
    "vec_env_wrapper": "use env_wrapper",
    "callback": "use the flags --eval-freq and --save-freq, or learn(callback=...) in Python",
    "monitor_kwargs": "every environment is monitored; put info keywords into a wrapper",
    "noise_type": "set action_noise in Python; world models explore by sampling",
    "noise_std": "set action_noise in Python; world models explore by sampling",
}


def constructor_arguments(cls: type) -> dict[str, Any]:
    """Return the type hint of every constructor argument that a file may set, by name."""
    skipped = ("policy", "env", *FLAGS)
    parameters = inspect.signature(cls).parameters
    return {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if name not in skipped and not name.startswith("_")
    }


def check_values(values: dict[str, Any], cls: type, where: str) -> dict[str, Any]:
    """Convert values to the types that the constructor declares.

    :param values: hyperparameters and zoo keys by name
    :param cls: algorithm class
    :param where: file and task, or flag, for the message
    :raises UsageError: for an unknown key, with the nearest known one, or a value of another type
    """
    from sb3_dreamer.common.arguments import ELSEWHERE  # imports torch, which the class has done

    hints = constructor_arguments(cls)
    instead = ELSEWHERE | UNSUPPORTED
    checked = {}
    for name, value in values.items():
        if name in FLAGS:
            raise UsageError(f"{where}: {name} has a flag of its own: use {FLAGS[name]}")
        if name not in hints and name not in ZOO_KEYS:
            if name in instead:
                raise UsageError(f"{where}: {name}={quote(value)} is not supported: {instead[name]}")
            known = [*ZOO_KEYS, *hints]
            raise UsageError(f"{where}: unknown hyperparameter {name}={quote(value)}{near(str(name), known)}")
        checked[name] = check_value(name, value, ZOO_KEYS.get(name) or hints[name], where)
    for name in ("n_timesteps", "n_envs"):
        if name in checked and checked[name] < 1:
            raise UsageError(f"{where}: {name}={checked[name]} must be at least 1")
    return checked


def check_value(name: str, value: Any, hint: Any, where: str) -> Any:
    """Convert a value to the first type of the hint that fits, still as a plain value.

    A whole number may be written ``1e6``; a schedule ``lin_0.001`` falls from that number to 0 (rl_zoo3's spelling).

    :raises UsageError: if none fits
    """
    if isinstance(value, str) and value.startswith("dict(") and dict in map(_origin, _alternatives(hint)):
        value = parse_value(value, f"{where}: {name}")  # rl_zoo3's files write mappings so
    for kind in _alternatives(hint):
        fits, converted = _convert(value, kind)
        if fits:
            return converted
    raise UsageError(f"{where}: {name}={quote(value)} must be {' or '.join(_words(hint))}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind) or kind


def _convert(value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether the value is of this type, and the value to pass on."""
    origin = _origin(kind)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if origin is float:
        fits, value = number, float(value) if number else value
    elif origin is int:
        fits = number and value == value // 1
        value = int(value) if fits else value
    elif origin is collections.abc.Callable:
        fits = _is_schedule(value)
    elif origin is tuple:
        fits = isinstance(value, list | tuple)
    elif origin is typing.Literal:
        fits = value in typing.get_args(kind)
    else:
        fits = origin is Any or (isinstance(origin, type) and isinstance(value, origin))
    return fits, value


def _is_schedule(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.startswith("lin_") and float(value[4:]) > 0
    except ValueError:
        return False


def to_constructor(values: dict[str, Any], cls: type) -> dict[str, Any]:
    """Turn checked values into what the constructor takes: schedules made, lists of ``train_freq`` as tuples."""
    from stable_baselines3.common.utils import LinearSchedule

    made: dict[str, Any] = {}
    for name, value in values.items():
        kinds = [typing.get_origin(kind) for kind in _alternatives(constructor_arguments(cls)[name])]
        if collections.abc.Callable in kinds and isinstance(value, str):
            made[name] = LinearSchedule(float(value[4:]), 0.0, 1.0)
        else:
            made[name] = tuple(value) if tuple in kinds and isinstance(value, list) else value
    return made


def _words(hint: Any) -> list[str]:
    """Name the types of a hint in words."""
    names = {float: "a number", int: "a whole number", str: "text", dict: "a mapping", bool: "true or false"}
    words = []
    for kind in _alternatives(hint):
        origin = _origin(kind)
        if origin is collections.abc.Callable:
            words.append("a schedule such as lin_0.001")
        elif origin is tuple:
            words.append("a list")
        elif origin is typing.Literal:
            words += [repr(choice) for choice in typing.get_args(kind)]
        elif origin in names:
            words.append(names[origin])
    return words or ["something that only Python code can pass"]
