"""What ``bench`` tells: where measurements were made (machine, versions, command), tables, and JSON files."""

import datetime
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sb3_dreamer.zoo.runs.provenance import describe_system
from sb3_dreamer.zoo.speed.case import Result


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory, GPUs, and how busy the machine was."""
    import psutil
    import torch as th

    gpus = [th.cuda.get_device_name(i) for i in range(th.cuda.device_count())] if th.cuda.is_available() else []
    return {
        "cpu": cpu_model(),
        "cpu_capability": th.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "cuda": th.version.cuda,
        "load_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_model() -> str:
    """Return the name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def header(command: str, *, seed: int, threads: int) -> dict[str, Any]:
    """Describe where and how measurements were made: what every JSON file of ``bench`` begins with.

    :param command: that made them
    :param seed: of the models and data
    :param threads: of torch
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "command": command,
        "date": now.isoformat(timespec="seconds"),
        "seed": seed,
        "threads": threads,
        "machine": describe_machine(),
        "system": describe_system(),
    }


def header_rows(head: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the header as rows of a table.

    :param head: as from :func:`header`
    """
    machine, system = head["machine"], head["system"]
    git = system["git"]
    source = f"{git['commit'][:10]}, {git['changed_files']} changed files" if git else "installed package"
    packages = system["packages"]
    shown = ("torch", "numpy", "gymnasium", "stable-baselines3")
    versions = [f"{name} {packages[name]}" for name in shown if name in packages]
    return [
        ("command", head["command"]),
        ("sb3-dreamer", f"{packages.get('sb3-dreamer', '?')} ({source})"),
        ("versions", ", ".join([f"Python {system['python']}", *versions])),
        ("processor", f"{machine['cpu']}, {machine['cpu_capability']}, {machine['usable_cores']} cores usable"),
        ("memory", f"{machine['ram_gib']} GiB"),
        ("GPU", ", ".join(machine["gpus"]) or "none"),
        ("threads, seed", f"{head['threads']}, {head['seed']}"),
        ("load before", f"{machine['load_1_min']} (busy: times are too long)" if busy(machine) else "idle"),
    ]


def busy(machine: dict[str, Any]) -> bool:
    """Whether other processes kept the machine busy before the measurements."""
    return bool(machine["load_1_min"] is not None and machine["load_1_min"] > 0.5)


def new_table(title: str, *columns: str) -> Table:
    """Make a table whose first column stays in one line and whose other columns are numbers."""
    table = Table(box=box.ROUNDED, title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number == 0)
    return table


def case_table(title: str, columns: dict[str, Callable[[Result], str]], results: Sequence[Result]) -> Table:
    """Make a table with a row for every case.

    :param columns: what each column says of a result
    :param results: as from :func:`sb3_dreamer.zoo.speed.case.run_case`
    """
    table = new_table(title, "case", *columns)
    for result in results:
        table.add_row(case_words(result), *(column(result) for column in columns.values()))
    return table


def update_table(results: Sequence[Result]) -> Table:
    """Show the time of an update and what it took."""
    columns: dict[str, Callable[[Result], str]] = {
        "batch": lambda r: f"{r['batch_size']}x{r['batch_length']}",
        "median": lambda r: seconds(r["update"]["median"]),
        "min": lambda r: seconds(r["update"]["min"]),
        "per second": lambda r: f"{r['update']['per_second']:.3g}",
        "of floor": lambda r: f"{r['floor_fraction']:.1%}" if "floor" in r else "-",
        "memory": memory_words,
    }
    return case_table("One update", columns, results)


def acting_table(results: Sequence[Result]) -> Table:
    """Show acting, sampling, learning end to end, and what happens once."""
    columns: dict[str, Callable[[Result], str]] = {
        "predict 1": lambda r: seconds(r["predict"]["1"]["median"]) if r.get("predict") else "-",
        "predict 16": lambda r: seconds(r["predict"]["16"]["median"]) if r.get("predict") else "-",
        "sampling": lambda r: seconds(r["sampling"]["median"]) if "sampling" in r else "-",
        "steps/s": lambda r: f"{r['learn']['steps_per_second']:.3g}" if r.get("learn") else "-",
        "first update": lambda r: seconds(r["first_update"]),
        "compile": lambda r: seconds(r["compile"]["seconds"]) if r["compile"] else "none",
    }
    return case_table("Acting, sampling, learning, and the first update", columns, results)


def case_words(result: Result) -> str:
    """Name algorithm, size and observation; action and device where they are not the usual ones."""
    case = result["case"]
    rest = [word for word in (case["action"], result["device"]) if word not in ("box", "cpu")]
    return " ".join([case["algo"], case["size"], case["obs"], *rest])


def memory_words(result: Result) -> str:
    """Say the peak memory of the process, and of the GPU."""
    words = f"{result['rss_mib'] / 1024:.2f} GiB"
    return words + (f", GPU {result['vram_mib'] / 1024:.2f} GiB" if "vram_mib" in result else "")


def floor_table(results: Sequence[Result]) -> Table:
    """Show how the floor of every case was found: it is the larger of the two times.

    :param results: results with a ``floor``
    """
    columns: dict[str, Callable[[Result], str]] = {
        "parameters": lambda r: f"{r['parameters'] / 1e6:.3g} M",
        "GFLOP": lambda r: f"{r['floor']['gflop']:.3g}",
        "GFLOP/s": lambda r: ", ".join(f"{rate:.0f}" for rate in r["floor"]["gflop_per_second"].values()),
        "compute": lambda r: seconds(r["floor"]["compute_seconds"]),
        "MB": lambda r: f"{r['floor']['megabytes']:.3g}",
        "GB/s": lambda r: f"{r['floor']['gigabytes_per_second']:.3g}",
        "memory": lambda r: seconds(r["floor"]["memory_seconds"]),
    }
    return case_table("Floor of one update", columns, results)


def print_failures(failures: dict[str, str]) -> None:
    """Print a line for every case that failed."""
    for message in failures.values():
        print(f"Failed: {message}")


def seconds(value: float) -> str:
    """Write a time with three digits in a fitting unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1.0:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write a result file.

    :param path: target
    :param values: plain values
    """
    Path(path).write_text(json.dumps(rounded(values), indent=1) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Round floats to six significant digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
