"""Measure what training costs by size, and write the table of docs/costs.md.

    python -m sb3_dreamer.zoo.studies.costs                 # one thread of the CPU, 30 minutes on an idle core
    python -m sb3_dreamer.zoo.studies.costs --device cuda
    python -m sb3_dreamer.zoo.studies.costs --tables        # from what is in docs/results

Every case is measured as ``sb3-dreamer bench --threads 1`` does, in a process of its own, and written at once. Seconds
on a CPU are those of the processor: about what a thread takes on a core of its own, even if other programs run.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.dreamer_v3.dreamer_v3 import default_arguments
from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.errors import RunError
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.speed.case import EPISODE, Case, Result, run_case
from sb3_dreamer.zoo.speed.measure import measure, measure_processor
from sb3_dreamer.zoo.speed.report import header, write_json

RESULTS, PAGE = Path("docs/results"), Path("docs/costs.md")
SIZES = {"dreamerv3": ("100k", "XXS", "1m", "XS", "S", "12m"), "dreamerv2": ("XXS", "XS"), "planet": ("small",)}
LARGE = {"dreamerv3": ("M", "L", "XL", "25m", "50m", "100m", "200m"), "dreamerv2": ("S", "paper"), "planet": ("paper",)}
Key = tuple[str, str, str]  #: algorithm, size, observation
STEPS = 100_000  #: of the estimated run
HEAD = (
    "algorithm, size",
    "observation",
    "parameters",
    "CPU: update",
    "updates/s",
    "memory",
    "100,000 steps",
    "GPU: update",
    "GPU memory",
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, write, and print the table, which replaces the one on the page.

    :return: 1 if a case failed
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda; cuda measures larger sizes, too (default: cpu)")
    parser.add_argument("--updates", type=int, default=3, help="timed in each case (default: 3)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the JSON files (default: {RESULTS})")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"whose table is replaced (default: {PAGE})")
    parser.add_argument("--resume", action="store_true", help="keep the cases that the JSON file has")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    args = parser.parse_args(words)
    failed = 0
    if not args.tables:
        device = args.device.partition(":")[0]
        path = args.results / f"costs_{device}.json"
        command = f"python -m sb3_dreamer.zoo.studies.costs --device {args.device} --updates {args.updates}"
        file = {**header(command, seed=0, threads=1), "results": []}
        if args.resume and path.exists():
            file = json.loads(path.read_text(encoding="utf-8"))
        done = read(path) if args.resume else {}
        for case in make_cases(args.device, args.updates):
            if (case.algo, case.size, case.obs) in done:
                continue
            try:
                file["results"].append(run_case(case, measure_processor if device == "cpu" else measure))
            except RunError as error:
                failed = 1
                print(f"Failed: {error}", file=sys.stderr)
                continue
            print(f"{case.name}: {file['results'][-1]['update']['min']:.3g} s", file=sys.stderr, flush=True)
            write_json(path, file)
    text = table(read(args.results / "costs_cpu.json"), read(args.results / "costs_cuda.json"))
    print(text)
    if args.page.exists():
        page = args.page.read_text(encoding="utf-8")
        former = re.compile(rf"^\| {HEAD[0]} .*\n(\|.*\n)*", re.MULTILINE)
        args.page.write_text(former.sub(lambda _: text + "\n", page), encoding="utf-8")
    return failed


def make_cases(device: str, updates: int) -> list[Case]:
    """Return what is measured on a device, small sizes first."""
    sizes = SIZES if device == "cpu" else {algo: SIZES[algo] + LARGE[algo] for algo in SIZES}
    return [
        Case(algo, sizes[algo][rank], obs, device=device, threads=1, updates=updates, warmup=1, parts=("predict",))
        for rank in range(max(map(len, sizes.values())))
        for algo in sizes
        if rank < len(sizes[algo])
        for obs in ("vectors", "images")
    ]


def read(path: Path) -> dict[Key, Result]:
    """Return the results of a file by algorithm, size and observation; none if there is no file."""
    results = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    return {(one["case"]["algo"], one["case"]["size"], one["case"]["obs"]): one for one in results}


def table(cpu: Mapping[Key, Result], gpu: Mapping[Key, Result]) -> str:
    """Write the Markdown table of both devices; what has not been measured is empty."""
    rows = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 2))]
    either = {**cpu, **gpu}

    def place(key: Key) -> tuple[Any, ...]:
        return list(SIZES).index(key[0]), key[2] == "images", either[key]["parameters"]

    for key in sorted(either, key=place):
        algo, size, obs = key
        row = [f"{algo} {size}", obs, f"{either[key]['parameters'] / 1e6:.2g} M", *[""] * 6]
        if here := cpu.get(key):
            update = here["update"]["min"]
            row[3:7] = (
                f"{update:.2g} s",
                f"{1 / update:.2g}",
                f"{here['rss_mib'] / 1024:.1f} GiB",
                f"{float(f'{hours(here):.2g}'):g} h",  # 160, not 1.6e+02
            )
        if there := gpu.get(key):
            row[7:] = f"{1e3 * there['update']['min']:.3g} ms", f"{there['vram_mib'] / 1024:.1f} GiB"
        rows.append(tuple(row))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def hours(result: Result) -> float:
    """Estimate the hours of a run in one environment that costs nothing, with the algorithm's default updates."""
    defaults = inspect.signature(algorithm_class(result["case"]["algo"]).__init__).parameters
    if result["case"]["algo"] == "planet":  # after every episode
        per_step = defaults["collect_interval"].default / EPISODE
    else:
        ratio = defaults["train_ratio"].default or default_arguments(result["case"]["size"])["train_ratio"]
        per_step = ratio / (result["batch_size"] * result["batch_length"])
    return STEPS * (per_step * result["update"]["min"] + result["predict"]["1"]["min"]) / 3600


if __name__ == "__main__":
    sys.exit(run_study(main))
