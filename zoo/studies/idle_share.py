"""Measure how long the learner waits for environments while it learns Atari with ``overlap=True``.

    python -m sb3_dreamer.zoo.studies.idle_share --out docs/results/speed_idle.json

Idle is the time in which the process that learns waits for steps that are under way (``step_wait``) or for nothing at
all; acting, storing, sampling and updates are work. ``--update-ms`` puts a wait of that length in the place of every
update: what the loop would do beside a GPU whose update takes as long.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_dreamer import DreamerV3
from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.config.environments import make_envs
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.speed.report import header, write_json


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="atari:pong", help="(default: %(default)s)")
    parser.add_argument("--n-envs", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--size", default="debug", help="model size (default: %(default)s)")
    parser.add_argument("--train-ratio", type=float, default=64.0, help="(default: %(default)s)")
    parser.add_argument("--updates", type=int, default=20, help="measured updates (default: %(default)s)")
    parser.add_argument("--update-ms", type=float, help="wait so long instead of updating")
    parser.add_argument("--seconds", type=float, default=60.0, help="measure no longer (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=output_file, help="JSON file")
    return parser


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Fill replay, then learn and see where the time goes.

    :param args: flags
    :return: plain values, times in seconds
    """
    env = make_envs(args.env, args.n_envs, 0, vec_env="subproc")
    model = DreamerV3(
        "CnnPolicy",
        env,
        model_size=args.size,
        learning_starts=1024,
        buffer_size=20_000,
        train_ratio=args.train_ratio,
        overlap=True,
        seed=0,
        device=args.device,
    )
    if args.update_ms is not None:
        metrics = model.update(_filled(model))

        def wait(batch: Any) -> dict[str, th.Tensor]:
            time.sleep(args.update_ms / 1000.0)
            return metrics

        model.update = wait  # type: ignore[method-assign]
    end = time.monotonic() + 2 * args.seconds
    per_update = model.batch_size * model.batch_length / args.train_ratio
    counts = {"updates": 0, "begin": 0.0, "steps": 0}

    def stop(local_values: dict[str, Any], global_values: dict[str, Any]) -> bool:
        forecast = model._forecast
        if forecast.updates >= 1 and not counts["begin"]:
            counts.update(begin=time.monotonic(), steps=model.num_timesteps)
        late = counts["begin"] and time.monotonic() - counts["begin"] > args.seconds
        return forecast.updates <= args.updates and not late and time.monotonic() < end

    model.learn(int(2048 + 2 * args.updates * per_update), callback=stop, log_interval=10**9)
    forecast = model._forecast
    wall = time.perf_counter() - forecast.first_time
    parts = {"updates": forecast.update_seconds, **forecast.parts}
    env.close()
    return {
        "env": args.env,
        "n_envs": args.n_envs,
        "size": args.size,
        "train_ratio": args.train_ratio,
        "batch": [model.batch_size, model.batch_length],
        "update": "wait" if args.update_ms is not None else "real",
        "updates": forecast.updates - 1,
        "update_seconds": forecast.update_seconds / max(1, forecast.updates - 1),
        "wall_seconds": wall,
        "steps": model.num_timesteps - forecast.first_steps,
        "parts": parts | {"the rest": max(0.0, wall - sum(parts.values()))},
        "idle_share": parts.get("environments", 0.0) / wall,
    }


def _filled(model: DreamerV3) -> Any:
    """Draw an empty batch, so that the metrics of an update are known before the first one."""
    replay = model.replay_buffer
    shape = (replay.n_envs, *(model.observation_space.shape or ()))
    obs, actions = np.zeros(shape, np.uint8), np.zeros((replay.n_envs, 1), np.int64)
    rewards, ends = np.zeros(replay.n_envs, np.float32), np.zeros(replay.n_envs, bool)
    for _ in range(model.batch_length + 1):
        replay.add(obs, obs, actions, rewards, ends, [{}] * replay.n_envs)
    batch = replay.sample_sequences(2, 4)
    replay.reset()
    return batch


def main(words: Sequence[str]) -> int:
    """Measure, print and write.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    th.set_num_threads(1)
    result = measure(args)
    print(
        f"{result['updates']} updates of {1000 * result['update_seconds']:.0f} ms ({result['update']}) in "
        f"{result['wall_seconds']:.1f} s: the learner waited {result['idle_share']:.1%} of the time"
    )
    if args.out:
        command = shlex.join(["python", "-m", "sb3_dreamer.zoo.studies.idle_share", *words])
        head = header(command, seed=0, threads=1)
        write_json(args.out, {**head, "results": [result]})
    return 0


if __name__ == "__main__":
    sys.exit(run_study(lambda: main(sys.argv[1:])))
