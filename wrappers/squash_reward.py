"""Scale and squash rewards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_dreamer.wrappers.arguments import finite_number


def symlog(value: float) -> float:
    """Return sign(x) ln(|x| + 1) (DreamerV3, arXiv 2301.04104v1, equation 1)."""
    return math.copysign(math.log1p(abs(value)), value)


SQUASH: dict[str, Callable[[float], float]] = {
    "clip": lambda value: min(1.0, max(-1.0, value)),
    "sign": lambda value: float(np.sign(value)),
    "tanh": math.tanh,
    "symlog": symlog,
}


class SquashReward(gym.RewardWrapper, gym.utils.RecordConstructorArgs):
    """Scale the reward, then squash it by a named function.

    Gymnasium's ``ClipReward`` clips and its ``TransformReward`` takes a Python function, which a model file cannot
    store; here the function is a name (DreamerV2 trains on tanh of Atari rewards, DreamerV3 has symlog). The unchanged
    reward of a step is in ``info["raw_reward"]``, so that scores can still be reported.

    :param env: environment to wrap
    :param kind: ``"clip"`` (to [-1, 1]), ``"sign"``, ``"tanh"``, ``"symlog"`` or None for none
    :param scale: factor applied before
    :raises ValueError: if the name is unknown or the factor not finite
    """

    def __init__(self, env: gym.Env, kind: str | None = "tanh", scale: float = 1.0):
        if kind is not None and kind not in SQUASH:
            raise ValueError(f"kind={kind!r} is unknown; write one of {', '.join(SQUASH)} or None.")
        scale = finite_number("scale", scale)
        gym.utils.RecordConstructorArgs.__init__(self, kind=kind, scale=scale)
        gym.RewardWrapper.__init__(self, env)
        self.kind, self.scale = kind, scale

    def reward(self, reward: Any) -> float:
        """Return the changed reward."""
        scaled = float(reward) * self.scale
        return scaled if self.kind is None else SQUASH[self.kind](scaled)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, keep the reward in ``info["raw_reward"]`` and return the changed one."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        raw = info.get("raw_reward", float(reward))
        return obs, self.reward(reward), terminated, truncated, {**info, "raw_reward": raw}
