"""What works on this machine: every suite constructed, one random episode played, frames per second."""

from __future__ import annotations

import time
from typing import NamedTuple

from sb3_dreamer.wrappers.benchmarks.errors import SuiteNotInstalledError
from sb3_dreamer.wrappers.benchmarks.suites import make_env

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


def measure(name: str, max_steps: int = 100_000, seed: int = 0) -> Measurement:
    """Make an environment with its default preset and play one random episode.

    :param name: as in ``make_env``
    :param max_steps: agent steps after which the episode is cut
    :param seed: seed of environment and actions
    """
    try:
        env = make_env(name)
    except SuiteNotInstalledError:
        return Measurement(name, "not installed", "-", 0.0)
    except Exception as error:
        return Measurement(name, f"{type(error).__name__}: {error}", "-", 0.0)
    env.action_space.seed(seed)
    env.reset(seed=seed)
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


def measure_table(max_steps: int = 100_000) -> str:
    """Return the results of all ``EXAMPLES`` as a Markdown table.

    :param max_steps: agent steps after which an episode is cut
    """
    rows = [("environment", "constructs", "random episode", "frames/s"), ("---",) * 4]
    for name in EXAMPLES:
        got = measure(name, max_steps)
        speed = f"{got.frames_per_second:,.0f}" if got.frames_per_second else "-"
        rows.append((f"`{got.name}`", got.constructs, got.episode, speed))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
