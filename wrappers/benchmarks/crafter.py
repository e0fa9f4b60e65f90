"""Crafter: the adapter from its old gym interface to gymnasium."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.benchmarks.errors import require
from sb3_dreamer.wrappers.benchmarks.presets import Settings

INSTALL = 'pip install "sb3-dreamer[crafter]"'


class CrafterEnv(gym.Env, gym.utils.EzPickle):
    """Crafter (Hafner 2021, arXiv 2109.06780) with gymnasium's signatures, seeding and end flags.

    Health 0 terminates; the length limit truncates. ``reset(seed=...)`` starts the sequence of worlds that
    ``crafter.Env(seed=...)`` would play; without a seed the next world of the sequence follows. ``info`` has
    ``inventory``, ``achievements`` (counts), ``discount`` and, at the end of an episode, ``unlocked``: the names of the
    achievements unlocked in it. ``render()`` draws a larger image and leaves the world's random numbers as they were
    (Crafter draws its night noise from the world's own generator, so that a plain extra draw would change the game).

    Equal seeds give equal episodes, which the package alone does not: it picks creatures that disappear from sets in
    the order of their memory addresses. Here those sets keep the order of insertion; the rule itself is unchanged.

    :param reward: False for the task without reward
    :param size: (height, width) of the observation
    :param length: episode length in steps; the published one is 10,000
    :param render_mode: None or ``"rgb_array"``
    :param render_size: (height, width) of ``render()``
    :raises SuiteNotInstalledError: without the ``crafter`` package
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium declares it as a plain dict)

    def __init__(
        self,
        reward: bool = True,
        size: tuple[int, int] = (64, 64),
        length: int | None = 10_000,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (256, 256),
    ):
        gym.utils.EzPickle.__init__(self, reward, size, length, render_mode, render_size)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: Crafter draws only 'rgb_array'.")
        crafter = require("crafter", "crafter", INSTALL)
        # Crafter's own length is off: its "done" does not distinguish death from the limit when both fall together.
        # A seed of its own, since Crafter would draw one from numpy's global generator.
        seed = int(np.random.default_rng().integers(2**31 - 1))
        self._env = crafter.Env(size=tuple(size[::-1]), reward=reward, length=None, seed=seed)
        self.action_names: list[str] = list(self._env.action_names)
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)
        self.action_space = spaces.Discrete(len(self.action_names))
        self.render_mode, self.render_size, self.length = render_mode, render_size, length
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the next world, or with a seed the first one of its sequence."""
        super().reset(seed=seed)
        if seed is not None:
            self._env._seed, self._env._episode = seed, 0
        self._steps = 0
        obs = self._env.reset()
        world = self._env._world
        chunks = {key: _OrderedSet(sorted(members, key=world._objects.index)) for key, members in world._chunks.items()}
        world._chunks = collections.defaultdict(_OrderedSet, chunks)
        return obs, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the world."""
        obs, reward, _, info = self._env.step(int(action))
        self._steps += 1
        terminated = info["discount"] == 0
        truncated = not terminated and self.length is not None and self._steps >= self.length
        kept = {key: info[key] for key in ("inventory", "achievements", "discount")}
        if terminated or truncated:
            kept["unlocked"] = sorted(name for name, count in info["achievements"].items() if count > 0)
        return obs, float(reward), bool(terminated), bool(truncated), kept

    def render(self) -> np.ndarray | None:
        """Return an image of ``render_size`` without touching the world's random numbers."""
        if self.render_mode is None:
            return None
        random = self._env._world.random
        state = random.get_state()
        try:
            return self._env.render(tuple(self.render_size[::-1]))
        finally:
            random.set_state(state)


class _OrderedSet(dict):
    """A set that iterates in the order of insertion, with the methods Crafter uses."""

    def __init__(self, members: Iterable[Any] = ()):
        super().__init__(dict.fromkeys(members))

    def add(self, member: Any) -> None:
        """Add a member at the end."""
        self[member] = None

    def remove(self, member: Any) -> None:
        """Remove a member."""
        del self[member]


def make_crafter(task: str, settings: Settings, render_mode: str | None = None) -> gym.Env:
    """Make Crafter.

    :param task: ``"reward"`` or ``"noreward"``
    :param settings: the preset's settings
    :param render_mode: None or ``"rgb_array"``
    :raises ValueError: for another task
    """
    if task not in ("reward", "noreward"):
        raise ValueError(f"Crafter has no task {task!r}; write 'crafter:reward' or 'crafter:noreward'.")
    return CrafterEnv(task == "reward", settings.size or (64, 64), settings.time_limit, render_mode)
