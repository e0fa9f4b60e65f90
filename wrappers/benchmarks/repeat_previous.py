"""Name the symbol seen some steps ago: the smallest task that nothing without a memory can solve.

Importing this module registers ``RepeatPrevious-v0``, so that
``make_env("sb3_dreamer.wrappers.benchmarks.repeat_previous:RepeatPrevious-v0")`` makes it.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class RepeatPrevious(gym.Env[np.int64, np.int64]):
    """See a random symbol at every step and name the one seen ``k`` steps before.

    The task of that name in POPGym (Morad et al. 2023, arXiv 2303.01859) with independent symbols instead of a deck of
    cards, and a reward of 1 for every right answer. The first ``k`` answers do not count. An agent without a memory is
    right in one of ``symbols`` answers: its return is ``length / symbols`` at most, that of a perfect one ``length``.

    :param k: steps between a symbol and its answer (default 4), at least 1
    :param symbols: how many there are, and actions (default 4), at least 2
    :param length: answers that count (default 20), at least 1; an episode has ``k + length`` steps
    :param render_mode: None
    :raises ValueError: if a number is too small, or for a render mode
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium declares it as a plain dict)

    def __init__(self, k: int = 4, symbols: int = 4, length: int = 20, render_mode: str | None = None):
        if k < 1 or symbols < 2 or length < 1:
            raise ValueError(f"k={k}, symbols={symbols}, length={length}: must be at least 1, 2 and 1.")
        if render_mode is not None:
            raise ValueError(f"render_mode={render_mode!r}: there is nothing to draw, leave it None.")
        self.k, self.symbols, self.length = k, symbols, length
        self.observation_space = spaces.Discrete(symbols)
        self.action_space = spaces.Discrete(symbols)
        self.seen: list[np.int64] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict]:
        """Show the first symbol."""
        super().reset(seed=seed)
        self.seen = [self.np_random.integers(self.symbols)]
        return self.seen[-1], {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict]:
        """Compare the answer with the symbol of ``k`` steps before the last one, and show the next."""
        answered = len(self.seen) - 1 - self.k
        reward = float(answered >= 0 and int(action) == self.seen[answered])
        self.seen.append(self.np_random.integers(self.symbols))
        return self.seen[-1], reward, answered + 1 == self.length, False, {}


gym.register("RepeatPrevious-v0", entry_point="sb3_dreamer.wrappers.benchmarks.repeat_previous:RepeatPrevious")
