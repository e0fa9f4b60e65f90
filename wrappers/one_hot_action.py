"""Take discrete actions as one-hot vectors."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space


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
    :param batch: shape of an array of such vectors, as a vector environment takes; default: one vector
    :param seed: as in ``gymnasium.spaces.Box``
    """

    def __init__(self, n: int, batch: tuple[int, ...] = (), seed: int | np.random.Generator | None = None):
        super().__init__(0.0, 1.0, (*batch, n), np.float32, seed)

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        """Return a random one-hot vector, or an array of them."""
        *batch, n = self.shape
        return np.eye(n, dtype=np.float32)[self.np_random.integers(n, size=batch)]

    def contains(self, x: Any) -> bool:
        """Return whether each vector of ``x`` has a single 1 and is 0 elsewhere."""
        return bool(super().contains(x) and (np.count_nonzero(x, -1) == 1).all() and (np.max(x, -1) == 1.0).all())

    def __repr__(self) -> str:
        *batch, n = self.shape
        return f"OneHotSpace({n}, {tuple(batch)})" if batch else f"OneHotSpace({n})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, OneHotSpace) and self.shape == other.shape

    __hash__ = None  # type: ignore[assignment]


@batch_space.register(OneHotSpace)
def _batch_one_hot(space: OneHotSpace, n: int = 1) -> OneHotSpace:
    """Return the space of the actions of ``n`` environments; gymnasium would take a plain ``Box``."""
    return OneHotSpace(space.shape[-1], (n, *space.shape[:-1]), copy.deepcopy(space.np_random))
