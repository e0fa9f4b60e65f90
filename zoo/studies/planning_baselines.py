"""PlaNet and the baselines of its paper (Figure 4, Table 1), one command each.

::

    python -m sb3_dreamer.zoo.studies.planning_baselines planet --env pendulum --seed 0
    python -m sb3_dreamer.zoo.studies.planning_baselines random-shooting --env pendulum --seed 0
    python -m sb3_dreamer.zoo.studies.planning_baselines random-collection --env pendulum --seed 0
    python -m sb3_dreamer.zoo.studies.planning_baselines simulator --env planet:cartpole_swingup --seed 0
    python -m sb3_dreamer.zoo.studies.planning_baselines speed --device cuda

A learning run writes ``episodes.csv`` (one row for each training episode), a checkpoint every ``--save-every`` episodes
and ``result.json`` (episodes without exploration after training, planned by CEM, by random shooting with the same model
and the same number of sequences, and by chance) to ``--out``; started again with the same arguments it resumes from the
last checkpoint. ``planet_figures`` draws the curves.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch.utils.flop_counter import FlopCounterMode

from sb3_dreamer import PlaNet
from sb3_dreamer.common.files.atomic import atomic_path
from sb3_dreamer.core.behavior import Behavior, RandomBehavior
from sb3_dreamer.core.planner import CEMPlanner, random_shooting
from sb3_dreamer.core.types import ActionLayout, LatentState, ObsKey
from sb3_dreamer.planet.networks import build_world_model
from sb3_dreamer.planet.spec import SIZES
from sb3_dreamer.wrappers import make_env
from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.studies import true_simulator

ENVS: dict[str, tuple[str, dict[str, Any]]] = {
    "pendulum": ("Pendulum-v1", {"action_repeat": 2}),
    "pendulum_slow": ("Pendulum-v1", {"action_repeat": 4}),
    "cartpole_balance": ("planet:cartpole_balance", {"pixels": None, "flatten": True}),
    "cartpole_swingup": ("planet:cartpole_swingup", {"pixels": None, "flatten": True}),
    "cartpole_balance_pixels": ("planet:cartpole_balance", {}),
}
#: Sizes and budgets that learn these state tasks in minutes on one CPU thread; the paper's are the class's defaults.
#: The paper's loss is made for images: three numbers weigh little against 3 free nats and a KL of full weight.
SMALL: dict[str, Any] = {
    "model_size": "small",
    "policy_kwargs": {"deter": 128, "units": 128, "net_arch": [128, 128], "act": "elu"},
    "kl_scale": 0.1,
    "free_nats": 0.0,
    "batch_size": 40,
    "batch_length": 12,
    "planning_iterations": 4,
    "planning_candidates": 100,
    "planning_elites": 10,
    "buffer_size": 100_000,
}
PIXELS: dict[str, Any] = SMALL | {
    "policy_kwargs": {"deter": 100, "units": 100, "net_arch": [100, 100], "cnn_depth": 12},
    "kl_scale": 1.0,
    "free_nats": 3.0,
    "batch_size": 10,
    "batch_length": 20,
    "collect_interval": 40,
    "buffer_size": 10_000,
}


class EpisodeLog(BaseCallback):
    """Write a row for each finished episode, save checkpoints, and stop after the last episode.

    :param folder: where files go
    :param episodes: number of episodes of the run
    :param save_every: episodes between two checkpoints
    """

    FIELDS = ("episode", "steps", "updates", "return", "length", "seconds", "loss_model", "loss_recon", "loss_reward")

    def __init__(self, folder: Path, episodes: int, save_every: int):
        super().__init__()
        self.folder, self.episodes, self.save_every = folder, episodes, save_every
        self.file = folder / "episodes.csv"
        self.rows = read_rows(self.file)
        self.earlier = 0.0
        self.losses: dict[str, float] = {}

    def _on_training_start(self) -> None:
        self.rows = [row for row in self.rows if int(row["steps"]) <= self.model.num_timesteps]
        self.earlier = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self.began = time.time()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._finished(info["episode"])
        return len(self.rows) < self.episodes

    def _finished(self, episode: dict[str, float]) -> None:
        model = self.model
        assert isinstance(model, PlaNet)
        metrics = model._metrics
        for name, total in metrics.sums.items():
            self.losses[name] = float(total) / metrics.counts[name]
        recon = [value for name, value in self.losses.items() if name.startswith("loss_recon")]
        values = (
            *(len(self.rows) + 1, model.num_timesteps, model._n_updates, episode["r"], episode["l"]),
            round(self.earlier + time.time() - self.began, 1),
            *(self.losses.get("model_loss", ""), sum(recon) if recon else "", self.losses.get("loss_reward", "")),
        )
        self.rows.append(dict(zip(self.FIELDS, map(str, values), strict=True)))
        write_rows(self.file, self.FIELDS, self.rows)

    def _on_rollout_start(self) -> None:
        # Between two rollouts the updates of finished episodes are done: a checkpoint holds them.
        if self.rows and len(self.rows) // self.save_every > getattr(self, "saved", 0):
            self.saved = len(self.rows) // self.save_every
            save(self.model, self.folder)


def read_rows(file: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; none if there is no file."""
    return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []


def write_rows(file: Path, fields: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic_path(file) as part, part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def save(model: Any, folder: Path) -> None:
    """Save replay first, the model last: where a model is, there is a replay that is at least as new."""
    model.save_replay_buffer(folder / "replay.safetensors")
    model.save(folder / "model.zip")


class Planned:
    """A model that acts with another planner, for ``evaluate_policy``."""

    def __init__(self, model: PlaNet, planner: Behavior | None):
        self.model, self.planner = model, planner

    def predict(self, obs: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """Act as ``model.predict``."""
        return self.model.predict(obs, state, episode_start, deterministic, planner=self.planner)


def evaluate(model: PlaNet, env: Any, episodes: int) -> dict[str, list[float]]:
    """Play episodes: by CEM (fixed and fresh candidates), random shooting with as many sequences, and chance."""
    layout = model.policy.codec.layout
    sequences = model.planning_iterations * model.planning_candidates
    shooting = random_shooting(layout, candidates=sequences, horizon=model.planning_horizon)
    own = "cem" if model.planning_iterations > 1 else "random_shooting"
    actors: dict[str, tuple[Behavior | None, bool]] = {own: (None, True), f"{own}_sampled": (None, False)}
    if own == "cem":
        actors["random_shooting"] = (shooting, True)
    actors["random"] = (RandomBehavior(layout), False)
    results = {}
    for name, (planner, deterministic) in actors.items():
        env.seed(1000)
        rewards, _ = evaluate_policy(
            Planned(model, planner), env, episodes, deterministic=deterministic, return_episode_rewards=True
        )
        results[name] = [float(r) for r in rewards]  # type: ignore[union-attr]
        print(f"{name:16s} {np.mean(results[name]):9.1f} +- {np.std(results[name]):.1f}", flush=True)
    return results


def build(args: argparse.Namespace, env: Any) -> PlaNet:
    """Make the model of a run: it resumes from its checkpoint, or starts."""
    if (args.out / "model.zip").exists():
        model = PlaNet.load(args.out / "model.zip", env=env, device=args.device)
        model.load_replay_buffer(args.out / "replay.safetensors")
        print(f"resumes at step {model.num_timesteps}")
        return model
    pixels = args.env.endswith("_pixels")
    settings = {} if args.paper_size else dict(PIXELS if pixels else SMALL)
    if args.command == "random-shooting":
        sequences = settings.get("planning_iterations", 10) * settings.get("planning_candidates", 1000)
        settings |= {"planning_iterations": 1, "planning_candidates": sequences, "planning_elites": 1}
    if args.command == "random-collection":
        settings |= {"collection": "random"}
    settings |= json.loads(args.set)
    return PlaNet("CnnPolicy" if pixels else "MlpPolicy", env, seed=args.seed, device=args.device, **settings)


def train(args: argparse.Namespace) -> None:
    """Do one learning run and its evaluation."""
    name, kwargs = ENVS.get(args.env, (args.env, {}))
    args.out = Path(args.out or f"runs/{args.command}_{args.env}_s{args.seed}".replace(":", "_"))
    args.out.mkdir(parents=True, exist_ok=True)
    env = make_vec_env(lambda: make_env(name, **kwargs), args.n_envs, seed=args.seed)
    model = build(args, env)
    for row in model.describe():
        print("{:20s} {}".format(*row))
    log = EpisodeLog(args.out, args.episodes, args.save_every)
    if len(log.rows) < args.episodes or model.num_timesteps < int(log.rows[-1]["steps"]):
        model.learn(10**9, callback=log, log_interval=10**9, reset_num_timesteps=model.num_timesteps == 0)
        save(model, args.out)
    results = evaluate(model, env, args.eval_episodes)
    plan_ms = log.losses.get("plan_ms")
    record = {"command": args.command, "env": args.env, "seed": args.seed, "episodes": len(log.rows)}
    record |= {"steps": model.num_timesteps, "updates": model._n_updates, "plan_ms": plan_ms, "returns": results}
    (args.out / "result.json").write_text(json.dumps(record, indent=1) + "\n")


def time_planning(args: argparse.Namespace) -> None:
    """Measure one planning call; the fastest is the one that others on the machine disturbed least."""
    device = th.device(args.device)
    layout = ActionLayout("continuous", (args.actions,))
    spec = SIZES["paper"]
    model = build_world_model(spec, (ObsKey("obs", "image", (3, 64, 64)),), layout).to(device).eval()
    planner = CEMPlanner(layout, mixed_precision=args.bf16)
    state = LatentState(th.zeros(args.envs, spec.deter, device=device), th.zeros(args.envs, spec.stoch, device=device))

    def plan() -> float:
        start, cpu = time.perf_counter(), time.process_time()
        planner.act(model, state).cpu()
        spent.append(time.process_time() - cpu)
        return time.perf_counter() - start

    spent: list[float] = []
    with FlopCounterMode(display=False) as counter:
        plan()
    spent.clear()
    seconds = [plan() for _ in range(args.repeats)]
    record = {
        "device": th.cuda.get_device_name() if device.type == "cuda" else f"cpu, {th.get_num_threads()} thread(s)",
        "envs": args.envs,
        "bf16": args.bf16,
        "gflop": round(counter.get_total_flops() / 1e9, 1),
        "seconds_best": round(min(seconds), 4),
        "seconds_median": round(float(np.median(seconds)), 4),
        "cpu_seconds_best": round(min(spent), 4),
    }
    print(json.dumps(record))
    if args.out:
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")


def simulate(args: argparse.Namespace) -> None:
    """Plan with CEM on the true simulator."""
    states: dict[str, Any] = {"pixels": None, "flatten": True} if args.env.startswith("planet:") else {}
    name, kwargs = ENVS.get(args.env, (args.env, states))
    true_simulator.run(args, make_env(name, **kwargs))


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    for name in ("planet", "random-shooting", "random-collection"):
        sub = commands.add_parser(name, help=f"learning run: {name}")
        sub.add_argument("--env", default="pendulum", help=f"{', '.join(ENVS)}, or any name that make_env knows")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--episodes", type=int, default=40, help="training episodes, the random ones included")
        sub.add_argument("--n-envs", type=int, default=4)
        sub.add_argument("--eval-episodes", type=int, default=10)
        sub.add_argument("--save-every", type=int, default=8, help="episodes between two checkpoints")
        sub.add_argument("--paper-size", action="store_true", help="the paper's networks and budgets (for a GPU)")
        sub.add_argument("--set", default="{}", help="further arguments of PlaNet as JSON: '{\"free_nats\": 1.0}'")
        sub.add_argument("--out", help="folder of the run")
        sub.add_argument("--device", default="auto")
        sub.set_defaults(run=train, threads=1)
    sub = commands.add_parser("simulator", help="CEM on the true simulator")
    true_simulator.add_arguments(sub)
    sub.set_defaults(run=simulate)
    sub = commands.add_parser("speed", help="time and FLOPs of one planning call")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--threads", type=int, default=2)
    sub.add_argument("--envs", type=int, default=1, help="environments planned for in the one call")
    sub.add_argument("--repeats", type=int, default=5)
    sub.add_argument("--actions", type=int, default=6, help="width of the action (cheetah: 6)")
    sub.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    sub.add_argument("--out", type=output_file, help="JSON file")
    sub.set_defaults(run=time_planning)
    return top


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    args = make_parser().parse_args(argv)
    th.set_num_threads(args.threads)
    args.run(args)


if __name__ == "__main__":
    sys.exit(run_study(main))
