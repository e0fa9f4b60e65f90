"""Measure how long DreamerV3 takes until CartPole-v1 is solved: this package and others, from start to end.

::

    D=zoo/studies/time_to_solve_drivers.py
    python -m sb3_dreamer.zoo.studies.time_to_solve --seeds 0 1 2 --out docs/results/time_to_solve.json \\
        --rival "sheeprl=PYTHON $D sheeprl" --rival "r2dreamer=PYTHON $D r2dreamer CLONE"

Solved is a mean return of 475 over the last 5 training episodes, whose actions are sampled (20 of them would be up to
10,000 steps). All have the same sizes, batch and number of updates per environment step, as the drivers' file says,
which also names the differences that are left. Runs follow one another, seed by seed, each in a process of its own; a
run ends when it has solved the task, or after ``--steps`` or ``--minutes``. The file is written after every run.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.config.errors import RunError, UsageError
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs.provenance import describe_system
from sb3_dreamer.zoo.speed.case import thread_limits
from sb3_dreamer.zoo.speed.report import describe_machine, new_table, write_json
from sb3_dreamer.zoo.speed.rivals import checkouts, read_rival, versions
from sb3_dreamer.zoo.studies.time_to_solve_drivers import STARTED

WINDOW, SOLVED = 5, 475.0  # episodes averaged; their mean return
NEARLY = 400.0  # a mean return on the way, also recorded
SHOWN = 200  # episodes kept of a run, at most
OURS = "ours"


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of a run (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="longest time of a run (default: %(default)g)")
    parser.add_argument("--threads", type=int, default=1, help="of every run (default: %(default)s)")
    parser.add_argument("--rival", action="append", default=[], metavar="NAME=COMMAND", help="may be repeated")
    parser.add_argument(
        "--out", type=output_file, default="time_to_solve.json", help="JSON file (default: %(default)s)"
    )
    return parser


@contextlib.contextmanager
def running(words: Sequence[str], folder: Path, args: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a process group of its own, and end the group afterwards or when its time is up.

    :param words: command
    :param folder: for what it writes; its messages go to ``log.txt``
    :param args: flags
    """
    environment = os.environ | thread_limits(args.threads) | {"TMPDIR": str(folder), STARTED: repr(time.time())}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
        )

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(60 * args.minutes, end)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            end()
            process.wait()


def episodes(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Read the lines of episodes that a driver prints, and skip all others."""
    assert process.stdout is not None
    for line in process.stdout:
        with contextlib.suppress(json.JSONDecodeError):
            found = json.loads(line)
            if isinstance(found, dict) and {"step", "return", "seconds"} <= found.keys():
                yield found


def measure(words: Sequence[str], seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train once, until the task is solved or the run has ended.

    :param words: command of a driver, without the flags of a run
    :param seed: of the run
    :param args: flags
    :return: plain values; None for what was not reached
    :raises RunError: if it ends with an error
    """
    flags = {"--seed": seed, "--steps": args.steps, "--threads": args.threads}
    command = [*words, *(str(word) for pair in flags.items() for word in pair)]
    rows: list[dict[str, Any]] = []
    last: deque[float] = deque(maxlen=WINDOW)
    begin, status, solved = time.monotonic(), None, False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        with running(command, Path(name), args) as process:
            for row in episodes(process):
                rows.append(row)
                last.append(row["return"])
                solved = len(last) == WINDOW and statistics.fmean(last) >= SOLVED
                if solved or row["step"] >= args.steps:
                    break
            else:
                status = process.wait()
        message = (Path(name) / "log.txt").read_text(errors="replace").strip().splitlines()
    late = time.monotonic() - begin >= 60 * args.minutes
    if not rows or (status and not late):
        raise RunError(f"{shlex.join(map(portable, command))}: {message[-1] if message else 'it printed no episode'}")
    return {"seed": seed, **summary(rows, solved, last)}


def first_at(rows: Sequence[dict[str, Any]], mark: float) -> dict[str, float] | None:
    """Find the episode at which the mean return of the last episodes is at least ``mark``; None if there is none.

    :param rows: episodes
    :param mark: mean return
    """
    for i in range(WINDOW, len(rows) + 1):
        if statistics.fmean(row["return"] for row in rows[i - WINDOW : i]) >= mark:
            return {"step": rows[i - 1]["step"], "seconds": rows[i - 1]["seconds"]}
    return None


def summary(rows: Sequence[dict[str, Any]], solved: bool, last: Sequence[float]) -> dict[str, Any]:
    """Describe a run.

    :param rows: its episodes
    :param solved: whether the last of them solved the task
    :param last: returns of the last episodes
    """
    end, every = rows[-1], -(-len(rows) // SHOWN)
    names = ("step", "return", "seconds")
    thinned = [[row[name] for name in names] for i, row in enumerate(rows) if row is end or i % every == 0]
    return {
        "solved": solved,
        "seconds": end["seconds"] if solved else None,
        "seconds_from_first_step": end["seconds"] - end["first"] if solved else None,
        "steps": end["step"] if solved else None,
        "nearly": first_at(rows, NEARLY),
        "end": {name: end[name] for name in ("step", "seconds", "first", "updates", "update_seconds")},
        "mean_return": statistics.fmean(last),
        "parameters": end["parameters"],
        "episodes": len(rows),
        "curve": {"columns": list(names), "rows": thinned},
    }


def portable(word: str) -> str:
    """Leave the folders of absolute paths out of a word of a command."""
    return re.sub(r"(^|[\s=])/\S*/", r"\1", word)


def shown(value: float | None, form: str = ".0f") -> str:
    """Format a number that may be missing."""
    return "-" if value is None else format(value, form)


def middle(runs: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the median of a number over runs; those without it count as infinite, and None stands for infinity."""
    value = statistics.median(float("inf") if run[name] is None else run[name] for run in runs)
    return None if value == float("inf") else value


def make_table(agents: dict[str, dict[str, Any]]) -> Table:
    """Draw all runs, and the medians of each agent."""
    columns = ("seed", f"minutes to {NEARLY:g}", "solved", "since step 1", "steps", "return", "ms/update", "parameters")
    table = new_table("Until CartPole-v1 is solved", "program", *columns)
    for name, agent in agents.items():
        for run in agent["runs"]:
            nearly = (run["nearly"] or {"seconds": None})["seconds"]
            found = (nearly, run["seconds"], run["seconds_from_first_step"])
            times = [None if seconds is None else seconds / 60 for seconds in found]
            update = 1000 * run["end"]["update_seconds"] / max(1, run["end"]["updates"])
            cells = [str(run["seed"]), *(shown(value, ".2f") for value in times), shown(run["steps"])]
            table.add_row(name, *cells, shown(run["mean_return"]), shown(update), shown(run["parameters"], ",d"))
        medians = [middle(agent["runs"], key) for key in ("seconds", "seconds_from_first_step", "steps")]
        times = [None if value is None else value / 60 for value in medians[:2]]
        if len(agent["runs"]) > 1:
            table.add_row(name, "median", "", *(shown(value, ".2f") for value in times), shown(medians[2]), "", "", "")
    return table


def compare(args: argparse.Namespace, call: str) -> dict[str, Any]:
    """Train in turns; what is known is written after every run.

    :param args: flags
    :param call: this program's command, for the file
    :return: what the file holds
    :raises UsageError: if names are not unique
    :raises RunError: if a run fails
    """
    driver = str(Path(__file__).with_name("time_to_solve_drivers.py"))
    commands = {OURS: [sys.executable, driver, OURS]} | dict(map(read_rival, args.rival))
    if len(commands) < 1 + len(args.rival):
        raise UsageError(f"two programs have the same name, or a rival is called {OURS!r}")
    record: dict[str, Any] = {
        "command": call,
        "threads": args.threads,
        "window": WINDOW,
        "mark": SOLVED,
        "nearly": NEARLY,
    }
    record |= {"most_steps": args.steps, "machine": describe_machine(), "system": describe_system(), "agents": {}}
    for name, words in commands.items():
        known = {"versions": versions(words), "checkouts": checkouts(words)}
        record["agents"][name] = {"command": shlex.join(map(portable, words)), **known, "runs": []}
    for seed in args.seeds:
        for name, words in commands.items():
            result = measure(words, seed, args)
            record["agents"][name]["runs"].append(result)
            write_json(args.out, record)
            end, state = result["end"], "solved" if result["solved"] else "not solved"
            print(f"{name} seed {seed}: {state}, {end['step']} steps, {end['seconds']:.0f} s", flush=True)
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print and write.

    :param argv: command-line arguments
    :return: exit status
    """
    given = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(given)
    call = shlex.join(["python", "-m", "sb3_dreamer.zoo.studies.time_to_solve", *map(portable, given)])
    record = compare(args, call)
    Console().print(make_table(record["agents"]))
    print(f"Written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
