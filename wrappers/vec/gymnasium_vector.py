"""Counterparts of the element-wise wrappers for gymnasium's vector environments.

Gymnasium has vector versions of its own element-wise wrappers (resize, filter, rescale, clip, transform), made by
``VectorizeTransform...``; ours are made the same way. Wrappers with a memory over time (repeat, stacking, limits,
counters, recording) have none there either: wrap each environment before it is vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers.vector import (
    VectorizeTransformAction,
    VectorizeTransformObservation,
    VectorizeTransformReward,
)

from sb3_dreamer.wrappers.filter_keys import FilterKeys
from sb3_dreamer.wrappers.normalize_action import NormalizeAction
from sb3_dreamer.wrappers.one_hot_action import OneHotAction
from sb3_dreamer.wrappers.resize import ResizeFrame
from sb3_dreamer.wrappers.reward import SquashReward
from sb3_dreamer.wrappers.tidy import TidyObservation


def _with_func(wrapper: type[gym.Wrapper], method: str) -> Callable[..., Any]:
    """Return a maker of the wrapper that also has gymnasium's ``func``, the function of one element."""

    def make(env: gym.Env, **kwargs: Any) -> gym.Wrapper:
        made: Any = wrapper(env, **kwargs)
        made.func = getattr(made, method)
        return made

    return make


class VectorResizeFrame(VectorizeTransformObservation):
    """``ResizeFrame`` for a vector environment; takes its arguments by keyword."""

    def __init__(self, env: gym.vector.VectorEnv, **kwargs: Any):
        super().__init__(env, _with_func(ResizeFrame, "observation"), **kwargs)  # type: ignore[arg-type]


class VectorTidyObservation(VectorizeTransformObservation):
    """``TidyObservation`` for a vector environment."""

    def __init__(self, env: gym.vector.VectorEnv):
        super().__init__(env, _with_func(TidyObservation, "observation"))  # type: ignore[arg-type]


class VectorFilterKeys(VectorizeTransformObservation):
    """``FilterKeys`` for a vector environment; takes its arguments by keyword."""

    def __init__(self, env: gym.vector.VectorEnv, **kwargs: Any):
        super().__init__(env, _with_func(FilterKeys, "observation"), **kwargs)  # type: ignore[arg-type]


class VectorNormalizeAction(VectorizeTransformAction):
    """``NormalizeAction`` for a vector environment."""

    def __init__(self, env: gym.vector.VectorEnv):
        super().__init__(env, _with_func(NormalizeAction, "action"))  # type: ignore[arg-type]


class VectorOneHotAction(VectorizeTransformAction):
    """``OneHotAction`` for a vector environment; sample from ``single_action_space`` (the batched space is a box)."""

    def __init__(self, env: gym.vector.VectorEnv):
        super().__init__(env, _with_func(OneHotAction, "action"))  # type: ignore[arg-type]


class VectorSquashReward(VectorizeTransformReward):
    """``SquashReward`` for a vector environment; the unchanged rewards are in ``infos["raw_reward"]``."""

    def __init__(self, env: gym.vector.VectorEnv, **kwargs: Any):
        super().__init__(env, _with_func(SquashReward, "reward"), **kwargs)  # type: ignore[arg-type]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step and change the rewards."""
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        raw = np.array(rewards)
        return obs, self.rewards(np.array(rewards)), terminated, truncated, {**infos, "raw_reward": raw}
