"""The program ``list``: list suites, their tasks, runs, and the agents that come with the package."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich import box
from rich.table import Table

from sb3_dreamer.wrappers.benchmarks.suites import SUITES
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, check_algorithm
from sb3_dreamer.zoo.config.arguments import OneLineParser, folder
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.hyperparams import CLASSIC, suite_files, suite_tasks
from sb3_dreamer.zoo.programs import tables
from sb3_dreamer.zoo.runs import run_folder, sharing
from sb3_dreamer.zoo.runs.agents import SHIPPED
from sb3_dreamer.zoo.runs.run_folder import RunFolder

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
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer list", description="List suites, the tasks of a suite, runs, or trained agents."
    )
    parser.add_argument("what", nargs="?", metavar="SUITE", help="list the tasks of this suite")
    parser.add_argument("--algo", metavar="ALGO", help="list only this algorithm")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--runs", action="store_true", help="list runs instead")
    instead.add_argument(
        "--agents", action="store_true", help="list the trained agents that come with sb3-dreamer instead"
    )
    parser.add_argument("-f", "--folder", type=folder, default="logs", metavar="DIR", help="where the runs are")
    return parser


def main(words: Sequence[str]) -> int:
    """Print the list.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    if args.what and (args.runs or args.agents):
        raise UsageError(f"{args.what!r} names a suite to list the tasks of: leave it out, or --runs and --agents")
    algorithms = [check_algorithm(args.algo)] if args.algo else list(ALGORITHMS)
    console = tables.make_console()
    if args.runs:
        console.print(run_table(Path(args.folder), algorithms))
    elif args.agents:
        console.print(agent_table(algorithms))
        print("Watch one: sb3-dreamer enjoy --algo ALGO --env ENV. The commands that trained them:")
        for command in (run.command for algo in algorithms for run in run_folder.all_runs(SHIPPED, algo)):
            print(command.read_text(encoding="utf-8").strip())
    elif args.what:
        for line in suite_tasks(args.what, algorithms):
            print(line)
    else:
        console.print(suite_table(algorithms))
        print("Any gymnasium id works as well. Tasks of a suite: sb3-dreamer list SUITE")
    return 0


def suite_table(algorithms: Sequence[str]) -> Table:
    """Make a table with one row per suite: tasks, whether its package is installed, algorithms with values for it."""
    table = Table("suite", "tasks", "example", "installed", "hyperparameters for", box=box.ROUNDED)
    files = {algo: suite_files(algo) for algo in algorithms}
    for suite in (CLASSIC, *SUITES):
        tasks = suite_tasks(suite, algorithms)
        installed = "yes" if suite == CLASSIC or find_spec(PACKAGES[suite]) else "no"
        having = [algo for algo in algorithms if suite in files[algo]]
        table.add_row(suite, str(len(tasks)), tasks[0], installed, ", ".join(having) or "-")
    return table


def run_table(folder: Path, algorithms: Sequence[str]) -> Table:
    """Make a table with one row per run: steps, seed, best evaluation; print which have damaged files.

    :raises UsageError: if there is none
    """
    table = Table(box=box.ROUNDED)
    table.add_column("run", overflow="fold")
    for name in ("steps", "seed", "best evaluation", "saved model"):
        table.add_column(name)
    for algo in algorithms:
        for run in run_folder.all_runs(folder, algo):
            try:
                values, best = run_folder.read_config(run), best_evaluation(run)
            except UsageError as error:
                print(f"Left out: {error}")
                continue
            saved = "yes" if run.model.exists() else "no"
            steps = f"{run.steps_done:,} of {int(values.get('n_timesteps') or 0):,}"
            table.add_row(str(run.path.relative_to(folder)), steps, str(values.get("seed")), best, saved)
    if not table.rows:
        raise UsageError(f"there is no run of {', '.join(algorithms)} in {folder} that can be read")
    return table


def agent_table(algorithms: Sequence[str]) -> Table:
    """Make a table with one row per agent of the package: score and size.

    :raises UsageError: if there is none
    """
    table = Table("algo", "env", "mean return", "episodes", "size", box=box.ROUNDED)
    for algo in algorithms:
        for run in run_folder.all_runs(SHIPPED, algo):
            scores = sharing.read_scores(run)
            mean, size = f"{scores['mean']:.1f} +- {scores['std']:.1f}", f"{run.model.stat().st_size / 1000:.0f} kB"
            table.add_row(algo, run.name, mean, str(scores["n"]), size)
    if not table.rows:
        raise UsageError(f"sb3-dreamer comes with no trained agent of {', '.join(algorithms)}")
    return table


def best_evaluation(run: RunFolder) -> str:
    """Return the largest mean return of the evaluations, with its step.

    :raises UsageError: if their file is damaged
    """
    from sb3_dreamer.zoo.runs import curves

    curve = curves.evaluation_curve(run, "steps", "reward")
    if curve is None or not len(curve.y):
        return "-"
    return f"{curve.y.max():.1f} at {int(curve.x[curve.y.argmax()]):,}"
