"""Tell what a run will cost, before it starts and after its first updates, and average what its updates measured."""

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch as th
from torch import nn

from sb3_dreamer.common import distributed
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.replay.storage import MemoryRows
from sb3_dreamer.common.spaces import space_dict
from sb3_dreamer.core.types import SequenceBatch

MEMORY_SHARE = 0.8  #: replay may take this share of the memory at most
FORECAST_AFTER = 50  #: updates before the time forecast, the first of which is not counted
TRIAL_SECONDS = 1.0  #: a trial update that takes longer is not followed by a larger one


def parameter_count(module: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def network_rows(policy: WorldModelPolicy) -> list[tuple[str, str]]:
    """Describe what is observed, done and learned, as rows of a table."""
    rows, decoded = [], "" if policy.world_model.decoder is None else ", reconstructed"
    for key in policy.keys:
        network = {"image": "CNN", "vector": "MLP", "discrete": "one-hot, MLP"}[key.kind]
        shape = "x".join(map(str, key.shape)) or "1"
        detail = f"{shape} {key.kind}" + (f" of {', '.join(map(str, key.classes))}" if key.classes else "")
        rows.append((f"observation {key.name}", f"{detail} -> {network}{decoded}"))
    rows += [(f"observation {name}", "ignored") for name in policy.ignore_keys]
    layout = policy.codec.layout
    rows.append(("action", f"{layout.kind}, {' + '.join(map(str, layout.sizes))}"))
    world, rest = parameter_count(policy.world_model), parameter_count(policy.behavior)
    rows.append(("parameters", f"{world + rest:,} (world model {world:,}, behavior {rest:,})"))
    return rows


def ratio_text(per_step: float) -> str:
    """Updates per agent step in words.

    :param per_step: updates per agent step
    """
    if per_step >= 1:
        return f"{per_step:.3g} per agent step"
    return f"1 every {1 / per_step:.4g} agent steps" if per_step else "none"


def replay_text(replay: SequenceReplayBuffer) -> str:
    """Rows and size of a full replay buffer, beside the memory of the machine."""
    rows, size = f"{replay.buffer_size * replay.n_envs:,} steps", size_text(replay.nbytes)
    if replay.on_disk:
        return f"{rows} on disk = {size} when full"
    return f"{rows} = {size} when full, of {memory_limit() / 2**30:.1f} GiB memory"


def size_text(n_bytes: float) -> str:
    """Bytes in words: ``300 KiB``, ``42 MiB``, ``1.25 GiB``."""
    if n_bytes >= 2**30:
        return f"{n_bytes / 2**30:.2f} GiB"
    return f"{n_bytes / 2**20:.0f} MiB" if n_bytes >= 10 * 2**20 else f"{n_bytes / 2**10:,.0f} KiB"


def memory_limit() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):
            continue
    return min(limits, default=2**63)


def check_memory(replay: SequenceReplayBuffer, steps: int) -> None:
    """Refuse a run whose replay would not fit, before it starts.

    :param steps: agent steps that the run adds; rows that it cannot fill are not counted
    :raises MemoryError: with the size and the ways out
    :raises OSError: if the rows are kept on disk, and do not fit there
    """
    rows = replay.buffer_size * replay.n_envs
    # An episode adds one row to its steps: with one-step episodes there are two rows for each step.
    needed = replay.nbytes * min(rows, replay.size() + 2 * steps) / rows
    if replay.on_disk:
        needed -= replay.nbytes * replay.size() / rows
        if needed > replay.free_space():
            raise OSError(
                f"replay of this run takes up to {needed / 2**30:.1f} GiB more on disk, and replay_dir has "
                f"{replay.free_space() / 2**30:.1f} GiB left: lower buffer_size={rows:,}, or name another replay_dir"
            )
        return
    limit = memory_limit() // distributed.local_world_size()
    if needed > MEMORY_SHARE * limit:
        raise MemoryError(
            f"replay of this run takes up to {needed / 2**30:.1f} GiB, more than {MEMORY_SHARE:.0%} of "
            f"{limit / 2**30:.1f} GiB memory: lower buffer_size={rows:,}, store smaller or gray images, "
            "keep it on disk (replay_buffer_kwargs={'replay_dir': ...}), or train on a machine with more memory"
        )


def trial_replay(replay: SequenceReplayBuffer, length: int) -> SequenceReplayBuffer:
    """Make a small buffer like another one, filled with one arbitrary row, for updates whose results do not count.

    :param replay: which stays as it is
    :param length: T of the longest sequence that is drawn
    """
    trial, rows = copy.copy(replay), replay.rows_for(length)
    trial.storage, trial.n_envs, trial.rng = MemoryRows(), 1, np.random.default_rng(0)
    trial.buffer_size = trial.ring = rows
    trial.arrays = {name: np.zeros((1, rows, *shape), dtype) for name, (shape, dtype) in replay.layout().items()}
    for key in replay.keys:
        space = copy.deepcopy(space_dict(replay.observation_space)[key.name])
        space.seed(0)
        trial.arrays[f"obs.{key.name}"][:] = np.reshape(space.sample(), key.shape)
    trial.cursor, trial.filled = np.zeros(1, np.int64), np.full(1, rows)
    return trial


def trial_seconds(
    update: Callable[[SequenceBatch], object],
    draw: Callable[[int, int], SequenceBatch],
    batch_size: int,
    batch_length: int,
) -> float:
    """Measure how long an update takes, or estimate it from a smaller one if it takes long (up to twice too high).

    :param update: of a batch
    :param draw: a batch of so many sequences of so many rows
    :param batch_size: B of an update
    :param batch_length: T of an update
    :return: seconds
    """
    sequences, length = 1, min(8, batch_length)
    warm = False
    while True:
        batch, start = draw(sequences, length), time.perf_counter()
        update(batch)
        seconds, share = time.perf_counter() - start, sequences * length / (batch_size * batch_length)
        if seconds > TRIAL_SECONDS or (warm and share >= 1):
            return seconds / share
        if not warm:
            warm = True  # the first one is done again
        elif length < batch_length:
            length = min(2 * length, batch_length)
        else:
            sequences = min(2 * sequences, batch_size)


class MetricMeans:
    """Means of metrics since they were last read; tensors are not brought to the host before that."""

    def __init__(self) -> None:
        self.sums: dict[str, th.Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: dict[str, th.Tensor]) -> None:
        """Take in the metrics of one update, 0-d tensors."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.detach().clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def restore(self, sums: dict[str, th.Tensor], counts: dict[str, int]) -> None:
        """Take over sums and counts of a checkpoint.

        :raises ModelFileError: if they do not belong together
        """
        if sums.keys() != counts.keys() or any(value.ndim for value in sums.values()) or 0 in counts.values():
            raise ModelFileError("the checkpoint's metrics do not belong together: it is damaged")
        self.sums, self.counts = dict(sums), dict(counts)

    def take(self) -> dict[str, float]:
        """Means by name; starts afresh."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class Forecast:
    """Measures the parts of the training loop, and says after the first updates how long the run will take.

    :param device: of the model; on a GPU the host waits for each update until the forecast is made
    :param planned: updates of a run without an environment; None: agent steps count
    """

    def __init__(self, device: th.device, planned: int | None = None):
        self.device = device
        self.planned = planned
        self.updates = 0
        self.update_seconds = 0.0
        self.first_steps = 0
        self.first_time = time.perf_counter()
        self.parts: dict[str, float] = {}
        self.made = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part of the loop: ``acting``, ``environments``, ``storing``, ``sampling``."""
        start = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def timed_update(self, steps: int) -> Iterator[None]:
        """Measure one update.

        :param steps: agent steps so far
        """
        start = time.perf_counter()
        yield
        self.updates += 1
        if not self.made and self.device.type == "cuda":
            th.cuda.synchronize(self.device)  # so that each part shows its own time
        if self.updates == 1:  # The first one warms up and is not counted.
            self.first_steps, self.first_time, self.parts = steps, time.perf_counter(), {}
            return
        self.update_seconds += time.perf_counter() - start

    def due(self) -> bool:
        """Whether enough updates were measured; true once."""
        if self.made or self.updates <= FORECAST_AFTER:
            return False
        self.made = True
        return True

    @property
    def seconds_per_update(self) -> float:
        """Mean time of an update, without the first one."""
        return self.update_seconds / (self.updates - 1)

    def offline_text(self) -> str:
        """Forecast how long a run without an environment will take."""
        assert self.planned is not None
        left = self.planned - self.updates
        return (
            f"One update takes {1000 * self.seconds_per_update:.0f} ms: the remaining {left:,} updates take about "
            f"{duration(left * self.seconds_per_update)}."
        )

    def text(self, steps: int, total: int, updates_per_step: float | None) -> str:
        """Forecast how long the run will take, and tell where its time goes.

        :param steps: agent steps so far
        :param total: agent steps of the whole run
        :param updates_per_step: updates that an agent step asks for; None: as many as were measured
        """
        elapsed = time.perf_counter() - self.first_time
        collected = steps - self.first_steps
        if updates_per_step is None:
            per_step = elapsed / max(1, collected)
        else:
            per_step = updates_per_step * self.seconds_per_update
            per_step += (elapsed - self.update_seconds) / collected if collected else 0.0
        left = total - steps
        return (
            f"One update takes {1000 * self.seconds_per_update:.0f} ms, one agent step with its updates "
            f"{1000 * per_step:.1f} ms: the remaining {left:,} steps take about {duration(left * per_step)}. "
            f"Time: {', '.join(f'{name} {share:.0%}' for name, share in self.shares(elapsed).items())}."
        )

    def shares(self, elapsed: float) -> dict[str, float]:
        """Share of each part in the time since the first update, the largest first."""
        parts = {"updates": self.update_seconds, **self.parts}
        parts["the rest"] = max(0.0, elapsed - sum(parts.values()))
        return {name: seconds / elapsed for name, seconds in sorted(parts.items(), key=lambda item: -item[1])}


def duration(seconds: float) -> str:
    """Seconds in words: ``40 s``, ``12 min``, ``5.7 h``, ``3.2 days``, ``2.6 years``."""
    for unit, size in (("years", 365 * 86400.0), ("days", 86400.0), ("h", 3600.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
