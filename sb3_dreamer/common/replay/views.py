"""What SB3's code reads off a replay buffer: arrays of shape (rows, n_envs, ...)."""

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dreamer.core.types import ObsKey


class ReplayViews(ReplayBuffer):
    """Views of the arrays of a :class:`sb3_dreamer.common.replay.buffer.SequenceReplayBuffer`, without copies."""

    arrays: dict[str, np.ndarray]
    keys: tuple[ObsKey, ...]

    def allocate(self) -> None:
        """Take the memory."""
        raise NotImplementedError

    def _view(self, name: str) -> np.ndarray:
        self.allocate()
        return self.arrays[name].swapaxes(0, 1)

    @property
    def observations(self) -> np.ndarray | dict[str, np.ndarray]:  # type: ignore[override]
        """Observations, ``(rows, n_envs, ...)``; a dict for a Dict space."""
        views = {key.name: self._view(f"obs.{key.name}") for key in self.keys}
        return views if isinstance(self.observation_space, spaces.Dict) else next(iter(views.values()))

    @property
    def actions(self) -> np.ndarray:  # type: ignore[override]
        """Actions that led to the observation of the same row, in replay form, ``(rows, n_envs, parts)``."""
        return self._view("action")

    @property
    def rewards(self) -> np.ndarray:  # type: ignore[override]
        """Rewards received with the observation of the same row, ``(rows, n_envs)``."""
        return self._view("reward")

    @property
    def dones(self) -> np.ndarray:  # type: ignore[override]
        """Last rows of episodes, ``(rows, n_envs)``."""
        return self._view("is_last")

    @property
    def timeouts(self) -> np.ndarray:  # type: ignore[override]
        """Last rows of episodes that were truncated, ``(rows, n_envs)``."""
        return self._view("is_last") & ~self._view("is_terminal")

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Not for single transitions: world models learn from sequences.

        :raises TypeError: always; use ``sample_sequences``
        """
        raise TypeError("SequenceReplayBuffer.sample() has no single transitions: use sample_sequences(batch, length)")
