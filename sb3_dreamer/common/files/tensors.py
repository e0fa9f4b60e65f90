"""Tensors as bytes in the safetensors format, with the checks that the library leaves to its caller."""

import io
import struct
from collections.abc import Mapping
from typing import IO, Any

import safetensors.torch
import torch as th

from sb3_dreamer.common.files.json_text import MAX_JSON_BYTES, ModelFileError, NotEncodable, loads, one_line

FROM_SOURCE = "get the file again from its source, or use an earlier checkpoint"


def tensors_to_bytes(tensors: Mapping[str, th.Tensor]) -> bytes:
    """
    Write dense tensors of numbers or booleans, in any memory layout, to bytes.

    :raises NotEncodable: naming the tensor
    """
    dense: dict[str, th.Tensor] = {}
    storages = set()
    for name, tensor in tensors.items():
        check_name(name)
        if not isinstance(tensor, th.Tensor):
            raise NotEncodable(f"{name} is a {type(tensor).__name__}, not a tensor: convert it")
        if tensor.layout != th.strided or tensor.is_quantized or tensor.is_complex():
            raise NotEncodable(f"{name} has type {tensor.dtype}, {tensor.layout}: convert it to numbers, dense")
        dense[name] = tensor.detach().cpu().contiguous()
        storage = dense[name].untyped_storage().data_ptr()
        if storage in storages:  # the library refuses tensors that share memory
            dense[name] = dense[name].clone()
        storages.add(storage)
    return safetensors.torch.save(dense, {"format": "pt"})


def tensors_from_bytes(raw: bytes, what: str) -> dict[str, th.Tensor]:
    """
    Read tensors of unknown origin.

    :param what: name for the message
    :raises ModelFileError: when the bytes are not exactly one safetensors file
    """
    read_header(io.BytesIO(raw), what)
    try:
        tensors = safetensors.torch.load(raw)
    except Exception as error:  # the bytes come from a file: whatever the library makes of them is the file's fault
        raise not_safetensors(error, what) from error
    for name, tensor in tensors.items():
        if tensor.dtype == th.bool and tensor.numel() and tensor.view(th.uint8).max() > 1:
            raise ModelFileError(f"'{one_line(name)}' in {what} is not boolean: {FROM_SOURCE}")
    return tensors


def check_name(name: object) -> None:
    """
    Refuse what the format has no place for.

    :raises NotEncodable: for ``__metadata__``, or a name that is not a string
    """
    if type(name) is not str or name == "__metadata__":
        raise NotEncodable(f"{name!r} is not a name for a tensor: use a string other than '__metadata__'")


def read_header(handle: IO[bytes], what: str) -> dict[str, Any]:
    """
    Parse the header of a safetensors file within the limits of JSON of unknown origin; the library checks its entries.

    :raises ModelFileError: when there is none
    """
    start = handle.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    text = handle.read(length) if length <= MAX_JSON_BYTES else b""
    if not text or len(text) < length:
        raise ModelFileError(f"{what} is truncated or not a safetensors file: {FROM_SOURCE}")
    header = loads(text, f"the header of {what}")
    if not isinstance(header, dict):
        raise ModelFileError(f"the header of {what} is not a safetensors header: {FROM_SOURCE}")
    return header


def not_safetensors(error: Exception, what: str) -> ModelFileError:
    """The refusal of a file that the library does not read."""
    return ModelFileError(f"{what} is damaged or not a safetensors file ({one_line(error)}): {FROM_SOURCE}")


def is_pickle(start: bytes) -> bool:
    """Whether bytes begin as a pickle of protocol 2 or later; a safetensors file of 640-byte header does not count."""
    marked = len(start) >= 2 and start[0] == 0x80 and 2 <= start[1] <= 8
    return marked and not (len(start) > 8 and start[4:8] == b"\0\0\0\0" and start[8:9] == b"{")
