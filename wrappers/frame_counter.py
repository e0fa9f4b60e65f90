"""Count frames, steps and episodes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class FrameCounter(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Count environment frames, agent steps and episodes.

    Papers report environment frames (agent steps times action repeat, less when an episode ends inside a repeat);
    gymnasium's ``RecordEpisodeStatistics`` counts agent steps only. ``info`` has ``frames`` (of this step),
    ``episode_frames`` and ``episode_steps``; the attributes ``total_frames``, ``total_steps`` and ``total_episodes``
    (finished ones) count over all episodes (not in ``info``, so that equal seeds give equal infos).

    :param env: environment to wrap, ``ActionRepeat`` inside if there is one
    """

    def __init__(self, env: gym.Env):
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.episode_frames = self.episode_steps = 0
        self.total_frames = self.total_steps = self.total_episodes = 0

    def _counts(self) -> dict[str, int]:
        return {"episode_frames": self.episode_frames, "episode_steps": self.episode_steps}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the counts of the episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        self.episode_frames = self.episode_steps = 0
        return obs, {**info, "frames": 0, **self._counts()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and count."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        frames = int(info.get("frames", 1))
        self.episode_frames += frames
        self.total_frames += frames
        self.episode_steps += 1
        self.total_steps += 1
        self.total_episodes += int(terminated or truncated)
        return obs, reward, terminated, truncated, {**info, "frames": frames, **self._counts()}
