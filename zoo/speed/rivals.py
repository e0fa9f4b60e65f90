"""``bench rivals``: our update and other programs', in turns, each run in a new process.

A driver is any command that prints a line ``NAME MODE median S s min S s``; ``zoo/speed/drivers.py`` does so for four
programs, and reads the case from the environment. On a machine that others disturb, or whose clock changes, two
programs can only be compared in the same minutes: hence the turns.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from sb3_dreamer.zoo.config.errors import RunError, UsageError, one_line
from sb3_dreamer.zoo.speed.case import Case, Result, run_case, thread_limits
from sb3_dreamer.zoo.speed.drivers import CASE
from sb3_dreamer.zoo.speed.measure import measure
from sb3_dreamer.zoo.speed.report import case_words, new_table, seconds

LINE = re.compile(r"^(?P<name>\S+)(?P<mode>.*?)\s+median\s+(?P<median>[\d.eE+-]+)\s*s\s+min\s+(?P<min>[\d.eE+-]+)\s*s")
SHOWN = ("torch", "torchrl", "tensordict", "sheeprl", "lightning", "jax", "jaxlib", "numpy")
VERSIONS = (
    "import importlib.metadata as m, json, sys\n"
    "installed = [d for d in m.distributions() if d.metadata['Name']]\n"
    "found = {d.metadata['Name'].lower(): d.version for d in reversed(installed)}\n"  # The first on the path wins.
    "print(json.dumps({'python': sys.version.split()[0], **{n: found[n] for n in sys.argv[1:] if n in found}}))"
)


def rivals(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Run everything in turns and print ratios.

    :param args: flags
    :param cases: the one case of ours
    :param console: where to print
    :return: part of the JSON file
    :raises RunError: if a driver fails or prints no time
    """
    commands = dict(read_rival(text) for text in args.rival)
    case = replace(cases[0], parts=())
    own: list[dict[str, Any]] = []
    others: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for number in range(args.rounds):
        for name, words in commands.items():  # ours before each rival, so that each has a neighbor in time
            with console.status(f"round {number + 1} of {args.rounds}: sb3-dreamer"):
                own.append(run_case(case, measure))
            with console.status(f"round {number + 1} of {args.rounds}: {name}"):
                others[name].append(run_driver(name, words, own[-1], timeout=args.timeout))
            pair = f"{seconds(own[-1]['update']['median'])}, {name} {seconds(others[name][-1]['median'])}"
            console.print(f"round {number + 1}: sb3-dreamer {pair}", markup=False)
    ours = _together([run["update"] for run in own])
    found = {
        name: {
            "command": shlex.join(words),
            "versions": versions(words),
            "checkouts": checkouts(words),
            "mode": others[name][0]["mode"],
            **_together(others[name]),
            **_ratios([run["update"] for run in own[index :: len(commands)]], others[name]),
        }
        for index, (name, words) in enumerate(commands.items())
    }
    console.print(_table(case_words(own[0]), ours, found))
    return {"ours": {**ours, "runs": own}, "rivals": found}


def read_rival(text: str) -> tuple[str, list[str]]:
    """Split ``NAME=COMMAND`` into name and words; no shell is involved.

    :raises UsageError: if it is not of that form, or there is no such program
    """
    name, equals, command = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.+-]+", name) or not command.strip():
        raise UsageError(f"--rival {text!r}: write NAME=COMMAND, for example 'other=python time_other.py'")
    try:
        return name, shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--rival {name}: {error}") from error


def run_driver(name: str, words: Sequence[str], ours: Result, *, timeout: float) -> dict[str, Any]:
    """Run a driver once.

    :param name: for messages
    :param words: command
    :param ours: our measurement; its case goes to the driver, and its threads to the numerical libraries
    :param timeout: seconds after which it is stopped
    :return: mode, median and smallest seconds, and the seconds of the whole run
    :raises RunError: if it fails, takes too long or prints no time
    """
    names = ("size", "obs", "action", "threads", "updates", "warmup")
    case = {name: ours["case"][name] for name in names} | {name: ours[name] for name in ("batch_size", "batch_length")}
    case["device"] = ours["device"].partition(":")[0]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=os.environ | thread_limits(case["threads"]) | {CASE: json.dumps(case)},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{name}: no result after {timeout:g} s (--timeout)") from error
    except OSError as error:
        raise RunError(f"{name}: {one_line(error)}") from error
    matches = [match for match in map(LINE.match, done.stdout.splitlines()) if match]
    if done.returncode or not matches:
        last = one_line(((done.stderr.strip() or done.stdout.strip()).splitlines() or ["it printed nothing"])[-1])
        what = f"exit status {done.returncode}" if done.returncode else "no line 'NAME MODE median S s min S s'"
        raise RunError(f"{name}: {what}: {last}")
    match = matches[-1]
    return {
        "mode": f"{match['name']}{match['mode']}",
        "median": float(match["median"]),
        "min": float(match["min"]),
        "whole_run": time.perf_counter() - start,
    }


def versions(words: Sequence[str]) -> dict[str, str]:
    """Find versions of known packages of the Python that a command starts with; empty for other programs."""
    if not re.fullmatch(r"python[\d.]*", Path(words[0]).name):
        return {}
    done = subprocess.run([words[0], "-c", VERSIONS, *SHOWN], capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def checkouts(words: Sequence[str]) -> dict[str, str]:
    """Find commits of the git checkouts among the arguments of a command."""
    found = {}
    for word in words[1:]:
        if (Path(word) / ".git").exists():
            call = ["git", "-C", word, "rev-parse", "HEAD"]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            found[Path(word).name] = done.stdout.strip()
    return found


def _together(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join runs: median of the medians, smallest of the smallest, and all of both."""
    medians, minima = [run["median"] for run in runs], [run["min"] for run in runs]
    return {"median": statistics.median(medians), "min": min(minima), "medians": medians, "minima": minima}


def _ratios(own: Sequence[dict[str, Any]], rival: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute a rival's time over ours: of the smallest times, and of the medians of each pair of neighbors."""
    pairs = [other["median"] / mine["median"] for mine, other in zip(own, rival, strict=True)]
    return {
        "ratio_min": min(run["min"] for run in rival) / min(run["min"] for run in own),
        "ratio_median": statistics.median(pairs),
        "ratio_pairs": pairs,
    }


def _table(name: str, ours: dict[str, Any], found: dict[str, dict[str, Any]]) -> Table:
    table = new_table("Time of one update", "program", "median", "min", "times ours (median)", "(min)", "versions")
    table.add_row(name, seconds(ours["median"]), seconds(ours["min"]), "1", "1", "")
    for rival, run in found.items():
        shown = [f"{package} {version}" for package, version in run["versions"].items()]
        shown += [f"{folder} {commit[:8]}" for folder, commit in run["checkouts"].items()]
        ratios = (f"{run['ratio_median']:.2f}", f"{run['ratio_min']:.2f}")
        label = f"{rival} ({run['mode']})"
        table.add_row(label, seconds(run["median"]), seconds(run["min"]), *ratios, ", ".join(shown))
    return table
