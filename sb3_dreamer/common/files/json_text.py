"""JSON text of unknown origin, parsed within limits, and the errors of all file code."""

import json
import re
from typing import Any

import numpy as np

MAX_DEPTH = 64  # levels of nesting in a value; one level is at most three levels of JSON
MAX_JSON_DEPTH = 4 * MAX_DEPTH
MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_NODES = 1_000_000  # parsed JSON takes up to 100 bytes a node: 64 MiB of brackets would take gigabytes
MAX_INT_BITS = 4096  # Python refuses to parse integers of more than 4300 digits
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as int8: one level down, one level up
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class ModelFileError(ValueError):
    """A model or replay file that is refused; the message is one line and says what to do."""


class NotEncodable(TypeError):  # noqa: N818 - reads as the reason in a traceback
    """A value that model files do not hold; the message names the attribute and where in it the value stands."""


def dumps(value: Any, what: str) -> bytes:
    """
    Write JSON to bytes within the limits that ``loads`` enforces.

    :param what: name for the message
    :raises NotEncodable: when the JSON would be too large to be read back
    """
    text = json.dumps(value, allow_nan=False)
    if len(text) > MAX_JSON_BYTES or _nodes(text) > MAX_JSON_NODES:
        raise NotEncodable(f"{what} would take {len(text) / 2**20:.0f} MiB of JSON: store large arrays as tensors")
    return text.encode("ascii")


def loads(raw: bytes, what: str) -> Any:
    """
    Parse JSON of unknown origin: size, number of nodes, depth, integer length and repeated keys are bounded.

    :param what: name for the message
    :raises ModelFileError: when a limit is passed or the bytes are not JSON
    """
    try:
        text = raw.decode("utf-8")
        if len(raw) > MAX_JSON_BYTES or _nodes(text) > MAX_JSON_NODES:
            raise ModelFileError(f"{what} is too large for JSON of this format: get the file again from its source")
        if _depth(text) > MAX_JSON_DEPTH:
            raise ModelFileError(f"{what} is nested too deeply: get the file again from its source")
        return json.loads(text, parse_int=_parse_int, parse_constant=_refuse, object_pairs_hook=_unique)
    except ModelFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{what} is not valid JSON ({one_line(error)}): get the file again from its source"
        ) from error


def one_line(text: object, length: int = 160) -> str:
    """Shorten a message or a name of unknown origin to one printable line."""
    return ascii(" ".join(str(text)[:1000].split()))[1:-1][:length]


def _nodes(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _depth(text: str) -> int:
    # Counted before parsing: json.loads recurses, and a raised recursion limit would let it overflow the stack.
    if text.count("[") + text.count("{") <= MAX_JSON_DEPTH:
        return 0
    brackets = _STRING.sub("", text).encode("ascii", "ignore").translate(_STEPS, _NO_BRACKETS)
    return int(np.cumsum(np.frombuffer(brackets, np.int8), dtype=np.int32).max(initial=0))


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_INT_BITS // 3:
        raise ValueError("an integer is too long")
    return int(digits)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result
