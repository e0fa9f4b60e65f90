"""The table of all suites and their settings per paper preset."""

from __future__ import annotations

from sb3_dreamer.wrappers.benchmarks.presets import PRESETS, Settings
from sb3_dreamer.wrappers.benchmarks.suites import SUITES

HEADER = (
    "suite", "preset", "tasks", "repeat", "sticky", "no-ops", "image", "actions", "length (frames)", "end of episode",
)  # fmt: skip
ENDS = {
    "atari": "game over; lost lives count for nothing; the limit truncates",
    "atari100k": "game over; lost lives count for nothing; the limit truncates",
    "dmc_vision": "the limit truncates",
    "dmc_proprio": "the limit truncates",
    "planet": "the limit truncates",
    "crafter": "health 0; the limit truncates",
    "bsuite": "the experiment's own",
    "dmlab": "the level's time, told as terminal",
    "minecraft": "death; the limit truncates",
}
ACTIONS = {"dmc_vision": "[-1, 1]", "dmc_proprio": "[-1, 1]", "planet": "[-1, 1]", "crafter": "17", "bsuite": "own"}


def _image(suite: str, settings: Settings) -> str:
    if settings.size is None or suite == "dmc_proprio":
        return "state"
    height, width = settings.size
    colour = {False: "RGB", "screen": "grey (emulator)", "luma": "grey (luma)"}[settings.grey]
    how = f", {settings.resize}" if suite.startswith("atari") else ""
    return f"{height}x{width} {colour}{how}"


def _actions(suite: str, settings: Settings) -> str:
    if suite.startswith("atari"):
        return "all 18" if settings.all_actions else "the game's"
    if suite == "dmlab":
        return f"{settings.action_set} ({9 if settings.action_set == 'impala' else 15})"
    return "25 (diamond)" if suite == "minecraft" else ACTIONS[suite]


def suite_rows() -> list[tuple[str, ...]]:
    """Return one row of texts per suite and preset, in the order of ``HEADER``."""
    rows: list[tuple[str, ...]] = []
    for suite, entry in SUITES.items():
        for preset, settings in PRESETS[suite].items():
            low, high = settings.noops
            rows.append(
                (
                    suite,
                    preset,
                    str(len(entry.tasks)),
                    "per task" if suite == "planet" else str(settings.action_repeat),
                    f"{settings.sticky:g}" if suite.startswith("atari") else "-",
                    (f"{low}-{high}" if high else "0") if suite.startswith("atari") else "-",
                    _image(suite, settings),
                    _actions(suite, settings),
                    f"{settings.time_limit:,}" if settings.time_limit else "own",
                    ENDS[suite],
                )
            )
    return rows


def suite_table(tasks: bool = False) -> str:
    """Return the table of suites, tasks and settings as Markdown text.

    :param tasks: also list the task names of every suite below the table
    """
    rows = [HEADER, *suite_rows()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    table = [f"| {line} |" for line in lines]
    table.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    if tasks:
        table.append("")
        table += [f"- `{suite}` ({entry.title}): {', '.join(entry.tasks)}" for suite, entry in SUITES.items()]
    return "\n".join(table)
