"""Start episodes with a random number of no-op actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.arguments import whole_number


class NoopReset(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Start every episode after a random number of no-op actions, so that a deterministic game starts differently.

    Gymnasium has it only inside ``AtariPreprocessing``, with at least one no-op; the papers differ in the range
    (DreamerV2 1 to 30, DreamerV3 of 2023 0 to 29 on Atari 100k and none at 200M frames, of 2024 0 to 30). The number
    is drawn by a generator of this wrapper that ``reset(seed=...)`` seeds. An episode that ends meanwhile restarts.

    :param env: environment with a discrete action space, one action of which does nothing
    :param low: smallest number of no-ops
    :param high: largest number of no-ops, included
    :param noop_action: the action that does nothing; None (default): the one called ``"NOOP"`` where the environment
        names its actions (``get_action_meanings()``, as ALE does), else the first
    :raises ValueError: for another action space, an action outside it or an empty range, or if the actions have names
        and none is ``"NOOP"``
    """

    def __init__(self, env: gym.Env, low: int = 0, high: int = 30, noop_action: int | None = None):
        space = env.action_space
        if not isinstance(space, spaces.Discrete):
            raise ValueError(f"NoopReset needs a Discrete action space, got {space}.")
        high = whole_number("high", high, 0, what="number of no-ops")
        low = whole_number("low", low, 0, high, what="number of no-ops")
        if noop_action is None:
            noop_action = _find_noop(env)
        elif not space.contains(noop_action):
            raise ValueError(f"noop_action={noop_action!r} is no action of {space}: pass the one that does nothing.")
        gym.utils.RecordConstructorArgs.__init__(self, low=low, high=high, noop_action=noop_action)
        gym.Wrapper.__init__(self, env)
        self.low, self.high, self.noop_action = low, high, noop_action
        self._rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, then play the no-ops; ``info["noops"]`` is their number."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        obs, info = self.env.reset(seed=seed, options=options)
        noops = int(self._rng.integers(self.low, self.high + 1))
        for _ in range(noops):
            obs, _, terminated, truncated, info = self.env.step(self.noop_action)
            if terminated or truncated:
                obs, info = self.env.reset(options=options)
        return obs, {**info, "noops": noops}


def _find_noop(env: gym.Env) -> int:
    """Return the action called NOOP, or the first one where actions have no names."""
    first = int(getattr(env.action_space, "start", 0))
    if not env.has_wrapper_attr("get_action_meanings"):
        return first
    names = list(env.get_wrapper_attr("get_action_meanings")())
    if "NOOP" not in names:
        raise ValueError(f"no action of {names} is called 'NOOP': write noop_action=, the action that does nothing.")
    return first + names.index("NOOP")
