"""Stack observations along the image channels."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

from sb3_dreamer.wrappers.arguments import whole_number


class StackChannels(FrameStackObservation):
    """Stack the last observations, images along their channels and vectors end to end.

    The stacking is gymnasium's ``FrameStackObservation``, which adds a leading axis; image networks (and
    Stable-Baselines3's image check) expect three axes, so this moves it into the channels, oldest first: (n, H, W, C)
    becomes (H, W, n·C), (n, C, H, W) becomes (n·C, H, W), (n, H, W) becomes (H, W, n), and (n, D) becomes (n·D,).

    :param env: environment with a ``Box`` observation of at most three axes, or a ``Dict`` of them
    :param amount: number of observations, at least 2
    :raises ValueError: for another space or number
    """

    def __init__(self, env: gym.Env, amount: int = 4):
        amount = whole_number("amount", amount, 2, what="number of observations")
        space = env.observation_space
        members = list(space.values()) if isinstance(space, spaces.Dict) else [space]
        if not all(isinstance(member, spaces.Box) and len(member.shape) <= 3 for member in members):
            raise ValueError(f"StackChannels needs Box observations of at most three axes, got {space}.")
        gym.utils.RecordConstructorArgs.__init__(self, amount=amount)  # before the base's, which come too late then
        super().__init__(env, amount, padding_type="reset")
        self.amount = amount
        if isinstance(space, spaces.Dict):
            self.observation_space = spaces.Dict({key: _space(sub, amount) for key, sub in space.items()})
        else:
            self.observation_space = _space(space, amount)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; the first observation fills the stack."""
        obs, info = super().reset(seed=seed, options=options)
        return self._merge(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and return the last observations as one."""
        obs, reward, terminated, truncated, info = super().step(action)
        return self._merge(obs), reward, terminated, truncated, info

    def _merge(self, stacked: Any) -> Any:
        if isinstance(stacked, dict):
            return {key: merge_stack(np.asarray(value)) for key, value in stacked.items()}
        return merge_stack(np.asarray(stacked))


def channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether an image has its channels in front: fewer than rows and columns, and few if those are few.

    :param shape: of three axes
    """
    return shape[0] < min(shape[1:]) and (shape[0] <= 4 or min(shape[1:]) >= 16)


def merge_stack(stacked: np.ndarray) -> np.ndarray:
    """Merge the leading axis of stacked observations into their channels, or into the only axis of vectors.

    :param stacked: (n, ...), oldest first
    """
    if stacked.ndim <= 2:
        return np.ascontiguousarray(stacked.reshape(-1))
    if stacked.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(stacked, 0, -1))
    if channels_first(stacked.shape[1:]):
        return np.ascontiguousarray(stacked.reshape(-1, *stacked.shape[2:]))
    moved = np.moveaxis(stacked, 0, -2)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:-2], -1))


def _space(space: spaces.Space[Any], amount: int) -> spaces.Box:
    assert isinstance(space, spaces.Box)
    low, high = (merge_stack(np.repeat(bound[None], amount, axis=0)) for bound in (space.low, space.high))
    return spaces.Box(low, high, low.shape, space.dtype.type)
