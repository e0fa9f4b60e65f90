"""Bring observation dictionaries into the form that networks expect."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class TidyObservation(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Turn 64-bit entries into 32-bit ones, scalars into vectors of length 1, and drop empty entries.

    Whole numbers of 64 bits whose bounds do not fit into 32 bits stay as they are.

    dm_control's dictionaries contain all three (``height`` of the walker is a scalar of float64, some tasks have
    entries of length 0); Stable-Baselines3's extractors accept none of them. Gymnasium's ``DtypeObservation`` casts
    to one dtype only and keeps shapes. A plain ``Box`` observation is treated alike.

    :param env: environment with a ``Box`` or (flat) ``Dict`` observation space
    :raises ValueError: for another space, or if nothing would be left
    """

    def __init__(self, env: gym.Env):
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if isinstance(space, spaces.Box):
            if 0 in space.shape:
                raise ValueError(f"the observation {space} is empty: an agent needs at least one number.")
            self.observation_space: spaces.Space[Any] = _tidy_space(space)
        elif isinstance(space, spaces.Dict):
            kept = {key: sub for key, sub in space.items() if not (isinstance(sub, spaces.Box) and 0 in sub.shape)}
            if not kept:
                raise ValueError(f"every entry of {space} is empty.")
            if nested := [key for key, sub in kept.items() if isinstance(sub, (spaces.Dict, spaces.Tuple))]:
                raise ValueError(
                    f"{nested} of the observation are Dict or Tuple spaces themselves: flatten them first, for example "
                    "with gymnasium.wrappers.FlattenObservation."
                )
            self.observation_space = spaces.Dict({key: _tidy_space(sub) for key, sub in kept.items()})
        else:
            raise ValueError(f"TidyObservation needs a Box or Dict observation, got {space}.")

    def observation(self, observation: Any) -> Any:
        """Return the observation in the tidied space."""
        if isinstance(self.observation_space, spaces.Dict):
            return {key: _tidy(observation[key], sub) for key, sub in self.observation_space.items()}
        return _tidy(observation, self.observation_space)


def _tidy_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    if not isinstance(space, spaces.Box):
        return space
    dtype = _narrow(space)
    shape = space.shape or (1,)
    with np.errstate(over="ignore"):  # bounds at the end of float64 become infinite
        low, high = space.low.astype(dtype).reshape(shape), space.high.astype(dtype).reshape(shape)
    return spaces.Box(low, high, shape, dtype)


def _narrow(space: spaces.Box) -> np.dtype:
    """Return the dtype of 32 bits for one of 64 bits, if the bounds of whole numbers fit into it."""
    if space.dtype == np.float64:
        return np.dtype(np.float32)
    for wide, narrow in ((np.int64, np.int32), (np.uint64, np.uint32)):
        limits = np.iinfo(narrow)
        if space.dtype == wide and limits.min <= space.low.min() and space.high.max() <= limits.max:
            return np.dtype(narrow)
    return space.dtype


def _tidy(value: Any, space: spaces.Space[Any]) -> Any:
    if not isinstance(space, spaces.Box):
        return value
    return np.asarray(value, dtype=space.dtype).reshape(space.shape)
