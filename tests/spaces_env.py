"""An environment of any spaces, with random observations and episodes of a few steps."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class SpacesEnv(gym.Env):
    """Random observations; refuses actions outside its space."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, length: int = 7):
        self.observation_space, self.action_space, self.length = observation_space, action_space, length
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if isinstance(self.action_space, spaces.Discrete):
            action = np.int64(action)
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t >= self.length, False, {}


def image(*shape: int) -> spaces.Box:
    """An image space."""
    return spaces.Box(0, 255, shape, np.uint8)
