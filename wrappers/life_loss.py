"""Treat a lost life as a discount or as the end of the episode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

MODES = ("discount", "reset")


class LifeLoss(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Report a lost life as a discount of 0 without ending the game, or end the episode.

    With ``mode="discount"`` the step that loses a life (but not the game) has ``info["discount"] = 0.0`` and
    ``info["life_lost"] = True`` while both end flags stay False: an agent can cut its value estimate there without
    resetting its memory in mid-game. ``mode="reset"`` also sets ``terminated``, and the next ``reset`` starts a new
    game (Stable-Baselines3's ``EpisodicLifeEnv`` continues the old one). The papers' presets use neither.

    :param env: environment that has ``info["lives"]`` (ALE does)
    :param mode: ``"discount"`` or ``"reset"``
    :raises ValueError: if the mode is unknown, and in ``reset`` if the environment reports no lives
    """

    def __init__(self, env: gym.Env, mode: str = "discount"):
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is unknown; write one of {MODES}.")
        gym.utils.RecordConstructorArgs.__init__(self, mode=mode)
        gym.Wrapper.__init__(self, env)
        self.mode = mode
        self._lives = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset and remember the number of lives."""
        obs, info = self.env.reset(seed=seed, options=options)
        if "lives" not in info:
            kind = type(self.unwrapped).__name__
            raise ValueError(f"{kind} reports no info['lives']: leave LifeLoss (in make_env, lives={self.mode!r}) out.")
        self._lives = int(info["lives"])
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; compare the number of lives with the one before."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        lives = int(info.get("lives", 0))
        lost = 0 < lives < self._lives
        self._lives = lives
        if lost:
            info = {**info, "life_lost": True, "discount": 0.0}
            terminated = terminated or self.mode == "reset"
        return obs, reward, bool(terminated), truncated, info
