"""Measure memory, file handles and log sizes over a long run in a fast environment.

    python -m sb3_dreamer.zoo.studies.memory_run --steps 100000 --out memory.json --plot memory.png

A tiny model acts in an environment that costs nothing, with checkpoints, logs and an update now and then; everything
that is measured is the process's own.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

import sb3_dreamer
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.speed.case import SyntheticEnv


class Watch(BaseCallback):
    """Note memory and open files now and then.

    :param every: agent steps between two notes
    :param folder: whose files are measured
    """

    def __init__(self, every: int, folder: Path):
        super().__init__()
        self.every, self.folder, self.process = every, folder, psutil.Process()
        self.notes: list[dict[str, float]] = []
        self.begin = time.monotonic()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            info = self.process.memory_info()
            logs = sum(path.stat().st_size for path in (self.folder / "log").rglob("*") if path.is_file())
            self.notes.append(
                {
                    "step": self.num_timesteps,
                    "rss_mib": round(info.rss / 2**20, 1),
                    "files": self.process.num_fds(),
                    "threads": self.process.num_threads(),
                    "log_kib": round(logs / 1024, 1),
                    "replay_mib": round(self.model.replay_buffer.size() * 777 / 2**20, 1),  # type: ignore[attr-defined]
                    "seconds": round(time.monotonic() - self.begin, 1),
                }
            )
        return True


def main(words: Sequence[str] | None = None) -> int:
    """Run, and write what was measured.

    :return: 0 if memory and file handles did not grow once replay was full
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algo", default="DreamerV3")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=output_file)
    args = parser.parse_args(words)
    th.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        model = getattr(sb3_dreamer, args.algo)(
            "CnnPolicy",
            SyntheticEnv(spaces.Box(0, 255, (3, 16, 16), np.uint8), spaces.Discrete(3), length=100),
            model_size="debug",
            batch_size=2,
            batch_length=8,
            horizon=3,
            learning_starts=1000,
            buffer_size=args.steps // 5,
            train_ratio=16 / 25,
            seed=0,
        )
        model.set_logger(configure(str(folder / "log"), ["csv", "tensorboard"]))
        watch = Watch(args.steps // 100, folder)
        model.learn(args.steps, [watch, ResumableCheckpoint(folder / "c", args.steps // 10, keep=2)], log_interval=10)
    full = [note for note in watch.notes if note["step"] > 0.3 * args.steps]  # replay is full, one checkpoint written
    growth = full[-1]["rss_mib"] - full[0]["rss_mib"]
    handles = full[-1]["files"] - full[0]["files"]
    summary = {
        "algorithm": args.algo,
        "steps": args.steps,
        "updates": model._n_updates,
        "rss_mib_at_30_percent": full[0]["rss_mib"],
        "rss_mib_at_end": full[-1]["rss_mib"],
        "rss_growth_mib": round(growth, 1),
        "file_handle_growth": handles,
        "log_kib_at_end": full[-1]["log_kib"],
        "notes": watch.notes,
    }
    print(json.dumps({key: value for key, value in summary.items() if key != "notes"}, indent=1))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if args.plot is not None:
        draw(watch.notes, args.plot)
    return 0 if growth < 20 and handles <= 0 else 1


def draw(notes: list[dict[str, float]], path: Path) -> None:
    """Draw memory over steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3))
    steps = [note["step"] for note in notes]
    axes.plot(steps, [note["rss_mib"] for note in notes], label="process (RSS)")
    axes.plot(steps, [note["replay_mib"] for note in notes], label="replay")
    axes.set(xlabel="agent steps", ylabel="MiB", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    sys.exit(run_study(main))
