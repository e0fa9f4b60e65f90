"""Take continuous actions from [-1, 1]."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.one_hot_action import OneHotSpace


class NormalizeAction(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    """Scale the bounded dimensions of a ``Box`` action to [-1, 1] and leave unbounded ones as they are.

    Gymnasium's ``RescaleAction`` refuses a space with an infinite bound, keeps float64 and passes on actions outside
    the range; here the space is float32, values outside [-1, 1] are clipped (as the papers' code does before the
    environment sees them), and the bounds are hit exactly at ±1.

    :param env: environment with a ``Box`` action space of floats
    :raises ValueError: for another space, and in ``step`` for an action of another shape or with NaN
    """

    def __init__(self, env: gym.Env):
        space = env.action_space
        if isinstance(space, OneHotSpace):
            raise ValueError(f"NormalizeAction would break the one-hot vectors of {space}; leave it out.")
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            advice = "leave it out (in make_env: normalize_action)"
            raise ValueError(f"NormalizeAction needs a Box action space of floats, got {space}: {advice}.")
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        self._dtype = space.dtype
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._bounded = np.isfinite(low) & np.isfinite(high)
        self._low, self._high = low, high
        self.action_space = spaces.Box(
            np.where(self._bounded, -1.0, low).astype(np.float32), np.where(self._bounded, 1.0, high).astype(np.float32)
        )

    def action(self, action: Any) -> np.ndarray:
        """Return the action in the wrapped environment's bounds and dtype."""
        value = np.asarray(action, np.float64)
        if value.shape != self.action_space.shape or np.isnan(value).any():
            raise ValueError(f"action {action!r}: must be {self.action_space.shape} numbers, none of them NaN.")
        unit = np.clip(value, -1.0, 1.0)
        with np.errstate(invalid="ignore"):
            scaled = (unit + 1.0) / 2.0 * (self._high - self._low) + self._low
        return np.where(self._bounded, np.clip(scaled, self._low, self._high), value).astype(self._dtype)
