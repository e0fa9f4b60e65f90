"""Measure how much search a learned model needs: CEM and random shooting with equal numbers of dreamed sequences.

::

    python -m sb3_dreamer.zoo.studies.planet_budgets --env pendulum --budgets 40 100 400 --out budgets.json RUN ...

``RUN`` are folders that ``planning_baselines`` wrote. For each budget, CEM has four iterations of a quarter of it and a
tenth of that as elites; random shooting takes the best of all. Both see the same start states.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_dreamer import PlaNet
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.planner import CEMPlanner, random_shooting
from sb3_dreamer.wrappers import make_env
from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.studies.planning_baselines import ENVS, Planned

ITERATIONS = 4


def planners(model: PlaNet, budget: int, horizon: int | None = None) -> dict[str, Behavior]:
    """Make the two searches that dream ``budget`` sequences for an action.

    :raises ValueError: for a budget that leaves an iteration less than ten sequences
    """
    candidates = budget // ITERATIONS
    if candidates < 10:
        raise ValueError(f"budget {budget} must be at least {10 * ITERATIONS}: {ITERATIONS} iterations of 10 sequences")
    layout, horizon = model.policy.codec.layout, horizon or model.planning_horizon
    cem = CEMPlanner(
        layout, horizon=horizon, iterations=ITERATIONS, candidates=candidates, elites=max(2, candidates // 10)
    )
    return {"cem": cem, "random_shooting": random_shooting(layout, candidates=budget, horizon=horizon)}


def evaluate(
    run: Path, env_name: str, budgets: Sequence[int], episodes: int, horizon: int | None = None
) -> list[dict[str, object]]:
    """Play one trained model by every budget and search."""
    name, kwargs = ENVS.get(env_name, (env_name, {}))
    env = make_vec_env(lambda: make_env(name, **kwargs), episodes, seed=1000)
    model = PlaNet.load(run / "model.zip", env=env, device="cpu")
    rows: list[dict[str, object]] = []
    for budget in budgets:
        for search, planner in planners(model, budget, horizon).items():
            env.seed(1000)
            returns, _ = evaluate_policy(
                Planned(model, planner), env, episodes, deterministic=True, return_episode_rewards=True
            )
            values = [round(float(value), 2) for value in returns]  # type: ignore[union-attr]
            rows.append({"run": run.name, "budget": budget, "search": search, "returns": values})
            print(f"{run.name:28s} {budget:5d} {search:16s} {np.mean(values):9.1f} +- {np.std(values):.1f}", flush=True)
    env.close()
    return rows


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of planning_baselines")
    parser.add_argument("--env", default="pendulum", help=f"{', '.join(ENVS)}, or any name that make_env knows")
    parser.add_argument("--budgets", nargs="+", type=int, default=[40, 100, 400], help="sequences per action")
    parser.add_argument("--episodes", type=int, default=8, help="evaluation episodes, side by side")
    parser.add_argument("--horizon", type=int, help="planned steps (default: the model's)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=output_file, help="JSON file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = make_parser().parse_args(argv)
    th.set_num_threads(args.threads)
    rows = [row for run in args.runs for row in evaluate(run, args.env, args.budgets, args.episodes, args.horizon)]
    if args.out:
        words = sys.argv[1:] if argv is None else argv
        facts = {"command": shlex.join(["python", "-m", "sb3_dreamer.zoo.studies.planet_budgets", *words])}
        args.out.write_text(json.dumps(facts | {"env": args.env, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
