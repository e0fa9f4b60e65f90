"""Show that an algorithm learns an environment: several seeds, evaluated on the way, as JSON and as a plot.

One command makes one result file. Seeds that are already in the file are not run again, so an interrupted check
continues where it stopped::

    python -m sb3_dreamer.zoo.studies.learning_check --algo DreamerV2 --env CartPole-v1 --seeds 0 1 2 --steps 20000 \\
        --goal 475 -params train_ratio:512 learning_rate:lin_0.001

The plot alone, of one or of several result files: ``--compare docs/results/a.json docs/results/b.json --plot c.png``.
"""

import argparse
import ast
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.studies.learning_check_setup import find_algorithm, make_envs, make_model
from sb3_dreamer.zoo.studies.learning_plot import mean, plot
from sb3_dreamer.zoo.studies.learning_store import read_results, store


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """``["a:1", "b:{'c': 2}", "d:name"]`` to a dict; a value that is no Python literal is a string."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, colon, text = pair.partition(":")
        if not colon:
            raise ValueError(f"{pair!r} must be written name:value")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def policy_for(space: Any) -> str:
    """The policy alias that fits an observation space."""
    from gymnasium import spaces
    from stable_baselines3.common.preprocessing import is_image_space

    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(space) else "MlpPolicy"


def run_seed(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train one seed in one thread, evaluating on the way.

    :param settings: what :func:`settings_of` gave
    :param seed: of the training; evaluations use environments seeded with ``10_000 + seed`` and up
    :return: evaluations ``[step, mean, std]``, training episodes ``[step, return]``, the final evaluation, the time
    """
    import torch as th
    from stable_baselines3.common.evaluation import evaluate_policy

    from sb3_dreamer.zoo.studies.learning_check_callback import CheckCallback

    th.set_num_threads(1)
    train_env = make_envs(settings, settings["n_envs"], seed)
    eval_env = make_envs(settings, max(1, min(settings["eval_episodes"], 10)), 10_000 + seed)  # side by side is faster
    model = make_model(settings, policy_for(train_env.observation_space), train_env, seed)
    callback = CheckCallback(
        eval_env,
        every=settings["eval_every"],
        episodes=settings["eval_episodes"],
        goal=settings["goal"],
        seconds=60 * settings["minutes"],
        name=f"seed {seed}",
    )
    start, cpu_start = time.perf_counter(), time.process_time()
    model.learn(settings["steps"], callback=callback)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    final: Any = evaluate_policy(
        model, eval_env, settings["final_episodes"], deterministic=True, return_episode_rewards=True
    )
    returns, lengths = final
    return {
        "seed": seed,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "train_seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "stopped": callback.stopped,
        "final_returns": [round(float(value), 4) for value in returns],
        "final_lengths": [int(value) for value in lengths],
        "evaluations": callback.evaluations,
        "episodes": callback.training_episodes,
        "description": dict(model.describe()),
    }


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides a result, as plain values."""
    return {
        "algo": find_algorithm(args.algo).__name__,
        "env": args.env,
        "env_kwargs": parse_pairs(args.env_kwargs),
        "env_wrapper": args.env_wrapper,
        "policy": args.policy,
        "preset": args.preset,
        "params": parse_pairs(args.params),
        "n_envs": args.n_envs,
        "steps": args.steps,
        "minutes": args.minutes,
        "goal": args.goal,
        "eval_every": args.eval_every,
        "eval_episodes": args.eval_episodes,
        "final_episodes": args.final_episodes,
        "device": args.device,
    }


def run_check(args: argparse.Namespace) -> bool:
    """Run the missing seeds, write file and plot, print a table; whether every seed reached the goal."""
    settings = settings_of(args)
    name = args.name or f"{settings['algo']}_{args.env}".lower().replace("/", "_").replace(":", "_")
    path = Path(args.out) / f"{name}.json"
    results = read_results(path, settings)
    missing = [seed for seed in args.seeds if str(seed) not in results["runs"]]
    command = "python -m sb3_dreamer.zoo.studies.learning_check " + shlex.join(args.command)
    for run in train(settings, missing, args.jobs):
        results = store(path, settings, run, command)
        print_run(run)
    if not missing:
        results = store(path, settings, None, command)
    for seed in sorted(set(args.seeds) - set(missing)):
        print_run(results["runs"][str(seed)])
    if results["runs"]:
        plot([path], Path(args.plot or f"docs/media/{name}.png"))
    finals = [mean(results["runs"][str(seed)]["final_returns"]) for seed in args.seeds]
    return args.goal is None or min(finals) >= args.goal


def train(settings: dict[str, Any], seeds: Sequence[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Run the seeds, one after the other in this process or several at a time in others; results as they come."""
    if jobs <= 1:
        yield from (run_seed(settings, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_seed, settings, seed) for seed in seeds]
        for future in as_completed(futures):
            yield future.result()


def print_run(run: dict[str, Any]) -> None:
    """One line for one seed."""
    returns, minutes = run["final_returns"], (run["cpu_seconds"] / 60, run["train_seconds"] / 60)
    print(
        f"seed {run['seed']}: {mean(returns):.1f} (lowest {min(returns):.1f}, {len(returns)} episodes) after "
        f"{run['steps']:,} steps, {run['updates']:,} updates, {minutes[0]:.1f} min of one core "
        f"({minutes[1]:.1f} min on the clock), {run['stopped']}",
        flush=True,
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="DreamerV3", help="DreamerV2, DreamerV3, ...")
    parser.add_argument("--env", default="CartPole-v1", help="any name that sb3_dreamer.wrappers.make_env knows")
    parser.add_argument("--env-kwargs", nargs="*", default=[], metavar="NAME:VALUE", help="arguments of make_env")
    parser.add_argument(
        "--env-wrapper", metavar="YAML", help="path of a wrapper, or [{path: {argument: value}}], innermost first"
    )
    parser.add_argument("--policy", help="MlpPolicy, CnnPolicy or MultiInputPolicy; chosen from the space by default")
    parser.add_argument("--preset", help="named constructor arguments of the algorithm")
    parser.add_argument(
        "-params", "--params", nargs="*", default=[], metavar="NAME:VALUE", help="constructor arguments"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=10_000, help="agent steps over all environments")
    parser.add_argument("--n-envs", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="longest training of a seed, in minutes of one core"
    )
    parser.add_argument("--goal", type=float, help="stop as soon as an evaluation, and then a second one, reaches this")
    parser.add_argument("--eval-every", type=int, default=1000, help="agent steps between evaluations; 0: none")
    parser.add_argument("--eval-episodes", type=int, default=5)
    parser.add_argument("--final-episodes", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run at the same time, one thread each")
    parser.add_argument("--name", help="of the result file, without .json")
    parser.add_argument("--out", default="docs/results", help="folder of the result file")
    parser.add_argument("--plot", help="picture file; docs/media/<name>.png by default")
    parser.add_argument("--compare", nargs="+", type=Path, help="only plot these result files, in one picture")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 if every seed reached the goal."""
    args = make_parser().parse_args(argv)
    args.command = list(sys.argv[1:] if argv is None else argv)
    if args.compare:
        plot(args.compare, Path(args.plot or "docs/media/comparison.png"))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, which is later
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    return 0 if run_check(args) else 1


if __name__ == "__main__":
    sys.exit(main())
