"""An environment whose observations, rewards and actions tell episode and step, so that alignment can be read off."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class CountingEnv(gym.Env):
    """Observation ``(env index, episode, step)``; reward = 100 · episode + step on arrival.

    :param lengths: steps of successive episodes (the last entry repeats)
    :param ends: how successive episodes end: ``terminated``, ``truncated`` or ``both``
    :param index: number of this environment
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, lengths: tuple[int, ...] = (3,), ends: tuple[str, ...] = ("terminated",), index: int = 0):
        self.lengths, self.ends, self.index = lengths, ends, index
        self.observation_space = spaces.Box(-1.0, 1e6, (3,), np.float32)
        self.action_space = spaces.Discrete(5)
        self.episode, self.t = -1, 0

    def _obs(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        done = self.t >= self.lengths[min(self.episode, len(self.lengths) - 1)]
        end = self.ends[min(self.episode, len(self.ends) - 1)]
        reward = 100.0 * self.episode + self.t
        return self._obs(), reward, done and end != "truncated", done and end != "terminated", {}
