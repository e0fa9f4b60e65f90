"""DreamerV3 2024 on DMC proprio tasks beside the published curves: one command per task and seed, resumable.

::

    python -m sb3_dreamer.zoo.studies.dmc_proprio_study run --task cartpole_balance --seed 0 --frames 50000
    python -m sb3_dreamer.zoo.studies.dmc_proprio_study plot --scores dmc_proprio-dreamerv3.json.gz

``run`` trains size ``1m`` as the authors' code of 2024 does (train ratio 1024, no action repeat, 16 environments: an
update at every environment frame) and goes on from its last checkpoint if there is one. Called again with more
``--frames`` it trains further. ``--action-repeat 2 --train-ratio 512 --n-envs 4`` is Table A.1 of arXiv 2301.04104v1,
with a quarter of the updates. ``--device cuda`` is for walker_walk and cheetah_run.

``plot`` draws all runs inside the range of the published seeds, prints scores at 20,000 and 50,000 frames and writes
them with every episode to a JSON file. The published file is ``scores/dmc_proprio-dreamerv3.json.gz`` of
github.com/danijar/dreamerv3. Our score is the mean return of the training episodes that ended in the last 10,000
frames, which is the distance of the published points.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.studies.dmc_proprio_figures import plot

PROTOCOL = ("action_repeat", "train_ratio", "n_envs")
SETTINGS: dict[str, Any] = {"model_size": "1m", "batch_size": 16, "batch_length": 64, "learning_starts": 1024}


def run(args: argparse.Namespace) -> None:
    """Train one seed of one task, from its checkpoint on."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    os.environ.setdefault("MUJOCO_GL", "disable")
    import torch as th
    from stable_baselines3.common.callbacks import CallbackList
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_dreamer import DreamerV3
    from sb3_dreamer.wrappers import make_env

    th.set_num_threads(args.threads)
    folder = Path(args.out) / f"{args.task}_{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"dmc_proprio:{args.task}"
    protocol = {name: getattr(args, name) for name in PROTOCOL}
    check_protocol(folder / "protocol.json", protocol)
    settings = {"preset": "dreamerv3-2024", "action_repeat": args.action_repeat}
    env = make_vec_env(lambda: make_env(name, **settings), n_envs=args.n_envs, seed=args.seed)
    model_file, replay_file = folder / "model.zip", folder / "replay"
    if model_file.exists():
        # A run that goes on gets new episodes, hence another seed for its environments.
        model = DreamerV3.load(model_file, env=env, device=args.device)
        model.load_replay_buffer(replay_file, truncate_last_traj=True)
        print(f"{name}, seed {args.seed}: goes on at {model.num_timesteps:,} agent steps", flush=True)
    else:
        choices: dict[str, Any] = SETTINGS | {"train_ratio": args.train_ratio, "buffer_size": args.buffer_size}
        model = DreamerV3("MultiInputPolicy", env, seed=args.seed, device=args.device, **choices)
    episodes = EpisodeLog(folder, args.action_repeat, args.save_every, model_file, replay_file)
    left = -(-args.frames // args.action_repeat) - model.num_timesteps
    if left > 0:
        model.learn(left, callback=CallbackList([episodes.callback()]), reset_num_timesteps=model.num_timesteps == 0)
        episodes.save(model)


def check_protocol(path: Path, protocol: dict[str, Any]) -> None:
    """Keep what the run began with; a run cannot go on with other settings.

    :raises ValueError: if the folder's run has others, which it names
    """
    if not path.exists():
        path.write_text(json.dumps(protocol) + "\n")
    elif (begun := json.loads(path.read_text())) != protocol:
        raise ValueError(f"{path.parent} holds a run with {begun}, not {protocol}: take its settings or another --out.")


class EpisodeLog:
    """Writes each training episode as a line, and model and replay every so often.

    :param folder: of the run
    :param repeat: environment frames per agent step
    :param save_every: agent steps between two checkpoints
    :param model_file: where the model goes
    :param replay_file: where its replay goes
    """

    def __init__(self, folder: Path, repeat: int, save_every: int, model_file: Path, replay_file: Path):
        self.path = folder / "episodes.jsonl"
        self.repeat = repeat
        self.save_every = save_every
        self.files = (model_file, replay_file)
        self.next_save: int | None = None
        self.start = time.time()

    def callback(self) -> Any:
        """For ``learn``."""
        from stable_baselines3.common.callbacks import ConvertCallback

        return ConvertCallback(self.step)

    def step(self, values: dict[str, Any], _: dict[str, Any]) -> bool:
        """After each environment step."""
        model = values["self"]
        for info in values["infos"]:
            if "episode" in info:
                frames, updates = model.num_timesteps * self.repeat, model._n_updates
                line = {"frames": frames, "return": float(info["episode"]["r"]), "updates": updates}
                with self.path.open("a") as file:
                    file.write(json.dumps(line | {"seconds": round(time.time() - self.start, 1)}) + "\n")
        self.next_save = self.next_save or model.num_timesteps + self.save_every
        if model.num_timesteps >= self.next_save:
            self.next_save += self.save_every
            self.save(model)
        return True

    def save(self, model: Any) -> None:
        """Model last, so that it never speaks of a replay that is not there."""
        model.save_replay_buffer(self.files[1])
        model.save(self.files[0])


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("run", help="train one task, from its checkpoint on")
    train.add_argument("--task", required=True, help="cartpole_balance, reacher_easy, walker_walk, ...")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--frames", type=int, default=50_000, help="environment frames in all")
    train.add_argument("--action-repeat", type=int, default=1, help="environment frames per agent step")
    train.add_argument("--train-ratio", type=int, default=1024, help="replayed steps per agent step")
    train.add_argument("--n-envs", type=int, default=16)
    train.add_argument("--buffer-size", type=int, default=500_000)
    train.add_argument("--save-every", type=int, default=1_000, help="agent steps between checkpoints")
    train.add_argument("--device", default="auto")
    train.add_argument("--threads", type=int, default=1)
    train.set_defaults(command=run)
    draw = commands.add_parser("plot", help="draw all runs inside the published range")
    draw.add_argument("--scores", required=True, help="dmc_proprio-dreamerv3.json.gz")
    draw.add_argument("--picture", default="docs/media/dmc_proprio.png")
    draw.add_argument("--json", default="docs/results/dmc_proprio.json")
    draw.set_defaults(command=plot)
    for command in (train, draw):
        command.add_argument("--out", default="runs/dmc_proprio", help="folder of the runs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = make_parser().parse_args(argv)
    args.command(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
