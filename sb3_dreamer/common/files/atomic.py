"""Files that are whole or not there: atomic writes, and opening what a user named."""

import contextlib
import io
import os
import pathlib
import re
import stat
from collections.abc import Iterator
from typing import IO, Any

from sb3_dreamer.common.files.json_text import ModelFileError, one_line

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
PathOrFile = str | os.PathLike[str] | IO[bytes]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """
    Name a temporary file that replaces ``path`` only when the block ends without an exception.

    The temporary file lies in the same folder; it is synced to disk and then renamed. On any exception, a full disk
    included, the previous file stays as it was and the temporary file is removed. A link is followed, not replaced.

    :param path: file name; parent folders are made
    :raises IsADirectoryError: when the path is a folder
    """
    target = pathlib.Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise IsADirectoryError(f"{path} is a folder or a device: give the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:200]}.{os.urandom(6).hex()}.tmp")
    try:
        part.touch(exist_ok=False)
        mode = (target if target.exists() else part).stat().st_mode
        yield part
        with open(part, "rb+") as handle:
            os.fsync(handle.fileno())
        os.chmod(part, stat.S_IMODE(mode))
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def atomic_write(path: PathOrFile) -> Iterator[IO[bytes]]:
    """
    Open a file that replaces ``path`` only when the block ends without an exception; see :func:`atomic_path`.

    :param path: file name, or an open binary file, which is written as it is
    :raises IsADirectoryError: when the path is a folder
    """
    if isinstance(path, str | os.PathLike):
        with atomic_path(path) as part, open(part, "wb") as handle:
            yield handle
        return
    _check_stream(path, "writable")
    yield path
    path.flush()


def remove_left_overs(folder: pathlib.Path) -> None:
    """Remove the temporary files of processes that died while they wrote to a folder, where nobody else writes now."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()


def sync_folder(folder: pathlib.Path) -> None:
    """Bring the names in a folder to the disk, where the system can do that."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder; the new file is in place
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def open_to_read(path: PathOrFile, suffix: str = "") -> Iterator[tuple[IO[bytes], str]]:
    """Give the open file, at its start for a path, and the name to use in messages."""
    if not isinstance(path, str | os.PathLike):
        _check_stream(path, "readable")
        yield path, one_line(getattr(path, "name", "the file object"))
        return
    plain = pathlib.Path(path)
    tried = [plain, plain.with_name(plain.name + suffix)] if suffix and plain.name else [plain]
    for candidate in tried:
        if candidate.is_file():
            with open(candidate, "rb") as handle:
                yield handle, " ".join(str(candidate).splitlines())
            return
    names = " nor ".join(f"'{name}'" for name in tried)
    if plain.is_dir():
        raise ModelFileError(f"'{plain}' is a folder: give the name of a file in it")
    raise FileNotFoundError(f"there is no file {names}: check the path (the current folder is {pathlib.Path.cwd()})")


def _check_stream(stream: Any, ability: str) -> None:
    if isinstance(stream, io.TextIOBase) or not hasattr(stream, ability):
        raise TypeError(f"expected a path or a binary file, got {type(stream).__name__}: open the file in binary mode")
    if stream.closed or not getattr(stream, ability)() or not stream.seekable():
        raise ValueError(f"the file object must be open, {ability} and seekable")
