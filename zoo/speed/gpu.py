"""``bench gpu``: the update on a GPU in float32 and mixed precision, plain, as a CUDA graph, with compiled steps."""

import argparse
import itertools
from dataclasses import replace
from typing import Any

import torch as th

from sb3_dreamer.zoo.speed.case import Case, Result, run_cases
from sb3_dreamer.zoo.speed.measure import measure
from sb3_dreamer.zoo.speed.report import case_table, print_failures, seconds

#: what is measured unless flags say otherwise, and the seconds that an update is to take at most
STANDARD = {("12m", "images", "discrete"): 0.012, ("1m", "vectors", "box"): 0.006}
WARM_SECONDS = 90.0  #: that the way to the first update at full speed is to take at most
SETTLE = 6  #: updates before the timed ones: those before the capture, the capture, and two more


def variants(case: Case) -> list[Case]:
    """Return the case in both precisions; on CUDA each plain, as a graph, and as a graph of compiled steps."""
    if case.device == "auto" and th.cuda.is_available():
        case = replace(case, device="cuda")
    # A graph that cannot be is an error here: a case that fell back would be measured under a wrong name.
    plain, graphed = {"cuda_graph": False, "compile": False}, {"cuda_graph": True, "compile": False}
    forms = (plain, graphed, graphed | {"compile": True}) if case.device.startswith("cuda") else (plain,)
    case = replace(case, parts=(), warmup=max(case.warmup, SETTLE))
    return [
        replace(case, hyperparams={**case.hyperparams, "mixed_precision": mixed, **form})
        for mixed, form in itertools.product((False, True), forms)
    ]


def report(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Measure all variants of all cases, each in a process of its own, and print one table.

    :param args: flags
    :param cases: what to measure
    :param console: where to print
    :return: part of the JSON file
    """
    named = {f"{case.name} {words(case.hyperparams)}": case for case in itertools.chain(*map(variants, cases))}
    results, failures = run_cases(named, measure, console)
    for result in results:
        case = Case(**result["case"])
        target = STANDARD.get((case.size, case.obs, case.action)) if "vram_mib" in result else None
        if target is not None:
            result["target_seconds"], result["target_warm_up_seconds"] = target, WARM_SECONDS
    columns = {
        "precision": lambda r: "bfloat16" if r["mixed_precision"] else "float32",
        "graph": lambda r: "yes" if r["graph"] else "no",
        "compiled": lambda r: "yes" if r["case"]["hyperparams"]["compile"] else "no",
        "median": lambda r: seconds(r["update"]["median"]),
        "min": lambda r: seconds(r["update"]["min"]),
        "target": target_words,
        "warm-up": lambda r: seconds(r["warm_up_seconds"]),
        "GPU memory": lambda r: f"{r['vram_mib']:.0f} MiB" if "vram_mib" in r else "-",
        "waits": lambda r: str(len(r["waits"])) if "waits" in r else "-",
        "recompiled": lambda r: str(r["recompilations"]),
    }
    console.print(case_table("One update", columns, results))
    print_failures(failures)
    return {"results": results, "failures": failures}


def target_words(result: Result) -> str:
    """Say what an update is to take at most, and whether it does."""
    target = result.get("target_seconds")
    return "-" if target is None else f"{seconds(target)}: {'yes' if result['update']['median'] <= target else 'no'}"


def words(hyperparams: dict[str, Any]) -> str:
    """Name precision and form of a variant."""
    precision = "bfloat16" if hyperparams["mixed_precision"] else "float32"
    compiled = ", compiled" if hyperparams["compile"] else ""
    return f"{precision}, {'graph' if hyperparams['cuda_graph'] else 'no graph'}{compiled}"
