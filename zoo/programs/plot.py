"""The program ``plot``: learning curves of runs, with the published ones behind."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, check_algorithm
from sb3_dreamer.zoo.programs.arguments import OneLineParser, positive
from sb3_dreamer.zoo.programs.errors import UsageError, near
from sb3_dreamer.zoo.runs import curves, run_folder
from sb3_dreamer.zoo.runs.run_folder import RunFolder

FORMATS = (".png", ".svg", ".pdf")
Runs = dict[str, dict[str, list[RunFolder]]]  # run name -> algorithm -> runs


def make_parser() -> OneLineParser:
    """The parser of ``plot``."""
    parser = OneLineParser(
        prog="sb3-dreamer plot",
        description="Plot learning curves: one picture per environment, one line per algorithm, seeds as a band.",
    )
    parser.add_argument("-a", "--algo", nargs="+", metavar="ALGO", help="algorithms (default: all that have runs)")
    parser.add_argument("-e", "--env", nargs="+", metavar="ENV", help="environments (default: all that have runs)")
    parser.add_argument("-f", "--exp-folder", default="logs", metavar="DIR", help="where the run folders are")
    parser.add_argument("-x", "--x-axis", choices=list(curves.X_AXES), default="steps", help="what to draw over")
    parser.add_argument("-y", "--y-axis", choices=["reward", "length"], default="reward", help="what to draw")
    parser.add_argument("-w", "--episode-window", type=positive, default=20, metavar="N", help="episodes to average")
    parser.add_argument("-max", "--max-x", type=float, metavar="X", help="draw up to here")
    parser.add_argument(
        "--source", choices=["train", "eval"], default="train", help="training episodes, or evaluations"
    )
    parser.add_argument("--no-published", action="store_true", help="leave the authors' curves out (drawn over frames)")
    parser.add_argument("--aggregate", action="store_true", help="one picture: mean and IQM over tasks, with intervals")
    parser.add_argument(
        "-o", "--output", nargs="+", default=["curves.png"], metavar="FILE", help="files to write: .png, .svg, .pdf"
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
        if not Path(name).parent.is_dir():
            raise UsageError(f"--output {name!r}: there is no folder {Path(name).parent}")
    runs = find_runs(args)
    import matplotlib

    matplotlib.use("Agg")
    if args.aggregate:
        from sb3_dreamer.zoo.programs.plot_aggregate import draw_aggregate

        figure = draw_aggregate(runs, args)
    else:
        figure = draw(runs, args)
    for name in args.output:
        figure.savefig(name, dpi=150, bbox_inches="tight")
        print(f"Written: {name}")
    return 0


def find_runs(args: Namespace) -> Runs:
    """Runs by environment and algorithm.

    :raises UsageError: if there is none, or an algorithm or environment has none
    """
    root = Path(args.exp_folder)
    found: Runs = {}
    for algo in [check_algorithm(name) for name in args.algo] if args.algo else ALGORITHMS:
        for config in sorted((root / algo).glob("*/*/config.yml")):
            run = RunFolder(config.parent.parent, config.parent.name)
            found.setdefault(run.name, {}).setdefault(algo, []).append(run)
    if not found:
        raise UsageError(f"there is no run in {root}: train one, or give -f FOLDER")
    if not args.env:
        return found
    wanted: Runs = {}
    for env in args.env:  # With its suite or without: walker_walk stands for every suite that was trained.
        name = env.replace("/", "-").replace(":", "-")
        matches = [run for run in found if run == name or run.endswith(f"-{name}")]
        if not matches:
            raise UsageError(f"there is no run of {env!r} in {root}{near(name, found)}: it has {', '.join(found)}")
        wanted |= {run: found[run] for run in matches}
    return wanted


def run_curves(runs: Sequence[RunFolder], args: Namespace) -> list[curves.Curve]:
    """The curves of the runs that have one."""
    if args.source == "eval":
        made = [curves.evaluation_curve(run, args.x_axis, args.y_axis) for run in runs]
    else:
        made = [curves.training_curve(run, args.x_axis, args.y_axis, args.episode_window) for run in runs]
    return [curve for curve in made if curve is not None and len(curve.x)]


def draw(runs: Runs, args: Namespace) -> Any:
    """A picture per environment."""
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
            env = str(run_folder.read_config(members[0]).get("env", name))
            if args.x_axis == "frames" and args.y_axis == "reward" and not args.no_published:
                draw_published(axis, algo, env, color)
            drawn += draw_runs(axis, run_curves(members, args), algo, color)
        axis.set_title(name)
        axis.set_xlabel(curves.X_AXES[args.x_axis])
        axis.set_ylabel("return" if args.y_axis == "reward" else "episode length")
        axis.set_xlim(0, args.max_x)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    if not drawn:
        raise UsageError("the runs have no finished episode yet" if args.source == "train" else "no evaluation yet")
    return figure


def draw_runs(axis: Any, lines: Sequence[curves.Curve], label: str, color: str) -> int:
    """The mean over runs, and the band from the lowest to the highest.

    :return: number of runs drawn
    """
    if len(lines) == 1:
        axis.plot(lines[0].x, lines[0].y, color=color, label=label)
    elif lines:
        grid, values = curves.on_grid(list(lines))
        axis.plot(grid, np.nanmean(values, 0), color=color, label=f"{label} ({len(lines)} runs)")
        axis.fill_between(grid, np.nanmin(values, 0), np.nanmax(values, 0), color=color, alpha=0.2, linewidth=0)
    return len(lines)


def draw_published(axis: Any, algo: str, env: str, color: str) -> None:
    """The authors' curve: lowest to highest seed as a band, the mean dashed."""
    curve = curves.published_curve(algo, env)
    if curve is not None:
        frames = np.array(curve["frames"])
        axis.fill_between(frames, curve["low"], curve["high"], color="grey", alpha=0.25, linewidth=0)
        label = f"{algo}, authors ({curve['seeds']} seeds)"
        axis.plot(frames, curve["mean"], color=color, linestyle="--", linewidth=1, alpha=0.7, label=label)
