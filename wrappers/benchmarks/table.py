"""Tables of all suites: their settings per paper preset, and what works on this machine."""

from __future__ import annotations

import time
from typing import NamedTuple

from sb3_dreamer.wrappers.benchmarks.errors import SuiteNotInstalledError
from sb3_dreamer.wrappers.benchmarks.presets import PRESETS, Settings
from sb3_dreamer.wrappers.benchmarks.suites import SUITES, make_env

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
    "dmlab": "the level's time, reported as terminal",
    "minecraft": "death; the limit truncates",
}
ACTIONS = {"dmc_vision": "[-1, 1]", "dmc_proprio": "[-1, 1]", "planet": "[-1, 1]", "crafter": "17", "bsuite": "own"}


def _image(suite: str, settings: Settings) -> str:
    if settings.size is None or suite == "dmc_proprio":
        return "state"
    height, width = settings.size
    color = {False: "RGB", "screen": "gray (emulator)", "luma": "gray (luma)"}[settings.grayscale]
    how = f", {settings.resize}" if suite.startswith("atari") else ""
    return f"{height}x{width} {color}{how}"


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


# One task of every suite, and plain ids as they are used in examples.
EXAMPLES = (
    "CartPole-v1", "Pong", "atari100k:pong", "dmc_vision:walker_walk", "dmc_proprio:walker_walk",
    "planet:cartpole_swingup", "crafter:reward", "bsuite:cartpole/0", "dmlab:explore_goal_locations_small",
    "minecraft:diamond",
)  # fmt: skip


class Measurement(NamedTuple):
    """One suite's result.

    :param name: environment name
    :param constructs: ``"yes"``, ``"not installed"`` or the error
    :param episode: agent steps and return of one random episode, how it ended; ``"-"`` without one
    :param frames_per_second: environment frames per second of stepping; 0.0 without an episode
    """

    name: str
    constructs: str
    episode: str
    frames_per_second: float


def measure(name: str, max_steps: int = 100_000) -> Measurement:
    """Make an environment with its default preset and play one random episode.

    :param name: as in ``make_env``
    :param max_steps: agent steps after which the episode is cut
    """
    try:
        env = make_env(name)
    except SuiteNotInstalledError:
        return Measurement(name, "not installed", "-", 0.0)
    except Exception as error:
        return Measurement(name, f"{type(error).__name__}: {error}", "-", 0.0)
    env.action_space.seed(0)
    env.reset(seed=0)
    total, steps, frames, over, begin = 0.0, 0, 0, "cut", time.perf_counter()
    while steps < max_steps:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        total, steps, frames = total + float(reward), steps + 1, frames + int(info["frames"])
        if terminated or truncated:
            over = "terminated" if terminated else "truncated"
            break
    seconds = time.perf_counter() - begin
    env.close()
    return Measurement(name, "yes", f"{steps} steps, return {total:.1f}, {over}", frames / seconds)


def measure_table() -> str:
    """Return the results of all ``EXAMPLES`` as a Markdown table."""
    rows = [("environment", "constructs", "random episode", "frames/s"), ("---",) * 4]
    for name in EXAMPLES:
        got = measure(name)
        speed = f"{got.frames_per_second:,.0f}" if got.frames_per_second else "-"
        rows.append((f"`{got.name}`", got.constructs, got.episode, speed))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
