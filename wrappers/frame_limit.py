"""Limit episodes by environment frames."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from sb3_dreamer.wrappers.arguments import whole_number


class FrameLimit(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Truncate an episode after a number of environment frames.

    Gymnasium's ``TimeLimit`` counts calls of ``step``; the papers state episode lengths in frames (108,000 for Atari),
    so a limit outside an action repeat must count ``info["frames"]`` of ``ActionRepeat``. An environment without
    ``frames`` counts 1 per step.

    :param env: environment to wrap
    :param max_frames: frames after which ``truncated`` is True, at least 1
    :raises ValueError: if ``max_frames`` is no positive whole number
    """

    def __init__(self, env: gym.Env, max_frames: int):
        max_frames = whole_number("max_frames", max_frames, 1, what="number of frames")
        gym.utils.RecordConstructorArgs.__init__(self, max_frames=max_frames)
        gym.Wrapper.__init__(self, env)
        self.max_frames = max_frames
        self._frames = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the count."""
        self._frames = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and truncate once the limit is reached (an episode that ends by itself there stays terminated)."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._frames += int(info.get("frames", 1))
        return obs, reward, terminated, bool(truncated or self._frames >= self.max_frames), info
