"""Write and sample a replay of a million pixel steps on disk with little memory.

    python -m sb3_dreamer.zoo.studies.replay_disk_run --steps 1000000 --out docs/results/replay_disk.json

Run it under a memory limit that is smaller than the rows (12.3 GB for 64x64x3 images), for example in a control group,
to see that a replay need not fit into memory. ``--limit-gib`` is only written into the result.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium import spaces

import sb3_dreamer
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.programs.cli import run_study

EPISODE = 1000
SHAPE = (3, 64, 64)


def main(argv: Sequence[str] | None = None) -> int:
    """Write, sample, check and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="agent steps to store (default: 1,000,000)")
    parser.add_argument("--folder", default=None, help="where the rows go (default: a temporary folder)")
    parser.add_argument("--limit-gib", type=float, default=None, help="memory limit that this process runs under")
    parser.add_argument("--out", type=output_file, help="result file, JSON")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = run(args.steps, folder) | {"memory_limit_gib": args.limit_gib}
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        Path(args.out).write_text(text + "\n", encoding="utf-8")
    return 0


def run(steps: int, folder: str) -> dict[str, float | str]:
    """Fill a replay on disk and sample from all of it; every pixel of a row tells its number."""
    space = spaces.Box(0, 255, SHAPE, np.uint8)
    replay = SequenceReplayBuffer(steps + steps // EPISODE + 1, space, spaces.Discrete(2), replay_dir=folder, seed=0)
    start = time.perf_counter()
    for t in range(steps):
        obs, after = (np.full((1, *SHAPE), number % 251, np.uint8) for number in (t, t + 1))
        done = np.array([(t + 1) % EPISODE == 0])
        replay.add(obs, after, np.array([t % 2]), np.array([float(t)]), done, [{}])
    written = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(20):
        batch = replay.sample_sequences(16, 64)
        number = (batch.reward.numpy().astype(np.int64) + 1) % 251
        inside = ~batch.is_first.numpy()
        if not (batch.obs["obs"].numpy()[:, :, 0, 0, 0] == number)[inside].all():
            raise AssertionError("a sampled image is not the one that was stored")
    return {
        "version": sb3_dreamer.__version__,
        "steps": steps,
        "rows": replay.size(),
        "gib": replay.nbytes / 2**30,
        "seconds_writing": round(written, 1),
        "milliseconds_per_batch_of_16x64": round((time.perf_counter() - start) / 20 * 1000, 1),
        "largest_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    sys.exit(run_study(main))
