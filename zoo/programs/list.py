"""The program ``list``: algorithms, suites and tasks, runs."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich import box
from rich.table import Table

from sb3_dreamer.wrappers.benchmarks.suites import SUITES
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, check_algorithm
from sb3_dreamer.zoo.config.hyperparams import load_file, suite_files
from sb3_dreamer.zoo.programs import display
from sb3_dreamer.zoo.programs.arguments import OneLineParser
from sb3_dreamer.zoo.programs.errors import UsageError, near
from sb3_dreamer.zoo.runs import run_folder

PACKAGES = {  # what each suite needs
    "atari": "ale_py",
    "atari100k": "ale_py",
    "dmc_vision": "dm_control",
    "dmc_proprio": "dm_control",
    "planet": "dm_control",
    "crafter": "crafter",
    "bsuite": "bsuite",
    "dmlab": "deepmind_lab",
    "minecraft": "minerl",
}


def make_parser() -> OneLineParser:
    """The parser of ``list``."""
    parser = OneLineParser(prog="sb3-dreamer list", description="List suites, tasks of a suite, or runs.")
    parser.add_argument("what", nargs="?", metavar="SUITE", help="list the tasks of this suite (or: classic)")
    parser.add_argument("--algo", metavar="ALGO", help="only this algorithm")
    parser.add_argument("--runs", action="store_true", help="list runs instead")
    parser.add_argument("-f", "--folder", default="logs", metavar="DIR", help="where the runs are")
    return parser


def main(words: Sequence[str]) -> int:
    """Print the list.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    algorithms = [check_algorithm(args.algo)] if args.algo else list(ALGORITHMS)
    console = display.make_console()
    if args.runs:
        console.print(run_table(Path(args.folder), algorithms))
    elif args.what:
        for line in task_lines(args.what, algorithms):
            print(line)
    else:
        console.print(suite_table(algorithms))
        print("Any gymnasium id works as well. Tasks of a suite: sb3-dreamer list SUITE")
    return 0


def suite_table(algorithms: Sequence[str]) -> Table:
    """One row per suite: tasks, whether its package is installed, algorithms with hyperparameters for it."""
    table = Table("suite", "tasks", "example", "installed", "hyperparameters for", box=box.ROUNDED)
    files = {algo: suite_files(algo) for algo in algorithms}
    classic = sorted({task for algo in algorithms for task in classic_tasks(algo)})
    having = [algo for algo in algorithms if "classic" in files[algo]]
    table.add_row("classic", str(len(classic)), classic[0] if classic else "", "yes", ", ".join(having))
    for suite, entry in SUITES.items():
        installed = "yes" if find_spec(PACKAGES[suite]) else "no"
        having = [algo for algo in algorithms if suite in files[algo]]
        table.add_row(suite, str(len(entry.tasks)), f"{suite}:{entry.tasks[0]}", installed, ", ".join(having) or "-")
    return table


def classic_tasks(algo: str) -> list[str]:
    """Tasks of the classic control file of an algorithm."""
    path = suite_files(algo).get("classic")
    return [task for task in load_file(path, algo)[0] if task != "default"] if path else []


def task_lines(suite: str, algorithms: Sequence[str]) -> list[str]:
    """Names to write after ``--env``.

    :raises UsageError: for an unknown suite
    """
    if suite == "classic":
        return sorted({task for algo in algorithms for task in classic_tasks(algo)})
    if suite not in SUITES:
        raise UsageError(f"unknown suite {suite!r}{near(suite, SUITES)}: use classic, {', '.join(SUITES)}")
    return [f"{suite}:{task}" for task in SUITES[suite].tasks]


def run_table(folder: Path, algorithms: Sequence[str]) -> Table:
    """One row per run: steps asked for, seed, best evaluation.

    :raises UsageError: if there is none
    """
    table = Table("run", "steps", "seed", "best evaluation", "final model", box=box.ROUNDED)
    for algo in algorithms:
        for config in sorted((folder / algo).glob("*/*/config.yml")):
            run = run_folder.RunFolder(config.parent.parent, config.parent.name)
            values = run_folder.read_config(run)
            best = best_evaluation(run.path / "evaluations.npz")
            finished = "yes" if run.model.exists() else "no"
            table.add_row(
                f"{algo}/{run.path.name}", str(values.get("n_timesteps")), str(values.get("seed")), best, finished
            )
    if not table.rows:
        raise UsageError(f"there is no run of {', '.join(algorithms)} in {folder}")
    return table


def best_evaluation(path: Path) -> str:
    """The largest mean return of the evaluations, with its step."""
    import numpy as np

    if not path.exists():
        return "-"
    with np.load(path, allow_pickle=False) as file:
        means, steps = file["results"].mean(1), file["timesteps"]
    return f"{means.max():.1f} at {int(steps[means.argmax()]):,}"
