"""Take discrete actions as one-hot vectors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class OneHotAction(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    """Take a discrete action as a vector with a single 1, the form in which world models see actions.

    Gymnasium has no such wrapper. A vector whose entries are not exactly one 1 and else 0 is refused, since an argmax
    would hide a policy that forgot to sample. ``action_space.sample()`` returns proper one-hot vectors.

    :param env: environment with a ``Discrete`` action space
    :raises ValueError: for another space, and in ``step`` for a vector that is not one-hot
    """

    def __init__(self, env: gym.Env):
        if not isinstance(env.action_space, spaces.Discrete):
            raise ValueError(f"OneHotAction needs a Discrete action space, got {env.action_space}.")
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        self.start = int(env.action_space.start)
        self.action_space = OneHotSpace(int(env.action_space.n))

    def action(self, action: Any) -> int:
        """Return the index of the 1."""
        vector = np.asarray(action)
        if not self.action_space.contains(vector.astype(np.float32)):
            raise ValueError(f"action {action!r} is not one-hot: pass a vector with a single 1 and 0 elsewhere.")
        return self.start + int(vector.argmax())


class OneHotSpace(spaces.Box):
    """The one-hot vectors of a length; a ``Box`` in [0, 1] that samples and contains only those.

    :param n: number of entries
    """

    def __init__(self, n: int):
        super().__init__(0.0, 1.0, (n,), np.float32)

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        """Return a random one-hot vector."""
        vector = np.zeros(self.shape, np.float32)
        vector[int(self.np_random.integers(self.shape[0]))] = 1.0
        return vector

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` has a single 1 and is 0 elsewhere."""
        return bool(super().contains(x) and np.count_nonzero(x) == 1 and np.max(x) == 1.0)

    def __repr__(self) -> str:
        return f"OneHotSpace({self.shape[0]})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, OneHotSpace) and self.shape == other.shape

    __hash__ = None  # type: ignore[assignment]
