"""Folders of a run: checkpoints appear whole, by one rename, the oldest ones go, and one process at a time writes."""

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sb3_dreamer.common import distributed
from sb3_dreamer.common.files.atomic import sync_folder
from sb3_dreamer.common.files.json_text import ModelFileError

_NAME = re.compile(r"checkpoint_(\d{6,})_step_(\d+)")
_LEFT_OVER = re.compile(r"\.checkpoint_\d{6,}_step_\d+\.[0-9a-f]{12}\.tmp")

LOCK = ".lock"  #: file in a run's folder; that it is there says nothing, only the operating system's lock on it counts


class FolderInUseError(RuntimeError):
    """Another process writes to the folder of a run."""


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep others from writing to the folder of a run until the block ends, or this process dies in any way.

    Of several ranks only the first one locks. Where files cannot be locked, that is a warning.

    :param folder: made if it does not exist
    :raises FolderInUseError: if somebody else has the folder
    """
    if not distributed.is_rank_zero():
        yield
        return
    lock = FileLock(Path(folder) / LOCK, timeout=0)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderInUseError(
            f"another run is writing to '{folder}': wait until it ends, or stop it (what it has written stays, and can "
            "be resumed), or use another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        warnings.warn(f"'{folder}' cannot be locked ({error}): let no other process write to it", stacklevel=3)
    try:
        yield
    finally:
        lock.release()


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    root = Path(folder)
    found = root.iterdir() if root.is_dir() else iter(())
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path names: itself, or the newest one of a run.

    :raises FileNotFoundError: if there is none
    """
    given = Path(path)
    if _NAME.fullmatch(given.name) and given.is_dir():
        return given
    found = checkpoints(given)
    if not found:
        raise FileNotFoundError(f"there is no checkpoint in '{given}': name the folder of the run")
    return found[-1]


@contextlib.contextmanager
def new_checkpoint(folder: str | os.PathLike[str], step: int, keep: int) -> Iterator[tuple[Path, Path]]:
    """A folder to write to, which becomes the newest checkpoint when the block ends without an exception.

    What is written goes to a hidden folder first, which is synced and then renamed; only then older checkpoints are
    removed. A process that dies leaves at most a hidden folder, which the next checkpoint removes.

    :param folder: of the run's checkpoints
    :param step: agent steps, for the name
    :param keep: how many checkpoints stay, this one included
    :return: the folder to write to, and what it will be called
    """
    if keep < 1:
        raise ValueError(f"keep={keep} must be at least 1")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for left in root.iterdir():
        if _LEFT_OVER.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)
    number = max((_number(path) for path in checkpoints(root)), default=0) + 1
    final = root / f"checkpoint_{number:06d}_step_{step}"
    part = _hidden(final)
    try:
        part.mkdir()
        yield part, final
        sync_folder(part)
        os.rename(part, final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(root)
    for old in checkpoints(root)[:-keep]:
        gone = _hidden(old)
        with contextlib.suppress(OSError):
            os.rename(old, gone)  # whole or not there, while it is being removed, too
            shutil.rmtree(gone, ignore_errors=True)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")


def damaged(path: Path, error: Exception) -> ModelFileError:
    """The error for a checkpoint that cannot be read, naming the one before it."""
    before = [other for other in checkpoints(path.parent) if _number(other) < _number(path)]
    older = f"the checkpoint before it is '{before[-1]}'" if before else "there is no older checkpoint"
    return ModelFileError(f"{error}; {older}")


@contextlib.contextmanager
def shared_checkpoint(folder: str | os.PathLike[str], step: int, keep: int) -> Iterator[tuple[Path, Path]]:
    """Write a checkpoint with all ranks together: whole on all of them, or not there; see :func:`new_checkpoint`.

    :return: the folder that this rank writes to, and what the checkpoint will be called
    :raises OSError: on all ranks, if one of them cannot write
    """
    if distributed.world_size() == 1:
        with new_checkpoint(folder, step, keep) as found:
            yield found
        return
    stack, place, problem = contextlib.ExitStack(), None, None
    with stack:
        try:
            place = stack.enter_context(new_checkpoint(folder, step, keep)) if distributed.is_rank_zero() else None
        except OSError as error:
            problem = str(error)
        place = _agree_on(place, problem, first=True)
        try:
            if not place[0].is_dir():
                raise FileNotFoundError(f"'{folder}' is not on storage that all machines share")
            own = distributed.rank_folder(place[0])
            own.mkdir(exist_ok=True)
            yield own, place[1]
            sync_folder(own)
        except OSError as error:
            problem = str(error)
        _agree_on(place, problem)
        try:
            stack.close()  # Rank 0 renames the folder; the others wait for it.
        except OSError as error:
            problem = str(error)
        _agree_on(place, problem, first=True)


def _agree_on(place: Any, problem: str | None, first: bool = False) -> Any:
    """Raise on all ranks what went wrong on any of them; else give what rank 0 has."""
    if first:
        place, problem = distributed.broadcast_object((place, problem))
    problems = [problem] if first else distributed.all_gather_object(problem)
    for index, text in enumerate(problems):
        if text is not None:
            raise OSError(f"rank {index}: {text}")
    return place
