"""Files of arrays, such as a replay buffer: one safetensors file, written and read in chunks."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_dreamer.common.files.atomic import PathOrFile, atomic_write, open_to_read
from sb3_dreamer.common.files.json_codec import decode, encode
from sb3_dreamer.common.files.json_text import ModelFileError, dumps, loads, one_line
from sb3_dreamer.common.files.tensors import (
    DTYPES,
    FROM_SOURCE,
    is_pickle,
    layout_of,
    read_header,
    read_into,
    write_safetensors,
)

ARRAYS_VERSION = 1  #: format version of files of arrays


def write_arrays(path: PathOrFile, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    """
    Write arrays of any size and their metadata to one safetensors file, atomically and in chunks of 4 MiB.

    :param path: file name, used as it is (SB3's CheckpointCallback gives names that end in ``.pkl``), or a binary file
    :param arrays: numpy arrays or memory maps of numbers or booleans, in any memory layout
    :param metadata: what ``encode`` takes; at most 16 MiB of JSON
    :raises NotEncodable: naming the array or entry, before anything is written
    """
    encoded = {name: encode(value, name) for name, value in metadata.items()}
    text = dumps(encoded, "the metadata").decode("ascii")
    layout = layout_of(arrays, {"format": "sb3-dreamer arrays", "version": str(ARRAYS_VERSION), "metadata": text})
    with atomic_write(path) as handle:
        write_safetensors(handle, arrays, layout)


def read_arrays(path: PathOrFile, mmap: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """
    Read what ``write_arrays`` wrote, in chunks.

    :param path: file name, or a binary file from its present position to its end
    :param mmap: leave the arrays on disk: read-only memory maps (paths only)
    :return: arrays by name, and the metadata
    :raises FileNotFoundError: when there is no such file
    :raises ModelFileError: when the file is damaged, hostile, a pickle, or not a file of arrays
    """
    if mmap and not isinstance(path, str | os.PathLike):
        raise ValueError("mmap=True needs a path, not a file object")
    with open_to_read(path) as (handle, what):
        start = handle.tell()
        size = handle.seek(0, os.SEEK_END) - start
        handle.seek(start)
        first = handle.read(9)
        handle.seek(start)
        if is_pickle(first):
            raise ModelFileError(
                f"{what} contains pickled data, which can run code on load; it was not loaded. "
                "Save the replay buffer again with sb3-dreamer; buffers that Stable-Baselines3 saved cannot be read"
            )
        if first.startswith(b"PK"):
            raise ModelFileError(f"{what} is a zip file, not a replay buffer: to load a model use load()")
        header = read_header(handle, size, what)
        about = header.metadata
        if about.get("format") != "sb3-dreamer arrays" or "metadata" not in about:
            raise ModelFileError(f"{what} was not written by sb3-dreamer as a replay buffer: {FROM_SOURCE}")
        if about.get("version") != str(ARRAYS_VERSION):
            shown = one_line(about.get("version"))
            raise ModelFileError(f"{what} has format version {shown}, not {ARRAYS_VERSION}: pip install -U sb3-dreamer")
        raw = loads(about["metadata"].encode("utf-8", "replace"), f"the metadata of {what}")
        if not isinstance(raw, dict):
            raise ModelFileError(f"the metadata of {what} is not a table: {FROM_SOURCE}")
        arrays: dict[str, np.ndarray] = {}
        for entry in header.entries:
            code = DTYPES[entry.dtype][0]
            if code is None:
                raise ModelFileError(f"'{one_line(entry.name)}' in {what} is {entry.dtype}, which numpy lacks")
            if mmap and entry.end > entry.begin:
                position = start + header.data_start + entry.begin
                arrays[entry.name] = np.memmap(handle, np.dtype(code), "r", position, entry.shape)
            else:
                arrays[entry.name] = np.empty(entry.shape, code)
                read_into(handle, arrays[entry.name].reshape(-1).view(np.uint8), entry, what)
    arrays = {name: arrays[name] for name in header.names}
    return arrays, {name: decode(value, f"'{one_line(name)}' in {what}") for name, value in raw.items()}


def is_pickle_file(path: PathOrFile) -> bool:
    """Whether a file begins as a pickle; a file object stays where it is."""
    with open_to_read(path) as (handle, _):
        start = handle.tell()
        first = handle.read(9)
        handle.seek(start)
        return is_pickle(first)
