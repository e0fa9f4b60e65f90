"""Show that an algorithm learns an environment: several seeds, evaluated on the way, as JSON and as a plot.

One command makes one result file. Seeds that are already in the file are not run again, so an interrupted check
resumes where it stopped::

    python -m sb3_dreamer.zoo.studies.learning_check --algo DreamerV2 --env CartPole-v1 --seeds 0 1 2 --steps 20000 \\
        --goal 475 -params train_ratio:512 learning_rate:lin_0.001

The plot alone, of one or of several result files: ``--compare docs/results/a.json docs/results/b.json --plot c.png``.
"""

import argparse
import functools
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.wrappers import make_env
from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.config.algorithms import CLASSES, algorithm_class
from sb3_dreamer.zoo.config.arguments import KeyValues
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.config.values import check_values, to_constructor
from sb3_dreamer.zoo.config.yaml_files import StrictLoader
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs.curves import moving_average
from sb3_dreamer.zoo.runs.provenance import describe_system

WINDOW = 10  # training episodes averaged in the plot
SETTINGS = (  # with the algorithm, all that decides a result
    *("env", "env_kwargs", "env_wrapper", "policy", "preset", "params", "n_envs", "steps", "minutes", "goal"),
    *("eval_every", "eval_episodes", "final_episodes", "device"),
)


class Check(BaseCallback):
    """Evaluate the deterministic policy every so often, note every training episode, stop at a goal or a time limit.

    :param env: environment of the evaluations
    :param settings: of the check
    :param name: of the run, in what is printed
    """

    def __init__(self, env: VecEnv, settings: dict[str, Any], name: str):
        super().__init__()
        self.env, self.settings, self.name = env, settings, name
        self.next_step = settings["eval_every"]
        self.evaluations: list[list[float]] = []
        self.training_episodes: list[list[float]] = []
        self.stopped = "all steps done"

    def _on_training_start(self) -> None:
        self.start = time.process_time()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.training_episodes.append([self.num_timesteps, float(info["episode"]["r"])])
        if self.settings["eval_every"] and self.num_timesteps >= self.next_step:
            self.next_step += self.settings["eval_every"]
            if self._reaches_goal() and self._reaches_goal():  # a second time on other episodes
                self.stopped = "goal reached"
                return False
        if time.process_time() - self.start > 60 * self.settings["minutes"]:
            self.stopped = "time limit"
            return False
        return True

    def _reaches_goal(self) -> bool:
        returns, _ = evaluate(self.model, self.env, self.settings["eval_episodes"])
        mean, std, goal = float(np.mean(returns)), float(np.std(returns)), self.settings["goal"]
        self.evaluations.append([self.num_timesteps, round(mean, 4), round(std, 4)])
        print(f"{self.name}, step {self.num_timesteps}: {mean:.1f} +- {std:.1f}", flush=True)
        return goal is not None and mean >= goal


def evaluate(model: Any, env: VecEnv, episodes: int) -> Any:
    """Return the returns and lengths of episodes of the deterministic policy."""
    return evaluate_policy(model, env, episodes, deterministic=True, return_episode_rewards=True)


def make_envs(settings: dict[str, Any], n: int, first_seed: int) -> Any:
    """Make monitored environments; wrappers lie outside the monitor, so that returns are the task's own.

    :param settings: of the check
    :param n: copies
    :param first_seed: of the first copy
    :raises UsageError: if ``env_wrapper`` is not plain YAML, or there is no such wrapper or environment
    """
    text = settings["env_wrapper"]
    try:
        wrappers = environments.find_wrappers(yaml.load(text, Loader=StrictLoader) if text else None)
    except yaml.YAMLError as error:
        raise UsageError(f"--env-wrapper {text!r} is not plain YAML: {one_line(error)}") from error
    wrap = functools.partial(environments.apply_wrappers, wrappers=wrappers)
    make = functools.partial(make_env, settings["env"], **settings["env_kwargs"])
    return make_vec_env(make, n, first_seed, wrapper_class=wrap)


def make_model(settings: dict[str, Any], env: Any, seed: int) -> Any:
    """Make the algorithm with its preset and parameters; ``lin_0.001`` is a schedule that falls to 0.

    :raises UsageError: for an unknown parameter, with the nearest known one, or a value of another type
    """
    cls = algorithm_class(settings["algo"].lower())
    preset = cls.presets[settings["preset"]] if settings["preset"] else {}
    values = to_constructor(check_values(preset | settings["params"], cls, "-params"), cls)
    policy = environments.choose_policy(settings["policy"] or "auto", env.observation_space)
    return cls(policy, env, seed=seed, device=settings["device"], **values)


def run_seed(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train one seed in one thread, evaluating on the way.

    :param settings: of the check
    :param seed: of the training; evaluations use environments seeded with ``10_000 + seed`` and up
    :return: evaluations ``[step, mean, std]``, training episodes ``[step, return]``, the final evaluation, the time
    """
    import torch as th

    th.set_num_threads(1)
    env = make_envs(settings, settings["n_envs"], seed)
    eval_env = make_envs(settings, max(1, min(settings["eval_episodes"], 10)), 10_000 + seed)  # side by side is faster
    model, check = make_model(settings, env, seed), Check(eval_env, settings, f"seed {seed}")
    start, cpu_start = time.perf_counter(), time.process_time()
    model.learn(settings["steps"], callback=check)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    returns, lengths = evaluate(model, eval_env, settings["final_episodes"])
    return {
        "seed": seed,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "train_seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "stopped": check.stopped,
        "final_returns": [round(float(value), 4) for value in returns],
        "final_lengths": [int(value) for value in lengths],
        "evaluations": check.evaluations,
        "episodes": check.training_episodes,
        "description": dict(model.describe()),
    }


def run_check(args: argparse.Namespace, command: str) -> bool:
    """Run the missing seeds, write file and plot, print a line per seed; whether every seed reached the goal."""
    algo = args.algo.lower().replace("_", "")
    algorithm_class(algo)  # refuses unknown names
    settings: dict[str, Any] = {"algo": CLASSES[algo]} | {name: getattr(args, name) for name in SETTINGS}
    name = args.name or f"{settings['algo']}_{args.env}".lower().replace("/", "_").replace(":", "_")
    path = Path(args.out) / f"{name}.json"
    results = read_results(path, settings)
    missing = [seed for seed in args.seeds if str(seed) not in results["runs"]]
    for run in train(settings, missing, args.jobs):
        results["runs"][str(run["seed"])] = run
        results["runs"] = dict(sorted(results["runs"].items(), key=lambda item: int(item[0])))
        store(path, results | {"command": command, "system": describe_system()})
    for seed in args.seeds:
        print_run(results["runs"][str(seed)])
    plot([path], Path(args.plot or f"docs/media/{name}.png"))
    finals = [fmean(results["runs"][str(seed)]["final_returns"]) for seed in args.seeds]
    return args.goal is None or min(finals) >= args.goal


def train(settings: dict[str, Any], seeds: Sequence[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Run the seeds, one after the other in this process or several at a time in others; results as they come."""
    if jobs <= 1:
        yield from (run_seed(settings, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_seed, settings, seed) for seed in seeds]):
            yield future.result()


def read_results(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read the stored results, or begin an empty set.

    :raises UsageError: if the file holds results of other settings
    """
    if not path.exists():
        return {"settings": settings, "runs": {}}
    stored: dict[str, Any] = json.loads(path.read_text())
    changed = [key for key, value in json.loads(json.dumps(settings)).items() if stored["settings"].get(key) != value]
    if changed:
        raise UsageError(f"{path} holds results with other {', '.join(changed)}: use another --name, or remove it")
    return stored


def store(path: Path, results: dict[str, Any]) -> None:
    """Write the results, whole or not at all."""
    with atomic_write(path) as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())


def print_run(run: dict[str, Any]) -> None:
    """Print a line for one seed."""
    returns, minutes = run["final_returns"], (run["cpu_seconds"] / 60, run["train_seconds"] / 60)
    print(
        f"seed {run['seed']}: {fmean(returns):.1f} (lowest {min(returns):.1f}, {len(returns)} episodes) after "
        f"{run['steps']:,} steps, {run['updates']:,} updates, {minutes[0]:.1f} min of one core "
        f"({minutes[1]:.1f} min on the clock), {run['stopped']}",
        flush=True,
    )


def plot(paths: Sequence[Path], target: Path) -> None:
    """Draw learning curves: every seed of one result file, or the mean of each of several files over its seeds.

    A run that has ended keeps its last value, so that a mean is always over all seeds.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    titles = set()
    for index, path in enumerate(paths):
        results = json.loads(path.read_text())
        titles.add(f"{results['settings']['algo']} on {results['settings']['env'].rpartition(':')[2]}")
        runs = list(results["runs"].values())
        points = [
            np.array([*([e[0], e[1]] for e in r["evaluations"]), [r["steps"], fmean(r["final_returns"])]]) for r in runs
        ]
        if len(paths) > 1:
            grid = np.linspace(max(p[0, 0] for p in points), max(p[-1, 0] for p in points), 200)
            curves = np.array([np.interp(grid, p[:, 0], p[:, 1]) for p in points])
            label = f"{path.stem.replace('_', ' ')} (mean of {len(runs)} seeds)"
            axes.plot(grid, curves.T, color=f"C{index}", alpha=0.3, linewidth=1)
            axes.plot(grid, curves.mean(0), color=f"C{index}", linewidth=2, label=label)
            continue
        for number, (run, evaluated) in enumerate(zip(runs, points, strict=True)):
            episodes = np.array(run["episodes"]).reshape(-1, 2)
            smooth = moving_average(episodes[:, 1], max(WINDOW, len(episodes) // 25))
            axes.plot(episodes[:, 0], smooth, color=f"C{number}", alpha=0.4, linewidth=1)
            axes.plot(*evaluated.T, color=f"C{number}", marker="o", markersize=3, label=f"seed {run['seed']}")
    goal = results["settings"]["goal"]
    if goal is not None:
        axes.axhline(goal, color="gray", linestyle=":", label=f"goal {goal:g}")
    axes.set(title=", ".join(sorted(titles)), xlabel="agent steps", ylabel="episode return")
    one = "points: evaluations\nthin: training, moving average"
    axes.legend(title=one if len(paths) == 1 else "evaluations; thin: single seeds", fontsize=8, title_fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pairs: dict[str, Any] = {"nargs": "*", "action": KeyValues, "default": {}, "metavar": "NAME:VALUE"}
    add = parser.add_argument
    add("--algo", default="DreamerV3", help="DreamerV2, DreamerV3, PlaNet")
    add("--env", default="CartPole-v1", help="any name that sb3_dreamer.wrappers.make_env knows")
    add("--env-kwargs", help="arguments of make_env", **pairs)
    add("--env-wrapper", metavar="YAML", help="path of a wrapper, or [{path: {argument: value}}], innermost first")
    add("--policy", help="MlpPolicy, CnnPolicy or MultiInputPolicy (default: by the observation)")
    add("--preset", help="named constructor arguments of the algorithm")
    add("-params", "--params", help="constructor arguments", **pairs)
    add("--seeds", nargs="+", type=int, default=[0])
    add("--steps", type=int, default=10_000, help="agent steps over all environments")
    add("--n-envs", type=int, default=1)
    add("--minutes", type=float, default=20.0, help="longest training of a seed, in minutes of one core")
    add("--goal", type=float, help="stop as soon as an evaluation, and then a second one, reaches this")
    add("--eval-every", type=int, default=1000, help="agent steps between evaluations; 0: none")
    add("--eval-episodes", type=int, default=5)
    add("--final-episodes", type=int, default=20)
    add("--device", default="cpu")
    add("--jobs", type=int, default=1, help="seeds that run at the same time, one thread each")
    add("--name", help="of the result file, without .json")
    add("--out", default="docs/results", help="folder of the result file")
    add("--plot", help="picture file (default: docs/media/NAME.png)")
    add("--compare", nargs="+", type=Path, help="only plot these result files, in one picture")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; 0 if every seed reached the goal."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(words)
    if args.compare:
        plot(args.compare, Path(args.plot or "docs/media/comparison.png"))
        return 0
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    return 0 if run_check(args, "python -m sb3_dreamer.zoo.studies.learning_check " + shlex.join(words)) else 1


if __name__ == "__main__":
    sys.exit(run_study(main))
