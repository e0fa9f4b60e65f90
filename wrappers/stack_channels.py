"""Stack observations along the image channels."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation


class StackChannels(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Stack the last observations, images along their channels and vectors end to end.

    The stacking is gymnasium's ``FrameStackObservation``, which adds a leading axis; image networks (and
    Stable-Baselines3's image check) expect three axes, so this moves it into the channels: (n, H, W, C) becomes
    (H, W, n·C), oldest first, and (n, D) becomes (n·D,).

    :param env: environment with a ``Box`` observation, or a ``Dict`` of them
    :param amount: number of observations, at least 2
    :raises ValueError: for another space
    """

    def __init__(self, env: gym.Env, amount: int = 4):
        members = (
            env.observation_space.values()
            if isinstance(env.observation_space, spaces.Dict)
            else [env.observation_space]
        )
        if not all(isinstance(space, spaces.Box) for space in members):
            raise ValueError(f"StackChannels needs Box observations, got {env.observation_space}.")
        gym.utils.RecordConstructorArgs.__init__(self, amount=amount)
        gym.ObservationWrapper.__init__(self, FrameStackObservation(env, amount, padding_type="reset"))
        self.amount = amount
        space = self.env.observation_space
        if isinstance(space, spaces.Dict):
            self.observation_space: spaces.Space[Any] = spaces.Dict({key: _space(sub) for key, sub in space.items()})
        else:
            self.observation_space = _space(space)

    def observation(self, observation: Any) -> Any:
        """Return the stacked observation with the stack axis merged into the last one."""
        if isinstance(observation, dict):
            return {key: _merge(np.asarray(value)) for key, value in observation.items()}
        return _merge(np.asarray(observation))


def _merge(stacked: np.ndarray) -> np.ndarray:
    if stacked.ndim <= 2:
        return np.ascontiguousarray(stacked.reshape(-1))
    moved = np.moveaxis(stacked, 0, -2)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:-2], -1))


def _space(space: spaces.Space[Any]) -> spaces.Box:
    assert isinstance(space, spaces.Box)
    low, high = _merge(space.low), _merge(space.high)
    return spaces.Box(low, high, low.shape, space.dtype)
