"""What a run will cost, before it starts and after its first updates, and what its updates measured."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch as th
from torch import nn

from sb3_dreamer.common import distributed
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm

MEMORY_SHARE = 0.8  #: replay may take this share of the memory at most
FORECAST_AFTER = 50  #: updates before the time forecast, the first of which is not counted


def parameter_count(module: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def describe(model: "WorldModelAlgorithm") -> list[tuple[str, str]]:
    """Rows of the table that is shown before training."""
    policy, replay = model.policy, model.replay_buffer
    rows = [("algorithm", f"{type(model).__name__}, size {policy.size_name}, on {model.device}")]
    for key in policy.keys:
        network = {"image": "CNN", "vector": "MLP", "discrete": "one-hot, MLP"}[key.kind]
        shape = "x".join(map(str, key.shape)) or "1"
        detail = f"{shape} {key.kind}" + (f" of {', '.join(map(str, key.classes))}" if key.classes else "")
        rows.append((f"observation {key.name}", f"{detail} -> {network}, reconstructed"))
    for name in policy.ignore_keys:
        rows.append((f"observation {name}", "ignored"))
    layout = policy.codec.layout
    rows.append(("action", f"{layout.kind}, {' + '.join(map(str, layout.sizes))}"))
    world, rest = parameter_count(policy.world_model), parameter_count(policy.behavior)
    rows.append(("parameters", f"{world + rest:,} (world model {world:,}, behavior {rest:,})"))
    rows.append(("updates", updates_in_words(model)))
    ranks = distributed.world_size()
    of_ranks = f" on each of {ranks} ranks" if ranks > 1 else ""
    rows.append(("batch", f"{model.batch_size} sequences of {model.batch_length} steps{of_ranks}"))
    rows.append(("replay", replay_in_words(replay)))
    return rows


def updates_in_words(model: "WorldModelAlgorithm") -> str:
    """Train ratio and updates per agent step."""
    if model.gradient_steps is not None:
        return (
            f"{model.gradient_steps} per {model.train_freq.frequency} {model.train_freq.unit.value}(s) (gradient_steps)"  # type: ignore[union-attr]
        )
    per_step = float(model.ratio.per_step)
    words = (
        f"{per_step:.3g} per agent step"
        if per_step >= 1
        else f"1 every {1 / per_step:.4g} agent steps"
        if per_step
        else "none"
    )
    return f"{words} (train_ratio {model.train_ratio:g}), after {model.learning_starts:,} random steps"


def replay_in_words(replay: SequenceReplayBuffer) -> str:
    """Rows and GiB, beside the memory of the machine."""
    if replay.on_disk:
        return f"{replay.buffer_size * replay.n_envs:,} steps on disk = {replay.nbytes / 2**30:.2f} GiB when full"
    return (
        f"{replay.buffer_size * replay.n_envs:,} steps = {replay.nbytes / 2**30:.2f} GiB when full, "
        f"of {memory_limit() / 2**30:.1f} GiB memory"
    )


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
    limit = memory_limit() // distributed.on_this_machine()
    if needed > MEMORY_SHARE * limit:
        raise MemoryError(
            f"replay of this run takes up to {needed / 2**30:.1f} GiB, more than {MEMORY_SHARE:.0%} of "
            f"{limit / 2**30:.1f} GiB memory: lower buffer_size={rows:,}, store smaller or grey images, "
            "keep it on disk (replay_buffer_kwargs={'replay_dir': ...}), or train on a machine with more memory"
        )


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
    """Says once, after the first updates, where the time goes and how long the run will take.

    :param model: the model that learns
    """

    def __init__(self, model: "WorldModelAlgorithm"):
        self.model = model
        self.updates = 0
        self.update_seconds = 0.0
        self.first_steps = 0
        self.first_time = 0.0
        self.parts: dict[str, float] = {}
        self.text: str | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part of the loop: ``acting``, ``environments``, ``storing``, ``sampling``."""
        start = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def timed_update(self) -> Iterator[None]:
        """Measure one update."""
        start = time.perf_counter()
        yield
        self.updates += 1
        if self.text is None and self.model.device.type == "cuda":
            th.cuda.synchronize(self.model.device)  # Until the forecast is made, so that each part shows its own time.
        if self.updates == 1:  # The first one warms up and is not counted.
            self.first_steps, self.first_time, self.parts = self.model.num_timesteps, time.perf_counter(), {}
            return
        self.update_seconds += time.perf_counter() - start
        if self.updates == FORECAST_AFTER + 1:
            self.text = self._words()
            if self.model.verbose >= 1:
                print(self.text)

    def _words(self) -> str:
        model = self.model
        elapsed = time.perf_counter() - self.first_time
        update = self.update_seconds / (self.updates - 1)
        left = model._total_timesteps - model.num_timesteps
        if model.gradient_steps is None:
            seconds_per_step = float(model.ratio.per_step) * update
            collected = model.num_timesteps - self.first_steps
            seconds_per_step += (elapsed - self.update_seconds) / collected if collected else 0.0
        else:
            seconds_per_step = elapsed / max(1, model.num_timesteps - self.first_steps)
        return (
            f"One update takes {1000 * update:.0f} ms, one agent step with its updates "
            f"{1000 * seconds_per_step:.1f} ms: the {left:,} steps that are left take about "
            f"{duration(left * seconds_per_step)}. {self._shares(elapsed)}"
        )

    def _shares(self, elapsed: float) -> str:
        """Where the time goes, the largest part first."""
        parts = {"updates": self.update_seconds, **self.parts}
        parts["the rest"] = max(0.0, elapsed - sum(parts.values()))
        ordered = sorted(parts.items(), key=lambda item: -item[1])
        return "Time: " + ", ".join(f"{name} {seconds / elapsed:.0%}" for name, seconds in ordered) + "."


def duration(seconds: float) -> str:
    """Seconds in words: ``40 s``, ``12 min``, ``5.7 h``, ``3.2 days``."""
    for unit, size in (("days", 86400.0), ("h", 3600.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
