"""``bench scaling``: time of an update over batch size, batch length and model size, as JSON and as a picture."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.errors import RunError
from sb3_dreamer.zoo.speed.case import Case, Result, run_case, sizes_of
from sb3_dreamer.zoo.speed.measure import measure
from sb3_dreamer.zoo.speed.report import case_words, new_table, seconds

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the batch size, then of its length
SIZES = {  # when none are given: small ones, up to some ten million parameters
    "dreamerv3": ("debug", "XXS", "XS", "1m", "S"),
    "dreamerv2": ("debug", "XXS", "XS", "S"),
    "planet": ("debug", "small", "paper"),
}
AXES = {"batch_size": "batch size B", "batch_length": "batch length T", "parameters": "parameters"}


def scaling(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Measure along the three axes from a common base, print a table and draw.

    The base is the algorithm's batch, or that of the flags, at the first size (or the small one).

    :param args: flags
    :param cases: one for each size that was asked for
    :param console: where to print
    :return: part of the JSON file
    """
    base = replace(cases[0], parts=())
    sizes = [case.size for case in cases] if args.sizes else [s for s in SIZES[base.algo] if s in sizes_of(base.algo)]
    with console.status(f"{base.name}: base"):
        middle = run_case(base, measure)
    batch, length = middle["batch_size"], middle["batch_length"]
    points = {
        "batch_size": [replace(base, batch_size=n) for n in multiples(batch, 1)],
        "batch_length": [replace(base, batch_length=n) for n in multiples(length, 2)],
        "parameters": [replace(base, size=size) for size in sizes],
    }
    results: dict[str, list[Result]] = {}
    for axis, along in points.items():
        results[axis] = []
        for case in along:
            with console.status(f"{base.name}: {axis}, {len(results[axis]) + 1} of {len(along)}"):
                same = case in (base, replace(base, batch_size=batch), replace(base, batch_length=length))
                results[axis].append(middle if same else _attempt(case, console))
        results[axis] = sorted((run for run in results[axis] if run), key=lambda run: run[axis])
    console.print(_table(results))
    draw(results, Path(args.plot), f"{case_words(middle)}, {base.threads} thread(s)")
    print(f"Picture: {args.plot}")
    return {"scaling": results}


def multiples(value: int, least: int) -> list[int]:
    """Return a quarter to four times a number, whole and different."""
    return sorted({max(least, round(value * factor)) for factor in FACTORS})


def _attempt(case: Case, console: Any) -> Result:
    """Return the measurement, or nothing if it fails: the largest cases may not fit into memory."""
    try:
        return run_case(case, measure)
    except RunError as error:
        console.print(f"left out: {error}", markup=False)
        return {}


def _table(results: dict[str, list[Result]]) -> Any:
    table = new_table("Time of an update", "axis", "value", "size", "median", "min", "per 1000 rows", "memory")
    for axis, runs in results.items():
        for run in runs:
            rows = run["batch_size"] * run["batch_length"]
            update = run["update"]
            table.add_row(
                AXES[axis],
                f"{run[axis]:,}",
                run["case"]["size"],
                seconds(update["median"]),
                seconds(update["min"]),
                seconds(1000 * update["median"] / rows),
                f"{run['rss_mib'] / 1024:.2f} GiB",
            )
    return table


def draw(results: dict[str, list[Result]], path: Path, title: str) -> None:
    """Draw three panels with logarithmic axes; a dotted line shows time in proportion, as far as it is in sight.

    :param results: measurements by axis
    :param path: picture file
    :param title: what was measured
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(results), figsize=(9, 3.6), sharey=True, layout="constrained")
    times = [run["update"][kind] for runs in results.values() for run in runs for kind in ("min", "median")]
    for panel, (axis, runs) in zip(panels, results.items(), strict=True):
        values = [run[axis] for run in runs]
        median = [run["update"]["median"] for run in runs]
        panel.plot(values, median, marker="o", label="median")
        panel.plot(values, [run["update"]["min"] for run in runs], marker=".", linewidth=0.8, label="fastest")
        if len(values) > 1:
            panel.plot(values, [median[-1] * v / values[-1] for v in values], ":", color="gray", label="in proportion")
        panel.set(xscale="log", yscale="log", xlabel=AXES[axis], ylim=(0.6 * min(times), 1.6 * max(times)))
        panel.margins(x=0.12)
        panel.yaxis.set_major_formatter("{x:g}")
        if axis == "parameters":
            _name_sizes(panel, runs)
        else:
            panel.set_xticks(values, [str(value) for value in values])
            panel.minorticks_off()
    panels[0].set_ylabel("seconds of an update")
    panels[0].legend()
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _name_sizes(panel: Any, runs: list[Result]) -> None:
    """Write the names of sizes by turns below and above their points, so that neighbors do not overlap."""
    for i, run in enumerate(runs):
        place, side = ((0, -9), "top") if i % 2 else ((0, 9), "bottom")
        panel.annotate(
            run["case"]["size"],
            (run["parameters"], run["update"]["median"]),
            xytext=place,
            textcoords="offset points",
            ha="center",
            va=side,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
