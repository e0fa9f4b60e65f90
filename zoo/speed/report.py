"""Tables of ``bench`` on the screen, and its JSON files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

Result = dict[str, Any]  #: what one case gave


def new_table(title: str, *columns: str) -> Table:
    """A table whose first column stays in one line and whose other columns are numbers."""
    table = Table(box=box.ROUNDED, title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number == 0)
    return table


def case_table(title: str, columns: dict[str, Callable[[Result], str]], results: Sequence[Result]) -> Table:
    """One row for every case.

    :param columns: what each column says of a result
    :param results: what :func:`sb3_dreamer.zoo.speed.case.run_case` gave
    """
    table = new_table(title, "case", *columns)
    for result in results:
        table.add_row(case_words(result), *(column(result) for column in columns.values()))
    return table


def update_table(results: Sequence[Result]) -> Table:
    """Time of an update and what it took."""
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
    """Acting, sampling, learning end to end, and what happens once."""
    columns: dict[str, Callable[[Result], str]] = {
        "predict 1": lambda r: seconds(r["predict"]["1"]["median"]) if r.get("predict") else "-",
        "predict 16": lambda r: seconds(r["predict"]["16"]["median"]) if r.get("predict") else "-",
        "sampling": lambda r: seconds(r["sampling"]["median"]) if "sampling" in r else "-",
        "steps/s": lambda r: f"{r['learn']['steps_per_second']:.3g}" if r.get("learn") else "-",
        "first update": lambda r: seconds(r["first_update"]),
        "compile": lambda r: seconds(r["compile"]["seconds"]) if r["compile"] else "none",
    }
    return case_table("Acting, sampling, learning, and the first update", columns, results)


def case_words(result: dict[str, Any]) -> str:
    """Algorithm, size and observation; action and device where they are not the usual ones."""
    case = result["case"]
    rest = [word for word in (case["action"], result["device"]) if word not in ("box", "cpu")]
    return " ".join([case["algo"], case["size"], case["obs"], *rest])


def memory_words(result: dict[str, Any]) -> str:
    """Peak memory of the process, and of the GPU."""
    words = f"{result['rss_mib'] / 1024:.2f} GiB"
    return words + (f", GPU {result['vram_mib'] / 1024:.2f} GiB" if "vram_mib" in result else "")


def floor_table(results: Sequence[Result]) -> Table:
    """How the floor of every case was found: it is the larger of the two times.

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


def seconds(value: float) -> str:
    """A time with three digits in a fitting unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1.0:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write a result file, making its folder.

    :param path: target
    :param values: plain values
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rounded(values), indent=1) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """The value with floats of six significant digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
