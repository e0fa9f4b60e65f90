"""Tables of ``bench`` on the screen, and its JSON files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table


def new_table(title: str, *columns: str) -> Table:
    """A table whose first column stays in one line and whose other columns are numbers."""
    table = Table(box=box.ROUNDED, title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number == 0)
    return table


def update_table(results: Sequence[dict[str, Any]]) -> Table:
    """One row for every case: time of an update and what it took.

    :param results: what :func:`sb3_dreamer.zoo.bench_case.run_case` gave
    """
    names = ("batch", "median", "min", "per second", "of floor", "memory")
    table = new_table("One update", "case", *names)
    for result in results:
        update = result["update"]
        table.add_row(
            case_words(result),
            f"{result['batch_size']}x{result['batch_length']}",
            seconds(update["median"]),
            seconds(update["min"]),
            f"{update['per_second']:.3g}",
            f"{result['floor_fraction']:.1%}" if "floor" in result else "-",
            memory_words(result),
        )
    return table


def acting_table(results: Sequence[dict[str, Any]]) -> Table:
    """One row for every case: acting, sampling, learning end to end, and what happens once.

    :param results: what :func:`sb3_dreamer.zoo.bench_case.run_case` gave
    """
    names = ("predict 1", "predict 16", "sampling", "steps/s", "first update", "compile")
    table = new_table("Acting, sampling, learning, and the first update", "case", *names)
    for result in results:
        predict, learn = result.get("predict"), result.get("learn")
        table.add_row(
            case_words(result),
            *(seconds(predict[n]["median"]) if predict else "-" for n in ("1", "16")),
            seconds(result["sampling"]["median"]) if "sampling" in result else "-",
            f"{learn['steps_per_second']:.3g}" if learn else "-",
            seconds(result["first_update"]),
            seconds(result["compile"]["seconds"]) if result["compile"] else "none",
        )
    return table


def case_words(result: dict[str, Any]) -> str:
    """Algorithm, size and observation; action and device where they are not the usual ones."""
    case = result["case"]
    rest = [word for word in (case["action"], result["device"]) if word not in ("box", "cpu")]
    return " ".join([case["algo"], case["size"], case["obs"], *rest])


def memory_words(result: dict[str, Any]) -> str:
    """Peak memory of the process, and of the GPU."""
    words = f"{result['rss_mib'] / 1024:.2f} GiB"
    return words + (f", GPU {result['vram_mib'] / 1024:.2f} GiB" if "vram_mib" in result else "")


def floor_table(results: Sequence[dict[str, Any]]) -> Table:
    """How the floor of every case was found: it is the larger of the two times.

    :param results: results with a ``floor``
    """
    names = ("parameters", "GFLOP", "GFLOP/s", "compute", "MB", "GB/s", "memory")
    table = new_table("Floor of one update", "case", *names)
    for result in results:
        found = result["floor"]
        table.add_row(
            case_words(result),
            f"{result['parameters'] / 1e6:.3g} M",
            f"{found['gflop']:.3g}",
            ", ".join(f"{rate:.0f}" for rate in found["gflop_per_second"].values()),
            seconds(found["compute_seconds"]),
            f"{found['megabytes']:.3g}",
            f"{found['gigabytes_per_second']:.3g}",
            seconds(found["memory_seconds"]),
        )
    return table


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
