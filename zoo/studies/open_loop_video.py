"""Train for a while and show what the model expects: a video of real | model | error, errors per horizon as JSON.

::

    python -m sb3_dreamer.zoo.studies.open_loop_video --env atari:pong --frames 20000 --gif pong_open_loop.gif

prints errors for 1, 5, 15 and 45 steps ahead against repeating the last frame, and writes video and numbers.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.open_loop import horizon_table
from sb3_dreamer.dreamer_v3 import OpenLoopCallback
from sb3_dreamer.video import write_video
from sb3_dreamer.wrappers import make_env
from sb3_dreamer.zoo.config.arguments import KeyValues, output_file
from sb3_dreamer.zoo.config.environments import choose_policy
from sb3_dreamer.zoo.programs.cli import run_study


def run(args: argparse.Namespace) -> None:
    """Train, predict, write.

    :raises ValueError: if the environment shows no image
    """
    th.set_num_threads(args.threads)
    env = make_vec_env(lambda: make_env(args.env, **args.env_kwargs), n_envs=1, seed=args.seed)
    policy = choose_policy("auto", env.observation_space)
    model = DreamerV3(policy, env, model_size=args.size, seed=args.seed, device=args.device, verbose=1, **args.params)
    if not any(key.kind == "image" for key in model.policy.keys):
        env.close()
        raise ValueError(f"--env {args.env} has no image to show, only {env.observation_space}: choose one with images")
    steps = args.frames // args.frames_per_step
    look = OpenLoopCallback(max(1, steps - 1), shown=args.sequences, context=5, horizon=45)
    model.learn(steps, callback=look)
    errors = look.look()
    if not errors:
        raise ValueError(f"--frames {args.frames} is too few: replay holds no sequence to predict")
    write_video(args.gif, next(iter(look.videos.values())), fps=10)
    print(horizon_table(errors))
    numbers = {name: [round(float(value), 6) for value in values] for name, values in errors.items()}
    facts = {"env": args.env, "frames": args.frames, "updates": model._n_updates, "size": model.policy.size_name}
    args.gif.with_suffix(".json").write_text(json.dumps(facts | {"errors": numbers}, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pairs: dict[str, Any] = {"nargs": "*", "action": KeyValues, "default": {}, "metavar": "NAME:VALUE"}
    parser.add_argument("--env", default="atari:pong", help="any name with images that make_env knows")
    parser.add_argument("--env-kwargs", help="arguments of make_env", **pairs)
    parser.add_argument("--params", help="constructor arguments", **pairs)
    parser.add_argument("--size", default="XXS")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--frames-per-step", type=int, default=4, help="action repeat of the environment")
    parser.add_argument("--sequences", type=int, default=2, help="how many the video shows")
    parser.add_argument(
        "--gif", type=output_file, required=True, help="video to write; the numbers go beside it as .json"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    run(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
