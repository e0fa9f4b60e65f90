"""Make bsuite experiments (Behaviour Suite) through their dm_env interface."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.benchmarks.errors import require
from sb3_dreamer.wrappers.benchmarks.presets import Settings

INSTALL = 'pip install "sb3-dreamer[bsuite]"'


class BSuiteEnv(gym.Env, gym.utils.EzPickle):
    """One numbered setting of a bsuite experiment (Osband et al. 2019, arXiv 1908.03568).

    shimmy's adapter keeps (1, n) observations and replaces a random state that several experiments do not use; this one
    flattens observations to float32 vectors, and a seeded ``reset`` builds the experiment anew and seeds every random
    state inside it, so that equal seeds give equal episodes. bsuite's published scores need its own logging and
    ``num_episodes`` episodes; both numbers are attributes here, the logging is left to ``bsuite.load_and_record``.

    :param bsuite_id: ``"cartpole/0"``; a name without number means setting 0
    :raises ValueError: if there is no such setting
    :raises SuiteNotInstalledError: without the ``bsuite`` package
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium declares it as a plain dict)

    def __init__(self, bsuite_id: str):
        gym.utils.EzPickle.__init__(self, bsuite_id)
        self._bsuite = require("bsuite", "bsuite", INSTALL)
        self.bsuite_id = bsuite_id if "/" in bsuite_id else f"{bsuite_id}/0"
        known = list(require("bsuite.sweep", "bsuite", INSTALL).SWEEP)
        if self.bsuite_id not in known:
            hint = near(self.bsuite_id, known)
            raise ValueError(f"bsuite has no setting {self.bsuite_id!r}{hint}: for example {known[0]!r}")
        self._env = self._bsuite.load_from_id(self.bsuite_id)
        self.num_episodes = int(self._env.bsuite_num_episodes)
        shape = self._env.observation_spec().shape
        self.observation_space = spaces.Box(-np.inf, np.inf, (int(np.prod(shape)),), np.float32)
        self.action_space = spaces.Discrete(int(self._env.action_spec().num_values))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; with a seed the experiment is built anew first."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = self._bsuite.load_from_id(self.bsuite_id)
            seed_random_states(self._env, seed)
        return self._observe(self._env.reset().observation), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the experiment; an end with a positive discount is a time limit."""
        timestep = self._env.step(int(action))
        discount = 1.0 if timestep.discount is None else float(timestep.discount)
        terminated, truncated = bool(timestep.last() and discount == 0), bool(timestep.last() and discount > 0)
        return self._observe(timestep.observation), float(timestep.reward or 0.0), terminated, truncated, {}

    @staticmethod
    def _observe(observation: Any) -> np.ndarray:
        return np.asarray(observation, np.float32).reshape(-1)


def seed_random_states(env: Any, seed: int) -> int:
    """Seed every ``numpy.random.RandomState`` held by an environment and the ones it wraps.

    :param env: object whose attributes are searched, and those of its attributes that have a ``step``
    :param seed: one stream per random state is spawned from it
    :return: how many were seeded
    """
    seeds = np.random.SeedSequence(seed)
    found, pending, seen = 0, [env], set()
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        for value in vars(thing).values():
            if isinstance(value, np.random.RandomState):
                value.seed(seeds.spawn(1)[0].generate_state(4))
                found += 1
            elif hasattr(value, "step") and hasattr(value, "__dict__"):
                pending.append(value)
    return found


def make_bsuite(task: str, settings: Settings, render_mode: str | None = None) -> gym.Env:
    """Make one setting.

    :param task: ``"<experiment>/<number>"``
    :param settings: unused: bsuite fixes everything by its number
    :param render_mode: must be None
    :raises ValueError: if a render mode is asked for
    """
    del settings
    if render_mode is not None:
        raise ValueError(f"render_mode={render_mode!r}: bsuite draws nothing; leave it out.")
    return BSuiteEnv(task)
