"""Learning curves of run folders, and published ones."""

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.runs.run_folder import RunFolder

PUBLISHED = Path(__file__).parents[1] / "data" / "published_curves.json"
X_AXES = {"steps": "agent steps", "frames": "environment frames", "time": "hours of training"}


@dataclass(frozen=True)
class Curve:
    """Points of one run.

    :param x: steps, frames or hours, rising
    :param y: returns or lengths
    :param seed: the run's seed
    """

    x: np.ndarray
    y: np.ndarray
    seed: int | None


def training_curve(run: RunFolder, x_axis: str, y_axis: str, window: int) -> Curve | None:
    """Read the training episodes of a run, averaged over a moving window; None before the first one.

    :param x_axis: ``steps``, ``frames`` or ``time``
    :param y_axis: ``reward`` or ``length``
    :param window: episodes of the average
    :raises UsageError: if the file is damaged
    """
    rows = training_episodes(run)
    if not rows:
        return None
    config = run_folder.read_config(run)
    if x_axis == "time":
        x = np.array([row["t"] for row in rows]) / 3600
    elif "timesteps" in rows[0]:
        x = np.array([row["timesteps" if x_axis == "steps" else "frames"] for row in rows])
    else:  # rl_zoo3's monitors have lengths only
        frames = environments.frames_per_step(None, config.get("env_wrapper")) if x_axis == "frames" else 1
        x = np.cumsum([row["l"] for row in rows]) * frames
    y = np.array([row["r" if y_axis == "reward" else "l"] for row in rows])
    return Curve(x, moving_average(y, window), config.get("seed"))


def training_episodes(run: RunFolder) -> list[dict[str, float]]:
    """Read the rows of all monitor files of a run, in the order in which the episodes ended.

    :raises UsageError: if a file is damaged
    """
    rows: list[dict[str, float]] = []
    paths = sorted(run.path.glob("*.monitor.csv"))
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[1:]
            found = [row for row in csv.DictReader(lines) if all(row.values())]  # A line may be cut off.
            rows += [{name: float(value) for name, value in row.items()} for row in found]
        except (TypeError, ValueError, OSError, csv.Error) as error:
            raise UsageError(f"{path} is not a log of training episodes: {error}") from error
        if found and not {"r", "l", "t"} <= set(found[0]):
            raise UsageError(f"{path} is not a log of training episodes: it has no columns r, l, t")
    return sorted(rows, key=lambda row: row["t"]) if len(paths) > 1 else rows


def evaluation_curve(run: RunFolder, x_axis: str, y_axis: str) -> Curve | None:
    """Read the mean of each evaluation of a run; None before the first one.

    :param x_axis: ``steps`` or ``frames``; evaluations do not record the time
    :param y_axis: ``reward`` or ``length``
    :raises UsageError: if the file is damaged
    """
    path = run.path / "evaluations.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["timesteps"].astype(float), file["results" if y_axis == "reward" else "ep_lengths"].mean(1)
        if x.shape != y.shape:
            raise ValueError(f"it has {x.shape} steps and {y.shape} means")
    except Exception as error:  # numpy and zipfile raise a dozen kinds
        raise UsageError(f"{path} is not a file of evaluations: {one_line(error)}") from error
    config = run_folder.read_config(run)
    if x_axis == "frames":
        x = x * environments.frames_per_step(config.get("suite_preset"), config.get("env_wrapper"))
    return Curve(x, y, config.get("seed"))


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Average the last ``window`` values at each place; all so far at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    return (sums[stop] - sums[start]) / (stop - start)


def on_grid(curves: list[Curve], points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Put curves on one grid, from where all have begun; one that has ended keeps its last value.

    So every mean is over all curves: it does not jump where a run ends.

    :return: places ``(points,)`` and values ``(curves, points)``
    """
    grid = np.linspace(max(curve.x[0] for curve in curves), max(curve.x[-1] for curve in curves), points)
    return grid, np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])


@cache
def _published() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))["curves"]
    return content


def published_curve(algo: str, env: str) -> dict[str, Any] | None:
    """Return the published curve of a task: ``frames``, ``mean``, ``low``, ``high``, ``seeds``; None if there is none.

    :param algo: algorithm name
    :param env: environment with its suite, ``dmc_vision:walker_walk``
    """
    suite, _, task = env.partition(":")
    curve: dict[str, Any] | None = _published().get(algo, {}).get(suite, {}).get(task)
    return curve
