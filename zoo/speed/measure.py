"""The measurements of one case of ``bench``."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_dreamer.common.updates.cuda_graph import WARMUP as GRAPH_WARMUP
from sb3_dreamer.zoo.speed.case import Case, build
from sb3_dreamer.zoo.speed.floor import floor, synchronize

ENVIRONMENTS = (1, 16)  # of predict()
LEARN_UPDATES = 4  # of the end-to-end run
CALLS, CALL_SECONDS = 20, 1.5  # of a short measurement: so many calls, or as many as begin in that time


def measure(case: Case) -> dict[str, Any]:
    """Everything about one case; see docs/speed.md for what each number is.

    :param case: what to measure
    :return: plain values, times in seconds
    """
    before = peak_rss_mib()
    model = build(case)
    device = th.device(model.device)
    batch, length = model.batch_size, model.batch_length
    replay = model.replay_buffer

    def update() -> None:  # without a graph, which would hide what is counted
        model._eager_update(replay.sample_sequences(batch, length))

    result: dict[str, Any] = {
        "device": str(device),
        "threads": th.get_num_threads(),
        "batch_size": batch,
        "batch_length": length,
        "parameters": sum(p.numel() for group in model.optimizers.values() for p in group.params),
    }
    result |= time_updates(model, case)
    result |= {"rss_mib": peak_rss_mib(), "rss_before_mib": before}
    if device.type == "cuda":
        result["vram_mib"] = th.cuda.max_memory_allocated(device) / 2**20
    if "floor" in case.parts:
        result["floor"] = floor(model, update, device)
        result["floor_fraction"] = result["floor"]["seconds"] / result["update"]["median"]
    if "sampling" in case.parts:
        result["sampling"] = summary(repeat(lambda: replay.sample_sequences(batch, length), device))
    if "predict" in case.parts:
        result["predict"] = {str(n): predict_latency(model, n, device) for n in ENVIRONMENTS}
    if "learn" in case.parts:
        result["learn"] = end_to_end(model, case)
    return result


def time_updates(model: Any, case: Case) -> dict[str, Any]:
    """Seconds of an update on a batch that is there already; the first one apart, with what was compiled for it."""
    device = th.device(model.device)
    seconds = []
    warmup = case.warmup if model._graphed is None else max(case.warmup, GRAPH_WARMUP + 2)  # one captures
    for _ in range(warmup + case.updates):
        batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
        synchronize(device)
        start = time.perf_counter()
        model.update(batch)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    timed = summary(seconds[warmup:])
    return {
        "update": timed | {"all": seconds[warmup:], "per_second": 1.0 / timed["median"]},
        "first_update": seconds[0],
        "compile": compilation(),
    }


def compilation() -> dict[str, float] | None:
    """Seconds that the compiler took so far and the graphs that it made; None if nothing was compiled."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return None
    graphs = dynamo.utils.counters["stats"]["unique_graphs"]
    if not graphs:
        return None
    spent = dynamo.utils.compilation_time_metrics
    outer: list[float] = next(
        (spent[name] for name in ("_compile.compile_inner", "entire_frame_compile") if name in spent), []
    )
    return {"seconds": float(sum(outer)), "graphs": int(graphs)}


def recompilations() -> int:
    """Graphs that were compiled so far."""
    found = compilation()
    return int(found["graphs"]) if found else 0


def predict_latency(model: Any, n: int, device: th.device) -> dict[str, float]:
    """Seconds of one :meth:`predict` call for ``n`` environments in the middle of their episodes."""
    space = model.observation_space
    rng = np.random.default_rng(0)
    image = space.dtype == np.uint8
    shape = (n, *space.shape)
    obs = rng.integers(0, 256, shape, np.uint8) if image else rng.standard_normal(shape).astype(np.float32)
    _, state = model.predict(obs, None, np.ones(n, bool))
    starts = np.zeros(n, bool)

    def act() -> None:
        nonlocal state
        _, state = model.predict(obs, state, starts)

    return summary(repeat(act, device))


def end_to_end(model: Any, case: Case) -> dict[str, float]:
    """A real ``learn()`` in the environment that costs nothing: acting, storing, sampling and updating."""
    per_update = model.batch_size * model.batch_length / case.train_ratio
    steps = max(16, ceil(LEARN_UPDATES * per_update))
    updates = model._n_updates
    start = time.perf_counter()
    model.learn(steps, log_interval=10**9)
    synchronize(th.device(model.device))
    seconds = time.perf_counter() - start
    updates = model._n_updates - updates
    return {
        "train_ratio": case.train_ratio,
        "steps": model.num_timesteps,
        "updates": updates,
        "seconds": seconds,
        "steps_per_second": model.num_timesteps / seconds,
    }


def repeat(call: Callable[[], Any], device: th.device) -> list[float]:
    """Seconds of several calls after one that does not count, unless it took longer than there is time for."""
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) <= CALLS and time.perf_counter() - begin < CALL_SECONDS:
        start = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:] or seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and minimum."""
    return {"median": statistics.median(seconds), "min": min(seconds), "count": len(seconds)}


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ``getrusage`` counts the parent's memory in after a fork
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
