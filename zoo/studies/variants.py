"""Compare variants of DreamerV3 on a task that tells them apart, several seeds each, and print a table.

::

    python -m sb3_dreamer.zoo.studies.variants exploration --seeds 0 1 2
    python -m sb3_dreamer.zoo.studies.variants background --seeds 0 1 2

Every variant is one :mod:`~sb3_dreamer.zoo.studies.learning_check`, with its file ``docs/results/STUDY_VARIANT.json``;
seeds that are in it are not run again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.studies import learning_check


class Study(NamedTuple):
    """Variants on one task.

    :param check: arguments of the learning check that all variants have
    :param params: constructor arguments that all variants have
    :param network: ``policy_kwargs`` that all variants have
    :param variants: constructor arguments that each of them adds, by name
    :param success: return of an episode that counts as a success
    """

    check: tuple[str, ...]
    params: dict[str, Any]
    network: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    success: float


SMALL = {"model_size": "XXS", "batch_size": 16, "batch_length": 16, "critic_learning_rate": 0.001, "gamma": 0.99}
NETWORK = {"deter": 64, "units": 64, "stoch": 8, "classes": 8, "bins": 63}
REPEAT = "{sb3_dreamer.wrappers.ActionRepeat: {amount: 4}}"
RESCALE = "{gymnasium.wrappers.RescaleObservation: {min_obs: [-2.0, -2.0], max_obs: [2.0, 2.0]}}"
STUDIES = {
    # The car's action lasts 4 steps, an episode 50 actions: random play does not reach the goal.
    "exploration": Study(
        (
            *("--env", "MountainCar-v0", "--steps", "8000", "--eval-every", "1000", "--eval-episodes", "10"),
            *("--env-wrapper", f"[{REPEAT}, {RESCALE}]"),
        ),
        SMALL
        | {"batch_size": 8, "train_ratio": 32, "learning_starts": 500, "learning_rate": 0.002}
        | {"actor_learning_rate": 0.001, "ent_coef": 0.003},
        NETWORK | {"hard_continue": False, "ensemble": 5},
        {
            "dreamerv3": {},
            "plan2explore": {"explore_until": 5000, "policy_kwargs": {"exploration": "plan2explore"}},
        },
        success=-199.0,
    ),
    # A pattern moves behind ball and paddle: nearly all of what a decoder is asked for has no meaning.
    "background": Study(
        (
            *("--env", "sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0", "--steps", "5000"),
            *("--eval-every", "1000", "--eval-episodes", "40", "--final-episodes", "100"),
            *("--env-kwargs", "cells:5", "scale:4", "noise:100"),
        ),
        SMALL
        | {"batch_length": 8, "horizon": 4, "train_ratio": 64, "learning_starts": 1000, "learning_rate": 0.001}
        | {"actor_learning_rate": 0.0003, "ent_coef": 0.003},
        NETWORK,
        {name: {"policy_kwargs": {"representation": name}} for name in ("decoder", "barlow", "contrastive")},
        success=1.0,
    ),
}


def words(study: Study, name: str, variant: str, args: argparse.Namespace) -> list[str]:
    """Arguments of the learning check of one variant."""
    own = study.variants[variant]
    params = study.params | own | {"policy_kwargs": study.network | own.get("policy_kwargs", {})}
    pairs = [f"{key}:{value}" for key, value in params.items()]
    seeds = list(map(str, args.seeds))
    where = ["--name", f"{name}_{variant}", "--out", args.out, "--plot", f"{args.media}/{name}.png"]
    return [*study.check, "--seeds", *seeds, *where, "-params", *pairs]


def table(study: Study, name: str, args: argparse.Namespace) -> str:
    """Format the results: per seed, mean return after training and successes while training."""
    lines = ["| variant | return after training, by seed | successful training episodes, by seed | minutes a seed |"]
    lines += ["|---|---|---|---|"]
    for variant in study.variants:
        found = json.loads((Path(args.out) / f"{name}_{variant}.json").read_text())["runs"]
        runs = [found[str(seed)] for seed in args.seeds]
        returns = ", ".join(f"{fmean(run['final_returns']):.2f}" for run in runs)
        successes = ", ".join(
            f"{sum(r >= study.success for _, r in run['episodes'])} of {len(run['episodes'])}" for run in runs
        )
        minutes = fmean(run["cpu_seconds"] for run in runs) / 60
        lines.append(f"| {variant} | {returns} | {successes} | {minutes:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default="docs/results", help="folder of the result files")
    parser.add_argument("--media", default="docs/media", help="folder of the pictures")
    args = parser.parse_args(argv)
    study = STUDIES[args.study]
    for variant in study.variants:
        learning_check.main(words(study, args.study, variant, args))
    paths = [Path(args.out) / f"{args.study}_{variant}.json" for variant in study.variants]
    learning_check.plot(paths, Path(args.media) / f"{args.study}.png")
    print(table(study, args.study, args))
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
