"""Kill training again and again, and show that nothing is lost.

    python -m sb3_dreamer.zoo.studies.kill_test --algo DreamerV3 --kills 50 --out kill_test.json

A tiny model learns CartPole with frequent checkpoints. Its process is killed with SIGKILL at random moments, half of
them while a checkpoint is being written, and each time a new process resumes from the newest checkpoint. At the end
weights, optimizers, replay, random states and logs must be those of the run that was never killed, bit for bit, and
every checkpoint that was there after a kill must be readable. Needs ``fork`` (Linux, macOS).
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

import sb3_dreamer
from sb3_dreamer.common.files.array_file import read_arrays
from sb3_dreamer.common.files.model_file import read_model
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.common.resume.folder import checkpoints
from sb3_dreamer.zoo.programs.cli import run_study

TINY: dict[str, Any] = {"model_size": "debug", "batch_size": 2, "batch_length": 8, "buffer_size": 300, "seed": 0}
IMAGINES = {"horizon": 3, "learning_starts": 20, "train_ratio": 4}
PLANS = {"seed_episodes": 2, "collect_interval": 4, "planning_horizon": 3, "planning_iterations": 2}
SETTINGS = {
    "DreamerV3": TINY | IMAGINES,
    "DreamerV2": TINY | IMAGINES,
    "PlaNet": TINY | PLANS | {"planning_candidates": 10, "planning_elites": 3},
}
CLOCK = ("time/fps", "time/time_elapsed", "train/plan_ms")


def train(folder: Path, args: argparse.Namespace) -> None:
    """Train to the end, from the newest checkpoint if there is one. Runs in a process of its own."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.logger import configure

    cls = getattr(sb3_dreamer, args.algo)
    env = make_vec_env("CartPole-v1", args.n_envs)
    disk = {"replay_buffer_kwargs": {"replay_dir": str(folder / "replay")}} if args.disk else {}
    if checkpoints(folder / "checkpoints"):
        model = cls.load_checkpoint(folder / "checkpoints", env=env, **disk)
    else:
        shutil.rmtree(folder / "replay", ignore_errors=True)  # of a run that died before its first checkpoint
        model = cls("MlpPolicy", env, **SETTINGS[args.algo], **disk)
    model.set_logger(configure(str(folder / "log"), ["csv"]))
    callback = ResumableCheckpoint(folder / "checkpoints", args.every, keep=2)
    model.learn(args.steps - model.num_timesteps, callback, log_interval=1, reset_num_timesteps=False)


def start(folder: Path, args: argparse.Namespace) -> Any:
    """Start a process that trains."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, args))
    process.start()
    return process


def hidden(folder: Path) -> set[str]:
    """Find names of checkpoints that are being written, or were when a process died."""
    root = folder / "checkpoints"
    return {path.name for path in root.glob(".checkpoint_*")}


def unreadable(folder: Path, kind: str) -> list[str]:
    """Find checkpoints that cannot be read whole, with the reason."""
    found = []
    for path in checkpoints(folder / "checkpoints"):
        try:
            read_model(path / "model.zip", kind=kind)
            file = read_model(path / "training.zip", kind=kind)
            if file.data["replay"] == "replay.safetensors":
                read_arrays(path / "replay.safetensors")
        except (OSError, ValueError) as error:
            found.append(f"{path.name}: {error}")
    return found


def final_state(folder: Path, kind: str) -> dict[str, bytes]:
    """Read everything in the last checkpoint and in the log that does not speak of the clock."""
    path = checkpoints(folder / "checkpoints")[-1]
    found: dict[str, Any] = {}
    for name in ("model.zip", "training.zip"):
        for part, tensors in read_model(path / name, kind=kind).tensors.items():
            if part != "logs":
                measured = {key: value for key, value in tensors.items() if f"train/{key}" not in CLOCK}
                found |= {f"{name} {part} {key}": value.numpy().tobytes() for key, value in measured.items()}
    if (path / "replay.safetensors").exists():
        found |= {
            f"replay {key}": value.tobytes() for key, value in read_arrays(path / "replay.safetensors")[0].items()
        }
    else:
        found |= replay_on_disk(read_model(path / "training.zip", kind=kind).data["replay"], folder / "replay")
    with open(folder / "log" / "progress.csv") as file:
        rows = [
            {key: value for key, value in row.items() if key not in CLOCK and value} for row in csv.DictReader(file)
        ]
    found["log"] = json.dumps(rows, sort_keys=True).encode()
    return found


def replay_on_disk(cursors: dict[str, Any], folder: Path) -> dict[str, bytes]:
    """Read the rows of a replay folder that count."""
    layout = json.loads((folder / "journal.json").read_text())["layout"]
    found = {"replay cursors": json.dumps({key: cursors[key] for key in ("cursor", "filled", "random")}).encode()}
    for index, (name, (dtype, shape)) in enumerate(layout.items()):
        rows = np.memmap(
            folder / f"rows_{index:02d}.bin", dtype, "r", shape=(cursors["n_envs"], cursors["ring"], *shape)
        )
        for env, (cursor, filled) in enumerate(zip(cursors["cursor"], cursors["filled"], strict=True)):
            found[f"replay {name} {env}"] = rows[env, (cursor - filled + np.arange(filled)) % cursors["ring"]].tobytes()
    return found


class Killer:
    """Train in one folder after another, killing, until there were enough kills.

    :param root: where the folders go
    :param args: flags
    :param interval: seconds between two checkpoints of the run that was not killed
    """

    def __init__(self, root: Path, args: argparse.Namespace, interval: float):
        self.root, self.args, self.interval = root, args, interval
        self.rng = random.Random(args.seed)
        self.kills = self.while_writing = 0
        self.bad: list[str] = []

    def run_once(self, folder: Path) -> None:
        """Do one run to its end, killed until the kills are spent."""
        while True:
            left = hidden(folder)
            process = start(folder, self.args)
            if self.kills >= self.args.kills:
                process.join()
            else:
                self._wait(folder, process, left)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                self.kills += 1
                self.while_writing += bool(hidden(folder) - left)
                self.bad += unreadable(folder, self.args.algo)
            elif process.exitcode == 0:
                return
            else:
                raise RuntimeError(f"training ended with status {process.exitcode} after {self.kills} kills")

    def _wait(self, folder: Path, process: Any, left: set[str]) -> None:
        """Wait for a random while, then, for every second kill, for a checkpoint that is being written."""
        end = time.monotonic() + self.rng.random() * 2 * self.interval
        while process.is_alive() and time.monotonic() < end:
            time.sleep(0.001)
        if self.kills % 2:
            end = time.monotonic() + 20 * self.interval
            while process.is_alive() and time.monotonic() < end and not hidden(folder) - left:
                time.sleep(0.0002)
            time.sleep(self.rng.random() * 0.02)


def main(words: Sequence[str] | None = None) -> int:
    """Run the test and print its summary.

    :return: 0 if nothing was lost
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algo", default="DreamerV3", choices=sorted(SETTINGS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400, help="agent steps of the run")
    parser.add_argument("--every", type=int, default=10, help="agent steps between checkpoints")
    parser.add_argument("--n-envs", type=int, default=1)
    parser.add_argument("--disk", action="store_true", help="keep replay on disk")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    parser.add_argument("--out", type=Path, help="JSON file for the summary")
    args = parser.parse_args(words)
    th.set_num_threads(1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        whole = Path(root) / "whole"
        process = start(whole, args)
        process.join()
        if process.exitcode:
            raise RuntimeError("the run that is not killed has failed")
        killer = Killer(Path(root), args, (time.monotonic() - begin) * args.every / args.steps)
        expected, runs, different = final_state(whole, args.algo), 0, set()
        while killer.kills < args.kills:
            runs += 1
            killer.run_once(Path(root) / str(runs))
            found = final_state(Path(root) / str(runs), args.algo)
            names = found.keys() | expected.keys()
            different |= {name for name in names if found.get(name) != expected.get(name)}
    summary = {
        "algorithm": args.algo,
        "environments": args.n_envs,
        "replay": "disk" if args.disk else "memory",
        "steps": args.steps,
        "checkpoint_every": args.every,
        "runs": runs,
        "kills": killer.kills,
        "kills_while_writing_a_checkpoint": killer.while_writing,
        "unreadable_checkpoints": killer.bad,
        "compared": len(expected),
        "different": sorted(different),
        "seconds": round(time.monotonic() - begin, 1),
    }
    print(json.dumps(summary, indent=1))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 1 if different or killer.bad else 0


if __name__ == "__main__":
    sys.exit(run_study(main))
