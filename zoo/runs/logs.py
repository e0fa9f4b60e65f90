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
        each.write = _survive_full_disk(each.write)
    return logger.Logger(str(folder), formats)


def _survive_full_disk(write: Callable[..., None]) -> Callable[..., None]:
    """Turn errors of the file system into warnings: a full disk must not end a training."""

    def write_or_warn(*args: Any, **kwargs: Any) -> None:
        try:
            write(*args, **kwargs)
        except OSError as error:
            warnings.warn(f"the log was not written: {error}; training continues", stacklevel=2)

    return write_or_warn
