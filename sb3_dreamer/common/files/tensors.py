"""The safetensors format, written and read in chunks, every field checked before it is used.

Layout: https://github.com/huggingface/safetensors. One file holds a header of JSON and the bytes of all tensors.
"""

import itertools
import math
import struct
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import torch as th

from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable, dumps, loads, one_line

FROM_SOURCE = "get the file again from its source, or use an earlier checkpoint"
_CHUNK = 4 * 2**20
_MAX_HEADER = 16 * 2**20
DTYPES: dict[str, tuple[str | None, th.dtype]] = {  # safetensors name -> numpy and torch types
    "BOOL": ("|b1", th.bool),
    "U8": ("|u1", th.uint8),
    "I8": ("|i1", th.int8),
    "U16": ("<u2", th.uint16),
    "I16": ("<i2", th.int16),
    "F16": ("<f2", th.float16),
    "BF16": (None, th.bfloat16),
    "U32": ("<u4", th.uint32),
    "I32": ("<i4", th.int32),
    "F32": ("<f4", th.float32),
    "U64": ("<u8", th.uint64),
    "I64": ("<i8", th.int64),
    "F64": ("<f8", th.float64),
}
_OF_NUMPY = {code: name for name, (code, _) in DTYPES.items() if code}
_OF_TORCH = {dtype: name for name, (_, dtype) in DTYPES.items()}
_SIZES = {name: dtype.itemsize for name, (_, dtype) in DTYPES.items()}


class Entry(NamedTuple):
    """One tensor of a file: where its bytes are, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """A checked header."""

    names: list[str]  # as written
    entries: list[Entry]  # as they follow in the file
    metadata: dict[str, str]
    data_start: int


def _dtype_name(item: Any, what: str) -> str:
    if isinstance(item, th.Tensor):
        known = _OF_TORCH.get(item.dtype) if item.layout == th.strided and not item.is_quantized else None
    elif not isinstance(item, np.ndarray):
        raise NotEncodable(f"{what} is a {type(item).__name__}, not a tensor or an array: convert it")
    else:
        known = _OF_NUMPY.get(item.dtype.newbyteorder("<").str)
    if known is None:
        raise NotEncodable(f"{what} has type {item.dtype}, which files do not store: convert it to numbers, dense")
    return known


def layout_of(items: Mapping[str, Any], metadata: dict[str, str]) -> tuple[bytes, list[str], int]:
    """Give the header bytes, the order of the data (largest elements first: aligned), and the size of the data."""
    for name in items:
        if type(name) is not str or name == "__metadata__":
            raise NotEncodable(f"{name!r} is not a name for a tensor: use a string other than '__metadata__'")
    dtypes = {name: _dtype_name(item, name) for name, item in items.items()}
    order = sorted(items, key=lambda name: -_SIZES[dtypes[name]])
    begin, entries = 0, {}
    for name in order:
        shape = [int(size) for size in items[name].shape]
        end = begin + math.prod(shape) * _SIZES[dtypes[name]]
        entries[name] = {"dtype": dtypes[name], "shape": shape, "data_offsets": [begin, end]}
        begin = end
    header = dumps({"__metadata__": metadata, **{name: entries[name] for name in items}}, "the list of tensors")
    header += b" " * (-len(header) % 8)
    if len(header) > _MAX_HEADER:
        raise NotEncodable(f"the list of tensors and its metadata take {len(header) / 2**20:.0f} MiB, at most 16 fit")
    return struct.pack("<Q", len(header)) + header, order, begin


def write_safetensors(handle: IO[bytes], items: Mapping[str, Any], layout: tuple[bytes, list[str], int]) -> None:
    """Write header and data; ``layout`` is what :func:`layout_of` gave for the same items."""
    header, order, _ = layout
    handle.write(header)
    for name in order:
        item = items[name]
        if isinstance(item, th.Tensor):  # bytes through torch: numpy has no bfloat16
            item = item.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy()
        little = item.dtype.newbyteorder("<")
        chunks = np.nditer(  # type: ignore[call-overload]  # the stubs lack "contig"
            item,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=[["readonly", "contig"]],
            op_dtypes=[little],
            casting="equiv",
            order="C",
            buffersize=max(1, _CHUNK // little.itemsize),
        )
        if item.size:
            for chunk in chunks:
                handle.write(chunk.view(np.uint8).data)


def read_header(handle: IO[bytes], size: int, what: str) -> Header:
    """Read and check a header: entries in file order, without gap or overlap, that take all bytes of the file."""
    start = handle.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 2 <= length <= min(_MAX_HEADER, size - 8):
        raise ModelFileError(f"{what} is truncated or not a safetensors file: {FROM_SOURCE}")
    header = loads(handle.read(length), f"the header of {what}")
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ModelFileError(f"the header of {what} is not a safetensors header: {FROM_SOURCE}")
    entries = sorted((_entry(name, fields, what) for name, fields in header.items()), key=lambda entry: entry[3:])
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise ModelFileError(f"{what} has a gap or an overlap before '{one_line(entry.name)}': {FROM_SOURCE}")
        position = entry.end
    if position != size - 8 - length:
        raise ModelFileError(
            f"{what} is truncated or has extra bytes ({size - 8 - length} bytes of data for {position}): {FROM_SOURCE}"
        )
    return Header(list(header), entries, metadata, 8 + length)


def _entry(name: str, fields: Any, what: str) -> Entry:
    shown = f"'{one_line(name)}' in {what}"
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{shown} has no valid description: {FROM_SOURCE}")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelFileError(f"{shown} has the unknown dtype {one_line(dtype)}: upgrade sb3-dreamer, or {FROM_SOURCE}")
    if not all(isinstance(numbers, list) and len(numbers) <= 32 for numbers in (shape, offsets)) or len(offsets) != 2:
        raise ModelFileError(f"{shown} has no valid shape and offsets: {FROM_SOURCE}")
    if any(type(number) is not int or not 0 <= number < 2**48 for number in itertools.chain(shape, offsets)):
        raise ModelFileError(f"{shown} has no valid shape and offsets: {FROM_SOURCE}")
    if offsets[1] - offsets[0] != math.prod(shape) * _SIZES[dtype]:
        raise ModelFileError(
            f"{shown} has {offsets[1] - offsets[0]} bytes for shape {shape[:8]} of {dtype}: {FROM_SOURCE}"
        )
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def read_into(handle: IO[bytes], buffer: np.ndarray, entry: Entry, what: str) -> None:
    """Fill a buffer of bytes with one entry, in chunks. The caller has checked that the file is long enough."""
    view, done = buffer.data, 0
    while done < len(view):
        count = handle.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise ModelFileError(f"{what} ends early, within '{one_line(entry.name)}': {FROM_SOURCE}")
        if entry.dtype == "BOOL" and buffer[done : done + count].max() > 1:
            raise ModelFileError(f"'{one_line(entry.name)}' in {what} is not boolean: {FROM_SOURCE}")
        done += count


def is_pickle(start: bytes) -> bool:
    """Whether bytes begin as a pickle of protocol 2 or later; a safetensors file of 640-byte header does not count."""
    marked = len(start) >= 2 and start[0] == 0x80 and 2 <= start[1] <= 8
    return marked and not (len(start) > 8 and start[4:8] == b"\0\0\0\0" and start[8:9] == b"{")
