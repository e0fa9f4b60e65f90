"""Repeat every action for several environment steps."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.arguments import whole_number


class ActionRepeat(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Execute every action ``amount`` times and return the summed reward.

    Differs from ``gymnasium.wrappers.RepeatAction`` in four ways that the papers need: the number of executed
    environment steps is in ``info["frames"]`` (so that "environment frames" can be counted exactly when an
    episode ends inside a repeat), the last ``max_pool`` observations can be merged by their maximum (Atari sprites
    flicker on alternate frames), ``metadata["render_fps"]`` is divided by ``amount``, so that a video has the task's
    speed, and a step whose ``info["discount"]`` is 0 ends the repeat like an episode end does (a lost life that is
    treated as a discount, see ``LifeLoss``).

    The released Dreamer code pools with whatever frame its buffer still holds when an episode ends before the last
    two repeats; here only frames of the current agent step are pooled.

    :param env: environment to wrap
    :param amount: environment steps per agent step, at least 1
    :param max_pool: how many of the last observations are merged by an elementwise maximum, from 1 (only the last
        observation, the default) to ``amount``; needs a ``Box`` observation space
    :raises ValueError: if a number is out of range or the space cannot be pooled
    """

    def __init__(self, env: gym.Env, amount: int, max_pool: int = 1):
        amount = whole_number("amount", amount, 1, what="number of environment steps")
        max_pool = whole_number("max_pool", max_pool, 1, amount, what="number of frames to merge")
        if max_pool > 1 and not isinstance(env.observation_space, spaces.Box):
            raise ValueError(
                f"max_pool={max_pool} needs a Box observation, got {env.observation_space}; "
                "pool before other observations are added."
            )
        gym.utils.RecordConstructorArgs.__init__(self, amount=amount, max_pool=max_pool)
        gym.Wrapper.__init__(self, env)
        self.amount = amount
        if env.metadata.get("render_fps"):
            self.metadata = {**env.metadata, "render_fps": env.metadata["render_fps"] / self.amount}
        self.max_pool = max_pool

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Repeat the action; stop early at the end of the episode or at discount 0.

        :param action: one action of the wrapped environment
        :return: last (or pooled) observation, summed reward, the two end flags, and the last info with ``frames`` and,
            where a wrapper changed the reward, the summed ``raw_reward``
        """
        total, raw, frames = 0.0, 0.0, 0
        recent: deque[Any] = deque(maxlen=self.max_pool)
        for _ in range(self.amount):
            obs, reward, terminated, truncated, info = self.env.step(action)
            recent.append(np.array(obs) if self.max_pool > 1 else obs)  # a copy: some environments reuse their array
            total += float(reward)
            raw += info.get("raw_reward", float(reward))
            frames += int(info.get("frames", 1))
            if terminated or truncated or info.get("discount", 1.0) == 0.0:
                break
        if self.max_pool > 1:
            obs = recent[0] if len(recent) == 1 else np.maximum.reduce(list(recent))
        sums = {"frames": frames} | ({"raw_reward": raw} if "raw_reward" in info else {})
        return obs, total, bool(terminated), bool(truncated), {**info, **sums}
