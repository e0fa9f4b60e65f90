"""Where the rows of a replay buffer are kept: in memory, or in files of a folder that survive a crash."""

import errno
import json
import math
import mmap
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.common.files.json_text import ModelFileError, loads, one_line

Layout = dict[str, tuple[tuple[int, ...], np.dtype]]  #: shape of one row and dtype, by name
Arrays = dict[str, np.ndarray]  #: ``(n_envs, rows, *shape)`` by name
JOURNAL = "journal.json"
JOURNAL_VERSION = 2  #: 1 had no checksum
MAX_JOURNAL = 4 * 2**20
RESERVED = 1024  #: rows for which disk space is taken at a time


def lazy_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros whose memory the operating system takes page by page, when it is first written.

    ``np.zeros`` does so too, but Linux refuses it as soon as the whole is more than the machine has, even for a run
    that fills a thousandth of it. Whether a run fits is judged by :func:`sb3_dreamer.common.report.check_memory`.
    """
    count = math.prod(shape)
    if sys.platform != "linux" or count == 0:
        return np.zeros(shape, dtype)
    no_reserve = 0x4000  # MAP_NORESERVE; the mmap module names it from Python 3.13 on
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    return np.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=flags), dtype, count).reshape(shape)


class MemoryRows:
    """Rows in memory."""

    def create(self, layout: Layout, n_envs: int, rows: int) -> Arrays:
        """Arrays of zeros.

        :raises MemoryError: if the address space is too small
        """
        try:
            return {name: lazy_zeros((n_envs, rows, *shape), dtype) for name, (shape, dtype) in layout.items()}
        except (OSError, OverflowError, ValueError, MemoryError) as error:
            size = n_envs * rows * sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())
            raise MemoryError(
                f"replay of {n_envs} x {rows:,} rows takes {size / 2**30:,.0f} GiB of address space, more than the "
                "system provides: lower buffer_size"
            ) from error


class DiskRows:
    """Rows in memory-mapped files of a folder, one file for each array, and a journal that says which rows count.

    The journal is replaced atomically, after the rows it speaks of have reached the disk. Rows that were written after
    it are not read again, so a process may die at any moment.

    :param folder: made if it does not exist
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.arrays: Arrays = {}

    @property
    def occupied(self) -> bool:
        """Whether an earlier run left rows here."""
        return (self.folder / JOURNAL).exists()

    def create(self, layout: Layout, n_envs: int, rows: int) -> Arrays:
        """Make the files. Disk space is taken as rows are written.

        :raises FileExistsError: if the folder holds a replay already
        """
        if self.occupied:
            raise FileExistsError(
                f"replay_dir='{self.folder}' holds the replay of an earlier run: resume it through "
                "load_checkpoint() or load_replay_buffer(replay_dir), or name another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for index, (shape, dtype) in enumerate(layout.values()):
            with open(self._file(index), "wb") as handle:
                handle.truncate(n_envs * rows * math.prod(shape) * dtype.itemsize)
        return self._map(layout, n_envs, rows)

    def open(self, layout: Layout, n_envs: int, rows: int) -> Arrays:
        """Map files that are there.

        :raises ModelFileError: if they are not what a buffer of this layout wrote
        """
        found = self.read_journal()
        if found["layout"] != describe(layout) or (found["n_envs"], found["ring"]) != (n_envs, rows):
            raise ModelFileError(
                f"'{self.folder}' is a replay of {found['n_envs']} environments with {found['ring']} rows each and "
                f"of {one_line(found['layout'])}; this model has {n_envs} with {rows} and "
                f"{one_line(describe(layout))}: load the model with the number of environments, buffer_size and "
                "spare_rows that it was written with"
            )
        for index, (shape, dtype) in enumerate(layout.values()):
            size = n_envs * rows * math.prod(shape) * dtype.itemsize
            path = self._file(index)
            if not path.is_file() or path.stat().st_size != size:
                raise ModelFileError(f"'{path}' is missing or has not {size} bytes: the replay folder is damaged")
        return self._map(layout, n_envs, rows)

    def _map(self, layout: Layout, n_envs: int, rows: int) -> Arrays:
        self.arrays = {
            name: np.memmap(self._file(index), dtype, "r+", shape=(n_envs, rows, *shape))
            for index, (name, (shape, dtype)) in enumerate(layout.items())
        }
        return self.arrays

    def reserve(self, env: int, row: int, count: int = 1) -> None:
        """Take disk space for rows, in steps of 1,024: writing to a mapped file on a full disk kills the process.

        :raises OSError: if there is none left
        """
        if not hasattr(os, "posix_fallocate"):
            return
        first, last = row // RESERVED * RESERVED, row + count
        for index, array in enumerate(self.arrays.values()):
            rows, size = array.shape[1], array.itemsize * math.prod(array.shape[2:])
            stop = min(rows, -(-last // RESERVED) * RESERVED)
            try:
                with open(self._file(index), "rb+") as handle:
                    os.posix_fallocate(handle.fileno(), (env * rows + first) * size, (stop - first) * size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):  # others: the file system does not know it
                    raise OSError(
                        f"the disk of replay_dir='{self.folder}' has no space left for further rows: free some, and "
                        "resume from the last checkpoint"
                    ) from error

    def _file(self, index: int) -> Path:
        return self.folder / f"rows_{index:02d}.bin"

    def flush(self, layout: Layout, state: dict[str, Any]) -> None:
        """Bring all rows to the disk, then the journal.

        :param state: cursors, as JSON
        """
        for array in self.arrays.values():
            assert isinstance(array, np.memmap)
            array.flush()
        with atomic_write(self.folder / JOURNAL) as handle:
            journal = {"version": JOURNAL_VERSION, "layout": describe(layout), **state}
            handle.write(json.dumps(journal | {"checksum": _checksum(journal)}).encode())

    def read_journal(self) -> dict[str, Any]:
        """What :meth:`flush` wrote last.

        :raises ModelFileError: if there is none, or it is damaged
        """
        path = self.folder / JOURNAL
        if not path.is_file():
            raise ModelFileError(f"'{self.folder}' holds no replay: there is no {JOURNAL} in it")
        if path.stat().st_size > MAX_JOURNAL:
            raise ModelFileError(f"'{path}' is too large for a journal: it is not one of ours")
        found = loads(path.read_bytes(), f"'{path}'")
        lists = ("cursor", "filled", "written", "starts_episode", "limit")
        numbers = ("n_envs", "ring", "rows")
        if (
            not isinstance(found, dict)
            or found.get("version") not in range(1, JOURNAL_VERSION + 1)
            or (found["version"] > 1 and found.pop("checksum", None) != _checksum(found))
            or not isinstance(found.get("random"), dict)
            or any(type(found.get(name)) is not int for name in numbers)
            or any(not isinstance(found.get(name), list) or len(found[name]) != found["n_envs"] for name in lists)
            or any(type(value) not in (int, bool) or abs(value) >= 2**62 for name in lists for value in found[name])
        ):
            raise ModelFileError(f"'{path}' is not a journal of this release: the replay folder is damaged or newer")
        return found


def _checksum(journal: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(journal, sort_keys=True).encode())


def describe(layout: Layout) -> dict[str, list[Any]]:
    """A layout as JSON."""
    return {name: [dtype.str, list(shape)] for name, (shape, dtype) in layout.items()}
