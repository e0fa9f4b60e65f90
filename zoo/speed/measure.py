"""The measurements of one case of ``bench``; docs/speed.md says what each number is."""

import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_dreamer.common.updates.cuda_graph import WARMUP as GRAPH_WARMUP
from sb3_dreamer.zoo.speed.case import Case, Result, build, noise
from sb3_dreamer.zoo.speed.floor import floor, synchronize

Clock = Callable[[], float]  #: seconds since some moment

ENVIRONMENTS = (1, 16)  # of predict()
LEARN_UPDATES = 4  # of the end-to-end run
CALLS, CALL_SECONDS = 20, 1.5  # of a short measurement: so many calls, or as many as begin in that time


def measure(case: Case, clock: Clock = time.perf_counter) -> Result:
    """Measure everything about one case.

    :param case: what to measure
    :param clock: of updates and ``predict``; ``time.process_time`` does not count what other programs take
    :return: plain values, times in seconds
    """
    before, begin = peak_rss_mib(), time.perf_counter()
    model = build(case)
    built = time.perf_counter()
    device = th.device(model.device)
    result: Result = {
        "device": str(device),
        "threads": th.get_num_threads(),
        "batch_size": model.batch_size,
        "batch_length": model.batch_length,
        "mixed_precision": model.mixed_precision,
        "parameters": sum(p.numel() for group in model.optimizers.values() for p in group.params),
        "build_seconds": built - begin,
        **time_updates(model, case, clock),
        "rss_mib": peak_rss_mib(),
        "rss_before_mib": before,
    }
    if device.type == "cuda":
        result["gpu"] = th.cuda.get_device_name(device)
        result["vram_mib"] = th.cuda.max_memory_allocated(device) / 2**20
        result["reserved_mib"] = th.cuda.max_memory_reserved(device) / 2**20
        result["waits"] = waits(model)
    if "floor" in case.parts:  # without a graph, which would hide what is counted
        result["floor"] = floor(model, lambda: model._eager_update(draw(model)), device)
        result["floor_fraction"] = result["floor"]["seconds"] / result["update"]["median"]
    if "sampling" in case.parts:
        result["sampling"] = summary(repeat(lambda: draw(model), device))
    if "predict" in case.parts:
        result["predict"] = {str(n): predict_latency(model, n, device, clock) for n in ENVIRONMENTS}
    if "learn" in case.parts:
        result["learn"] = end_to_end(model, case)
    return result


def measure_processor(case: Case) -> Result:
    """Measure as :func:`measure` does, but in seconds of the processor, which other programs do not lengthen much."""
    return measure(case, time.process_time)


def draw(model: Any) -> Any:
    """Draw a batch from the model's replay."""
    return model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)


def timed(model: Any, update: Callable[[Any], Any], clock: Clock = time.perf_counter) -> float:
    """Seconds of an update on a batch that is there already."""
    device, batch = th.device(model.device), draw(model)
    synchronize(device)
    start = clock()
    update(batch)
    synchronize(device)
    return clock() - start


def time_updates(model: Any, case: Case, clock: Clock = time.perf_counter) -> Result:
    """Time updates: the first one apart, with what was compiled for it, then those at full speed."""
    begin = time.perf_counter()
    warmup = case.warmup if model._graphed is None else max(case.warmup, GRAPH_WARMUP + 2)  # one captures
    first = [timed(model, model.update, clock) for _ in range(warmup)]
    warm, compiled = time.perf_counter() - begin, compilation()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seconds = [timed(model, model.update, clock) for _ in range(case.updates)]
    found = summary(seconds)
    now = compilation()
    return {
        "update": found | {"all": seconds, "per_second": 1.0 / found["median"]},
        "first_update": first[0],
        "warm_up_seconds": warm,
        "compile": now,
        "recompilations": int((now or {"graphs": 0})["graphs"] - (compiled or {"graphs": 0})["graphs"]),
        "graph": model._graphed is not None and model._graphed.values is not None,
        "warnings": [str(warning.message).splitlines()[0] for warning in caught],
    }


def waits(model: Any) -> list[str]:
    """Find where the host waits for the GPU in one update that is made as it is, without a graph."""
    batch = draw(model)
    th.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        th.cuda.set_sync_debug_mode("warn")
        try:
            model._eager_update(batch)
        finally:
            th.cuda.set_sync_debug_mode("default")
    return [f"{found.filename}:{found.lineno}" for found in caught if "synchroniz" in str(found.message)]


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


def predict_latency(model: Any, n: int, device: th.device, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Seconds of one :meth:`predict` call for ``n`` environments in the middle of their episodes."""
    obs = noise(model.observation_space, n, np.random.default_rng(0))
    _, state = model.predict(obs, None, np.ones(n, bool))
    starts = np.zeros(n, bool)

    def act() -> None:
        nonlocal state
        _, state = model.predict(obs, state, starts)

    return summary(repeat(act, device, clock))


def end_to_end(model: Any, case: Case) -> dict[str, float]:
    """Time a real ``learn()`` in the environment that costs nothing: acting, storing, sampling and updating."""
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


def repeat(call: Callable[[], Any], device: th.device, clock: Clock = time.perf_counter) -> list[float]:
    """Seconds of several calls after one that does not count, unless it took longer than there is time for."""
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) <= CALLS and time.perf_counter() - begin < CALL_SECONDS:
        start = clock()
        call()
        synchronize(device)
        seconds.append(clock() - start)
    return seconds[1:] or seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, minimum and number."""
    return {"median": statistics.median(seconds), "min": min(seconds), "count": len(seconds)}


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ``getrusage`` counts the parent's memory in after a fork
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
