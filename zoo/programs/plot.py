"""The program ``plot``: plot learning curves of runs, with published ones behind."""

import contextlib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, check_algorithm
from sb3_dreamer.zoo.config.arguments import OneLineParser, check_output, folder, positive, positive_number
from sb3_dreamer.zoo.config.errors import UsageError, plural
from sb3_dreamer.zoo.runs import curves, run_folder, scores
from sb3_dreamer.zoo.runs.run_folder import RunFolder

POINTS = {"train": "finished episode", "eval": "evaluation"}
FORMATS = (".png", ".svg", ".pdf")
Runs = dict[str, dict[str, list[RunFolder]]]  # run name -> algorithm -> runs


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer plot",
        description="Plot learning curves: one panel per environment, one line per algorithm, seeds as a band.",
    )
    parser.add_argument("-a", "--algo", nargs="+", metavar="ALGO", help="algorithms (default: all that have runs)")
    parser.add_argument("-e", "--env", nargs="+", metavar="ENV", help="environments (default: all that have runs)")
    parser.add_argument(
        "-f", "--exp-folder", type=folder, default="logs", metavar="DIR", help="where the run folders are"
    )
    parser.add_argument("-x", "--x-axis", choices=list(curves.X_AXES), default="steps", help="x-axis")
    parser.add_argument("-y", "--y-axis", choices=["reward", "length"], default="reward", help="y-axis")
    parser.add_argument(
        "-w", "--episode-window", type=positive, default=20, metavar="N", help="training episodes per average"
    )
    parser.add_argument("-max", "--max-x", type=positive_number, metavar="X", help="end of the x-axis")
    parser.add_argument(
        "--source", choices=["train", "eval"], default="train", help="plot training episodes or evaluations"
    )
    parser.add_argument(
        "--no-published", action="store_true", help="leave out the published curves (shown with -x frames)"
    )
    parser.add_argument("--aggregate", action="store_true", help="plot mean and IQM over tasks, with intervals")
    parser.add_argument(
        "-o",
        "--output",
        nargs="+",
        default=["curves.png"],
        metavar="FILE",
        help="files to write: .png, .svg, .pdf (default: curves.png)",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Plot.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    for name in args.output:
        if Path(name).suffix not in FORMATS:
            raise UsageError(f"--output {name!r}: the name must end in {', '.join(FORMATS)}")
        check_output("--output", name)
    if args.source == "eval" and args.x_axis == "time":
        raise UsageError("-x time: evaluations are logged by steps; use --source train, or -x steps")
    runs = find_runs(args)
    import matplotlib

    matplotlib.use("Agg")
    figure = draw_aggregate(runs, args) if args.aggregate else draw_curves(runs, args)
    for name in args.output:
        figure.savefig(name, dpi=150, bbox_inches="tight")
        print(f"Written: {name}")
    return 0


def find_runs(args: Namespace) -> Runs:
    """Find runs by environment and algorithm.

    :raises UsageError: if there is none, or an algorithm or environment has none
    """
    root = Path(args.exp_folder)
    algorithms = [check_algorithm(name) for name in args.algo] if args.algo else ALGORITHMS
    by_algo = {algo: run_folder.all_runs(root, algo) for algo in algorithms}
    names = list(dict.fromkeys(run.name for runs in by_algo.values() for run in runs))
    if not names:
        raise UsageError(f"there is no run in {root}: train one, or pass -f FOLDER")
    if args.env:
        wanted = {env: [name for algo in by_algo for name in run_folder.names_for(root, algo, env)] for env in args.env}
        for env, found in wanted.items():
            if not found:
                raise UsageError(f"there is no run of {env!r} in {root}{near(env, names)}: it has {', '.join(names)}")
        names = list(dict.fromkeys(name for found in wanted.values() for name in found))
    result: Runs = {}
    for name in names:
        for algo, runs in by_algo.items():
            same = [run for run in runs if run.name == name]
            if same:
                result.setdefault(name, {})[algo] = same
    return result


def run_curves(runs: Sequence[RunFolder], args: Namespace) -> list[curves.Curve]:
    """Read the curves of the runs that have one before the end of the x-axis; print which have none, and why."""
    found = []
    for run in runs:
        try:
            if args.source == "eval":
                curve = curves.evaluation_curve(run, args.x_axis, args.y_axis)
            else:
                curve = curves.training_curve(run, args.x_axis, args.y_axis, args.episode_window)
        except UsageError as error:
            print(f"Left out: {error}")
            continue
        if curve is None or not len(curve.x):
            print(f"Left out: {run.path} (no {POINTS[args.source]} yet)")
        elif args.max_x is not None and not args.aggregate and curve.x[0] > args.max_x:
            print(f"Left out: {run.path} (begins at {curve.x[0]:g}, after -max {args.max_x:g})")
        else:
            found.append(curve)
    return found


def task_of(name: str, runs: Sequence[RunFolder]) -> str:
    """Return the environment of runs of one name, with its suite: that of the first whose settings can be read."""
    for run in runs:
        with contextlib.suppress(UsageError):
            return str(run_folder.read_config(run).get("env", name))
    return name


def draw_curves(runs: Runs, args: Namespace) -> Any:
    """Draw one panel per environment."""
    import matplotlib.pyplot as plt

    columns = min(4, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(runs) :]:
        axis.remove()
    drawn = 0
    for axis, (name, by_algo) in zip(axes.flat, runs.items(), strict=False):
        for index, (algo, members) in enumerate(by_algo.items()):
            color = f"C{ALGORITHMS.index(algo) if algo in ALGORITHMS else index}"
            env = task_of(name, members)
            if args.x_axis == "frames" and args.y_axis == "reward" and not args.no_published:
                draw_published(axis, algo, env, color)
            drawn += draw_runs(axis, run_curves(members, args), algo, color)
        axis.set_title(name)
        axis.set_xlabel(curves.X_AXES[args.x_axis])
        axis.set_ylabel("return" if args.y_axis == "reward" else "episode length")
        axis.set_xlim(0, args.max_x)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
    if not drawn:
        before = "" if args.max_x is None else f" before -max {args.max_x:g}"
        raise UsageError(f"nothing is left to plot: there is no {POINTS[args.source]}{before} that can be read")
    return figure


def draw_runs(axis: Any, lines: Sequence[curves.Curve], label: str, color: str) -> int:
    """Draw the mean over runs, and the band from the lowest to the highest.

    :return: number of runs drawn
    """
    if len(lines) == 1:
        marker = "o" if len(lines[0].x) == 1 else None  # a line of one point is not seen
        axis.plot(lines[0].x, lines[0].y, color=color, label=label, marker=marker)
    elif lines:
        grid, values = curves.on_grid(list(lines))
        marker = "o" if grid[0] == grid[-1] else None
        axis.plot(grid, values.mean(0), color=color, label=f"{label} ({len(lines)} runs)", marker=marker)
        axis.fill_between(grid, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)
    return len(lines)


def draw_published(axis: Any, algo: str, env: str, color: str) -> None:
    """Draw the published curve: lowest to highest seed as a band, the mean dashed."""
    curve = curves.published_curve(algo, env)
    if curve is not None:
        frames = np.array(curve["frames"])
        axis.fill_between(frames, curve["low"], curve["high"], color="gray", alpha=0.25, linewidth=0)
        label = f"{algo}, published ({curve['seeds']} seeds)"
        axis.plot(frames, curve["mean"], color=color, linestyle="--", linewidth=1, alpha=0.7, label=label)


def score_matrix(by_task: dict[str, list[RunFolder]], args: Namespace) -> tuple[np.ndarray, list[str]]:
    """Compute normalized final scores ``(runs, tasks)``, over as many runs as every task has, and list the tasks.

    The final score of a run is the end of its curve.

    :raises UsageError: if no task can be normalized, or one has no curve
    """
    columns: dict[str, np.ndarray] = {}
    without: list[str] = []
    for name, runs in by_task.items():
        env = task_of(name, runs)
        finals = np.array([curve.y[-1] for curve in run_curves(runs, args)])
        normalized = scores.normalize_for_suite(env, finals)
        if normalized is None:
            without.append(f"{env} (scores are normalized for Atari and control tasks only)")
        elif not len(finals):
            other = "--source eval" if args.source == "train" else "--source train"
            without.append(f"{env} (no score yet: train longer, or try {other})")
        else:
            columns[env] = normalized
    if not columns:
        raise UsageError(f"--aggregate: no scores of {'; '.join(without)}")
    if without:
        print(f"Left out: {'; '.join(without)}")
    count = min(len(column) for column in columns.values())
    return np.stack([column[:count] for column in columns.values()], axis=1), list(columns)


def draw_aggregate(runs: Runs, args: Namespace) -> Any:
    """Draw mean and interquartile mean per algorithm, with intervals where there are two or more runs."""
    import matplotlib.pyplot as plt

    algorithms = list(dict.fromkeys(algo for by_algo in runs.values() for algo in by_algo))
    figure, axes = plt.subplots(1, 2, figsize=(9, 1.4 + 0.5 * len(algorithms)), sharey=True)
    for row, algo in enumerate(algorithms):
        by_task = {name: by_algo[algo] for name, by_algo in runs.items() if algo in by_algo}
        matrix, tasks = score_matrix(by_task, args)
        counts = f"{plural(len(tasks), 'task')}, {plural(len(matrix), 'run')}"
        label = f"{algo}\n{counts}"
        axes[0].barh(label, matrix.mean(), color=f"C{row}", alpha=0.6)
        axes[1].barh(label, scores.iqm(matrix), color=f"C{row}", alpha=0.6)
        print(f"{algo}: {counts}, mean {matrix.mean():.3f}, IQM {scores.iqm(matrix):.3f}")
        if len(matrix) > 1:
            low, high = scores.bootstrap_interval(matrix, scores.iqm)
            axes[1].plot([low, high], [label, label], color="black")
            print(f"{algo}: IQM 95 % interval [{low:.3f}, {high:.3f}] (stratified bootstrap)")
    axes[0].set_title("mean of normalized scores")
    axes[1].set_title("interquartile mean" + (", 95 % interval" if len(matrix) > 1 else ""))
    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
    return figure
