"""One picture over many tasks: normalised scores, mean and interquartile mean with bootstrap intervals."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_dreamer.zoo.programs.errors import UsageError
from sb3_dreamer.zoo.runs import run_folder, scores
from sb3_dreamer.zoo.runs.run_folder import RunFolder


def normalize(env: str, values: np.ndarray) -> np.ndarray | None:
    """Scores on the scale of their suite: gamer-normalised on Atari, a thousandth on control; None elsewhere."""
    suite, _, task = env.partition(":")
    if suite.startswith("atari"):
        reference = scores.atari_references()[scores.canonical_game(task)]
        return np.asarray((values - reference.random) / (reference.gamer - reference.random))
    return values / 1000 if suite in ("dmc_vision", "dmc_proprio", "planet") else None


def score_matrix(by_task: Mapping[str, list[RunFolder]], args: Namespace) -> tuple[np.ndarray, list[str]]:
    """Normalised final scores ``(runs, tasks)``, over as many runs as every task has, and the tasks.

    The final score of a run is the end of its curve.

    :raises UsageError: if no task can be normalised, or one has no curve
    """
    from sb3_dreamer.zoo.programs.plot import run_curves

    columns: dict[str, np.ndarray] = {}
    for name, runs in by_task.items():
        env = str(run_folder.read_config(runs[0]).get("env", name))
        finals = np.array([curve.y[-1] for curve in run_curves(runs, args)])
        normalized = normalize(env, finals) if len(finals) else None
        if normalized is not None:
            columns[env] = normalized
    if not columns:
        raise UsageError("--aggregate: scores are normalised for Atari and control tasks only, and there is none here")
    count = min(len(column) for column in columns.values())
    return np.stack([column[:count] for column in columns.values()], axis=1), list(columns)


def draw_aggregate(runs: Any, args: Namespace) -> Any:
    """Mean and interquartile mean per algorithm, with intervals from resampled runs where there are two or more."""
    import matplotlib.pyplot as plt

    algorithms = list(dict.fromkeys(algo for by_algo in runs.values() for algo in by_algo))
    figure, axes = plt.subplots(1, 2, figsize=(9, 1.4 + 0.5 * len(algorithms)), sharey=True)
    for row, algo in enumerate(algorithms):
        by_task = {name: by_algo[algo] for name, by_algo in runs.items() if algo in by_algo}
        matrix, tasks = score_matrix(by_task, args)
        label = f"{algo}\n{len(tasks)} tasks, {len(matrix)} runs"
        axes[0].barh(label, matrix.mean(), color=f"C{row}", alpha=0.6)
        axes[1].barh(label, scores.iqm(matrix), color=f"C{row}", alpha=0.6)
        print(f"{algo}: {len(tasks)} tasks, {len(matrix)} runs, mean {matrix.mean():.3f}, IQM {scores.iqm(matrix):.3f}")
        if len(matrix) > 1:
            interval = scores.iqm_interval(matrix)
            axes[1].plot([interval.low, interval.high], [label, label], color="black")
            print(f"{algo}: IQM 95 % interval [{interval.low:.3f}, {interval.high:.3f}] ({interval.method})")
    axes[0].set_title("mean of normalised scores")
    axes[1].set_title("interquartile mean" + (", 95 % interval" if len(matrix) > 1 else ""))
    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
    return figure
