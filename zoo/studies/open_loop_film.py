"""Train for a while and film what the model expects: real | model | error, with the errors per horizon as JSON.

::

    python -m sb3_dreamer.zoo.studies.open_loop_film --env atari:pong --frames 20000 --gif docs/media/pong_open_loop.gif

prints errors for 1, 5, 15 and 45 steps ahead against repeating the last frame, and writes film and numbers.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def film(args: argparse.Namespace) -> None:
    """Train, predict, write."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    import torch as th
    from stable_baselines3.common.callbacks import CallbackList
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_dreamer import DreamerV3
    from sb3_dreamer.dreamer_v3 import OpenLoopCallback
    from sb3_dreamer.dreamer_v3.open_loop import horizon_table
    from sb3_dreamer.video import write_video
    from sb3_dreamer.wrappers import make_env
    from sb3_dreamer.zoo.studies.learning_check import parse_pairs, policy_for

    th.set_num_threads(args.threads)
    env = make_vec_env(lambda: make_env(args.env, **parse_pairs(args.env_kwargs)), n_envs=1, seed=args.seed)
    model = DreamerV3(
        policy_for(env.observation_space),
        env,
        model_size=args.size,
        seed=args.seed,
        device=args.device,
        verbose=1,
        **parse_pairs(args.params),
    )
    steps = args.frames // args.frames_per_step
    look = OpenLoopCallback(max(1, steps - 1), shown=args.sequences, context=5, horizon=45)
    model.learn(steps, callback=CallbackList([look]))
    errors = look.look()
    write_video(Path(args.gif), next(iter(look.videos.values())), fps=10)
    print(horizon_table(errors))
    numbers = {name: [round(float(value), 6) for value in values] for name, values in errors.items()}
    facts = {"env": args.env, "frames": args.frames, "updates": model._n_updates, "size": model.policy.size_name}
    Path(args.gif).with_suffix(".json").write_text(json.dumps(facts | {"errors": numbers}, indent=1) + "\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="atari:pong", help="any name that make_env knows")
    parser.add_argument("--env-kwargs", nargs="*", default=[], metavar="NAME:VALUE")
    parser.add_argument("--params", nargs="*", default=[], metavar="NAME:VALUE", help="constructor arguments")
    parser.add_argument("--size", default="XXS")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--frames-per-step", type=int, default=4, help="action repeat of the environment")
    parser.add_argument("--sequences", type=int, default=2, help="how many are filmed")
    parser.add_argument("--gif", required=True, help="film to write; the numbers go beside it as .json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    film(make_parser().parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
