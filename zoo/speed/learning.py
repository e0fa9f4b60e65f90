"""``bench learn``: steps per second of ``learn()`` and where its time goes, over train ratios and environments."""

import argparse
import time
from dataclasses import replace
from itertools import product
from math import ceil
from typing import Any

import torch as th

from sb3_dreamer.zoo.speed.case import Case, Result, build, run_cases
from sb3_dreamer.zoo.speed.floor import synchronize
from sb3_dreamer.zoo.speed.report import case_words, new_table, print_failures

RATIOS = (0.0, 16.0, 64.0)
ENVIRONMENTS = (1, 4, 16)
ROUNDS, ROUNDS_ALONE = 20, 200  # steps of each environment at least, with and without updates
PARTS = ("updates", "acting", "environments", "storing", "sampling", "the rest")


def measure(case: Case) -> Result:
    """Time a real ``learn()`` in environments that cost nothing, after a short one that warms up.

    :param case: what to measure; without updates if its train ratio is 0
    :return: ``steps_per_second`` and the ``shares`` of the parts, both from the first update on
    """
    if not case.train_ratio:
        case = replace(case, hyperparams=case.hyperparams | {"gradient_steps": 0})
    model = build(case)
    steps = ROUNDS_ALONE * case.n_envs
    if case.train_ratio:
        per_update = model.batch_size * model.batch_length / case.train_ratio
        steps = max(ROUNDS * case.n_envs, ceil((case.updates + 1) * per_update))
    model.learn(4 * case.n_envs, log_interval=10**9)
    model.learn(steps, log_interval=10**9, reset_num_timesteps=False)
    synchronize(th.device(model.device))
    forecast = model._forecast
    elapsed = time.perf_counter() - forecast.first_time
    first = forecast.first_steps or 4 * case.n_envs
    return {
        "device": str(model.device),
        "batch_size": model.batch_size,
        "batch_length": model.batch_length,
        "updates": forecast.updates,
        "steps_per_second": (model.num_timesteps - first) / elapsed,
        "shares": forecast.shares(elapsed),
    }


def report(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Measure every train ratio with every number of environments, each in a new process, and print one table.

    :param args: flags
    :param cases: the one case
    :param console: where to print
    :return: part of the JSON file
    """
    points = {
        f"ratio {ratio:g}, {n} environment(s)": replace(cases[0], train_ratio=ratio, n_envs=n)
        for ratio, n in product(RATIOS, ENVIRONMENTS)
    }
    results, failures = run_cases(points, measure, console)
    title = f"Steps per second of learn(): {case_words(results[0])}"
    title += f", {results[0]['batch_size']}x{results[0]['batch_length']}"
    table = new_table(title, "ratio", "envs", "steps/s", *(part.replace("environments", "env steps") for part in PARTS))
    for result in results:
        case, shares = result["case"], result["shares"]
        words = [f"{shares[part]:.0%}" if part in shares else "-" for part in PARTS]
        speed = float(f"{result['steps_per_second']:.3g}")
        table.add_row(f"{case['train_ratio']:g}", str(case["n_envs"]), f"{speed:,g}", *words)
    console.print(table)
    print_failures(failures)
    return {"results": results, "failures": failures}
