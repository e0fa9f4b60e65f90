"""Where measurements were made: machine, versions, command. The header of every result of ``bench``."""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.arguments import to_command
from sb3_dreamer.zoo.runs.provenance import describe_system


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPUs, and how busy the machine was."""
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
    """Name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def header(words: Sequence[str], *, seed: int, threads: int) -> dict[str, Any]:
    """What every JSON file of ``bench`` begins with.

    :param words: command-line arguments
    :param seed: of the models and data
    :param threads: of torch
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "command": to_command("bench", words),
        "date": now.isoformat(timespec="seconds"),
        "seed": seed,
        "threads": threads,
        "machine": describe_machine(),
        "system": describe_system(),
    }


def header_rows(head: dict[str, Any]) -> list[tuple[str, str]]:
    """The header as rows of a table.

    :param head: what :func:`header` gave
    """
    machine, system = head["machine"], head["system"]
    git = system["git"]
    source = f"{git['commit'][:10]}, {git['changed_files']} changed files" if git else "installed package"
    packages = system["packages"]
    shown = {"torch": "torch", "numpy": "numpy", "gymnasium": "gymnasium", "stable-baselines3": "stable-baselines3"}
    versions = [f"{label} {packages[name]}" for name, label in shown.items() if name in packages]
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
