"""Files of arrays, such as a replay buffer: one safetensors file, written from memory without a copy."""

import json
import os
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sb3_dreamer.common.files.atomic import PathOrFile, atomic_path, atomic_write, open_to_read
from sb3_dreamer.common.files.json_codec import decode, encode
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable, dumps, loads, one_line
from sb3_dreamer.common.files.tensors import FROM_SOURCE, check_name, is_pickle, not_safetensors, read_header

FORMAT = "sb3-dreamer arrays"
#: format version of files of arrays; 1 had no checksums, and all environments of a replay in one array
ARRAYS_VERSION = 2


def write_arrays(path: PathOrFile, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    """
    Write arrays of any size and their metadata to one safetensors file, atomically.

    :param path: file name, used as it is (SB3's CheckpointCallback gives names that end in ``.pkl``), or a binary file
    :param arrays: numpy arrays or memory maps of numbers or booleans. C-contiguous ones are written where they are,
        others are copied first; for a file object the whole is copied
    :param metadata: what ``encode`` takes
    :raises NotEncodable: naming the array or entry, before anything is written
    :raises OSError: if the file cannot be written; the one before stays
    """
    dense = {name: _dense(name, array) for name, array in arrays.items()}
    text = dumps({name: encode(value, name) for name, value in metadata.items()}, "the metadata").decode("ascii")
    about = {"format": FORMAT, "version": str(ARRAYS_VERSION), "metadata": text, "checksums": _checksums(dense, text)}
    if not isinstance(path, str | os.PathLike):
        with atomic_write(path) as handle:
            handle.write(safetensors.numpy.save(dense, about))
        return
    with atomic_path(path) as part:
        try:
            safetensors.numpy.save_file(dense, part, about)
        except SafetensorError as error:  # the arrays fit the format: it is the disk
            raise OSError(f"'{path}' cannot be written ({one_line(error)})") from error


def _checksums(arrays: Mapping[str, np.ndarray], text: str) -> str:
    """CRC-32 of the metadata, and of type, shape and bytes of every array, as JSON."""
    sums = {"__metadata__": zlib.crc32(text.encode())}
    for name, array in arrays.items():
        start = zlib.crc32(f"{array.dtype.str} {array.shape}".encode())
        sums[name] = zlib.crc32(array.reshape(-1).view(np.uint8).data, start)
    return json.dumps(sums, sort_keys=True)


def _dense(name: str, array: np.ndarray) -> np.ndarray:
    check_name(name)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise NotEncodable(f"{name} is no array of numbers or booleans of at most 64 bits: convert it")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def read_arrays(path: PathOrFile) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """
    Read what ``write_arrays`` wrote.

    :param path: file name, or a binary file from its present position to its end
    :return: arrays by name, and the metadata
    :raises FileNotFoundError: when there is no such file
    :raises ModelFileError: when the file is damaged, hostile, a pickle, or not a file of arrays
    """
    with open_to_read(path) as (handle, what):
        about, metadata = _read_metadata(handle, what)
        try:
            arrays = _read_tensors(path, handle)
        except Exception as error:  # whatever the library makes of a file is the file's fault
            raise not_safetensors(error, what) from error
    if about["version"] != "1" and about.get("checksums") != _checksums(arrays, about["metadata"]):
        raise ModelFileError(f"{what} is damaged: its checksums do not fit: {FROM_SOURCE}")
    for name, array in arrays.items():
        if array.dtype == bool and array.size and array.view(np.uint8).max() > 1:
            raise ModelFileError(f"'{one_line(name)}' in {what} is not boolean: {FROM_SOURCE}")
    return arrays, {name: decode(value, f"'{one_line(name)}' in {what}") for name, value in metadata.items()}


def _read_metadata(handle: IO[bytes], what: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The text entries of the header, and the metadata among them parsed; the file object stays where it is."""
    start = handle.tell()
    first = handle.read(9)
    if is_pickle(first):
        raise ModelFileError(
            f"{what} contains pickled data, which can run code on load; it was not loaded. "
            "If you wrote it yourself with Stable-Baselines3, pass trust_pickle=True to load_replay_buffer()"
        )
    if first.startswith(b"PK"):
        raise ModelFileError(f"{what} is a zip file, not a replay buffer: to load a model use load()")
    handle.seek(start)
    about = read_header(handle, what).get("__metadata__")
    handle.seek(start)
    if not isinstance(about, dict) or about.get("format") != FORMAT or not isinstance(about.get("metadata"), str):
        raise ModelFileError(f"{what} was not written by sb3-dreamer as a replay buffer: {FROM_SOURCE}")
    if about.get("version") not in [str(version) for version in range(1, ARRAYS_VERSION + 1)]:
        shown = one_line(about.get("version"))
        raise ModelFileError(f"{what} has format version {shown}, not {ARRAYS_VERSION}: pip install -U sb3-dreamer")
    raw = loads(about["metadata"].encode("utf-8", "replace"), f"the metadata of {what}")
    if not isinstance(raw, dict):
        raise ModelFileError(f"the metadata of {what} is not a table: {FROM_SOURCE}")
    return about, raw


def _read_tensors(path: PathOrFile, handle: IO[bytes]) -> dict[str, np.ndarray]:
    if not isinstance(path, str | os.PathLike):
        return safetensors.numpy.load(handle.read())
    with safe_open(path, "np", backend="pread") as file:  # mmap would hold the pages of the file beside the arrays
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def is_pickle_file(path: PathOrFile) -> bool:
    """Whether a file begins as a pickle; a file object stays where it is."""
    with open_to_read(path) as (handle, _):
        start = handle.tell()
        first = handle.read(9)
        handle.seek(start)
        return is_pickle(first)
