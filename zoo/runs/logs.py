"""Log training to CSV, TensorBoard and a tracking tool, and to tables on the screen if asked for."""

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class _Screen:
    """Write to the current ``sys.stdout``, which a progress bar replaces while it is drawn."""

    def write(self, text: str) -> None:
        """Write to it."""
        sys.stdout.write(text)

    def flush(self) -> None:
        """Flush it."""
        sys.stdout.flush()


def make_logger(folder: Path, tensorboard: Path, tables: bool, tracked: Iterable[Any] = ()) -> Any:
    """Make a logger for ``model.set_logger``.

    :param folder: where ``progress.csv`` goes
    :param tensorboard: where TensorBoard's events go
    :param tables: also print tables
    :param tracked: outputs of a tracking tool
    """
    from stable_baselines3.common import logger

    formats: list[Any] = [logger.CSVOutputFormat(str(folder / "progress.csv")), *tracked]
    if logger.SummaryWriter is not None:
        formats.append(logger.TensorBoardOutputFormat(str(tensorboard)))
    if tables:
        formats.append(logger.HumanOutputFormat(_Screen()))  # type: ignore[arg-type]
    for each in formats:
        each.write, each.close = _survive_full_disk(each, each.write), _survive_full_disk(each, each.close)
    return logger.Logger(str(folder), formats)


def shared_tensorboard(folder: Path, run: Path) -> Path:
    """Name a run's folder in a TensorBoard folder of several log folders, whose runs have the same names.

    :param folder: TensorBoard's: ``tb``
    :param run: of the run: ``logs/CartPole-v1-seed0/dreamerv3/CartPole-v1_1``
    :return: ``tb/logs/CartPole-v1-seed0/dreamerv3/CartPole-v1_1``; folders above both are left out
    """
    place, board = run.resolve(), folder.resolve()
    above = next((path for path in (board, *board.parents) if place.is_relative_to(path)), place.anchor)
    return folder / place.relative_to(above)


def _survive_full_disk(output: Any, write: Callable[..., None]) -> Callable[..., None]:
    """Turn errors of the file system into warnings: a full disk must not end a training."""

    def write_or_warn(*args: Any, **kwargs: Any) -> None:
        try:
            write(*args, **kwargs)
        except OSError as error:
            warnings.warn(f"the log was not written: {error}; training continues", stacklevel=2)
            writer: Any = getattr(output, "writer", None)
            if hasattr(writer, "file_writer"):  # TensorBoard's thread has ended: the next row begins a new file
                writer.file_writer = writer.all_writers = None

    return write_or_warn
