"""``bench gpu``: the update on a GPU in float32 and mixed precision, with and without a CUDA graph."""

import argparse
import itertools
import time
import warnings
from dataclasses import replace
from typing import Any

import torch as th

from sb3_dreamer.zoo.speed.case import Case, build, run_cases
from sb3_dreamer.zoo.speed.floor import synchronize
from sb3_dreamer.zoo.speed.measure import recompilations, summary
from sb3_dreamer.zoo.speed.report import case_words, new_table, seconds

#: what is measured unless flags say otherwise, and the seconds that an update is to take at most
STANDARD = {("12m", "images", "discrete"): 0.012, ("1m", "vectors", "box"): 0.006}
WARM_SECONDS = 90.0  #: that the way to the first update at full speed is to take at most
SETTLE = 6  #: updates before the timed ones: those before the capture, the capture, and two more


def variants(case: Case) -> list[Case]:
    """The case in both precisions; on CUDA each with and without a graph."""
    if case.device == "auto" and th.cuda.is_available():
        case = replace(case, device="cuda")
    # A graph that cannot be is an error here: a case that fell back would be measured under a wrong name.
    graphs = (False, True) if case.device.startswith("cuda") else (False,)
    return [
        replace(case, task="gpu", hyperparams={**case.hyperparams, "mixed_precision": mixed, "cuda_graph": graph})
        for mixed, graph in itertools.product((False, True), graphs)
    ]


def measure(case: Case) -> dict[str, Any]:
    """One variant, in this process.

    :return: plain values: seconds of an update and of the way to it, memory, waits of the host, recompilations
    """
    begin = time.perf_counter()
    model = build(case)
    device = th.device(model.device)
    built = time.perf_counter()

    def update() -> float:
        batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
        synchronize(device)
        start = time.perf_counter()
        model.update(batch)
        synchronize(device)
        return time.perf_counter() - start

    first = [update() for _ in range(max(SETTLE, case.warmup))]
    warm, compiled = time.perf_counter(), recompilations()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        timed = [update() for _ in range(case.updates)]
    graphed = model._graphed is not None and model._graphed.values is not None
    result: dict[str, Any] = {
        "device": str(device),
        "gpu": th.cuda.get_device_name(device) if device.type == "cuda" else None,
        "batch_size": model.batch_size,
        "batch_length": model.batch_length,
        "mixed_precision": model.mixed_precision,
        "graph": graphed,
        "warnings": [str(warning.message).splitlines()[0] for warning in caught],
        "parameters": sum(p.numel() for group in model.optimizers.values() for p in group.params),
        "update": summary(timed) | {"all": timed},
        "first_update": first[0],
        "warm_up_seconds": warm - built,
        "build_seconds": built - begin,
        "recompilations": recompilations() - compiled,
    }
    if device.type == "cuda":
        result["vram_mib"] = th.cuda.max_memory_allocated(device) / 2**20
        result["reserved_mib"] = th.cuda.max_memory_reserved(device) / 2**20
        result["waits"] = waits(model)
    return result


def waits(model: Any) -> list[str]:
    """Where the host waits for the GPU in one update that is made as it is, without a graph."""
    batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
    th.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        th.cuda.set_sync_debug_mode("warn")
        try:
            model._eager_update(batch)
        finally:
            th.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "synchroniz" in str(w.message)]
    return [f"{warning.filename}:{warning.lineno}" for warning in found]


def report(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Measure all variants of all cases, each in a process of its own, and print one table.

    :param args: flags
    :param cases: what to measure
    :param console: where to print
    :return: part of the JSON file
    """
    named = {f"{case.name} {words(case.hyperparams)}": case for case in itertools.chain(*map(variants, cases))}
    results, failures = run_cases(named, console)
    for result in results:
        case = Case(**result["case"])
        target = STANDARD.get((case.size, case.obs, case.action)) if "vram_mib" in result else None
        if target is not None:
            result["target_seconds"], result["target_warm_up_seconds"] = target, WARM_SECONDS
    columns = ("case", "precision", "graph", "median", "min", "target", "warm-up", "GPU memory", "waits", "recompiled")
    table = new_table("One update", *columns)
    for result in results:
        table.add_row(case_words(result), *cells(result))
    console.print(table)
    for name, message in failures.items():
        print(f"Failed: {name}: {message}")
    return {"results": results, "failures": failures}


def cells(result: dict[str, Any]) -> list[str]:
    """A row of the table."""
    target = result.get("target_seconds")
    return [
        "bfloat16" if result["mixed_precision"] else "float32",
        "yes" if result["graph"] else "no",
        seconds(result["update"]["median"]),
        seconds(result["update"]["min"]),
        "-" if target is None else f"{seconds(target)}: {'yes' if result['update']['median'] <= target else 'no'}",
        seconds(result["warm_up_seconds"]),
        f"{result['vram_mib']:.0f} MiB" if "vram_mib" in result else "-",
        str(len(result["waits"])) if "waits" in result else "-",
        str(result["recompilations"]),
    ]


def words(hyperparams: dict[str, Any]) -> str:
    """Precision and graph of a variant."""
    precision = "bfloat16" if hyperparams["mixed_precision"] else "float32"
    return f"{precision}, {'graph' if hyperparams['cuda_graph'] else 'no graph'}"
