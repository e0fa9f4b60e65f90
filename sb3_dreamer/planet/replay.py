"""Replay that draws a share of each batch from the latest episodes."""

from typing import Any

import numpy as np
import torch as th

from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.types import SequenceBatch


class RecentReplayBuffer(SequenceReplayBuffer):
    """Sequence replay with half of a batch from recent episodes, the rest from all (PlaNet's ``recent`` loader).

    The released loader takes up to 500 episodes that came since it last looked and up to 500 others, so that its halves
    are halves only once there are that many; Algorithm 1 itself draws uniformly (``recent_share=0``).

    :param recent_share: share of recent sequences, 0 to 1
    :param recent_episodes: how many of the last episodes are recent, over all environments

    The others as :class:`SequenceReplayBuffer`.
    """

    def __init__(self, *args: Any, recent_share: float = 0.5, recent_episodes: int = 10, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.set_recent(recent_share, recent_episodes)

    def set_recent(self, share: float, episodes: int) -> None:
        """Change share and number of recent episodes."""
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"recent_share={share!r} must be between 0 and 1")
        if episodes < 1:
            raise ValueError(f"recent_episodes={episodes!r} must be at least 1")
        self.recent_share = share
        self.recent_episodes = episodes

    def sample_sequences(self, batch: int, length: int) -> SequenceBatch:
        """See :class:`SequenceReplayBuffer`; which sequences are recent is drawn, too, if the share is not whole."""
        exact = batch * self.recent_share
        recent = int(exact) + int(self.rng.random() < exact - int(exact))
        if recent == 0 or not self.ready(length):
            return super().sample_sequences(batch, length)
        if recent == batch:
            return self._sample_recent(batch, length)
        parts = (self._sample_recent(recent, length), super().sample_sequences(batch - recent, length))
        obs = {key: th.cat([part.obs[key] for part in parts]) for key in parts[0].obs}
        return SequenceBatch(obs, *(th.cat(pair) for pair in zip(*(part[1:] for part in parts), strict=True)))

    def recent_rows(self) -> np.ndarray:
        """For each environment, how many of its newest rows belong to its recent episodes, ``(n_envs,)``."""
        episodes = -(-self.recent_episodes // self.n_envs)
        rows = self.filled.copy()
        for env in range(self.n_envs):
            starts = np.flatnonzero(self.arrays["is_first"][env])
            ages = np.sort((self.cursor[env] - starts - 1) % self.ring + 1)
            ages = ages[ages <= self.filled[env]]
            if len(ages) >= episodes:
                rows[env] = ages[episodes - 1]
        return rows

    def _sample_recent(self, batch: int, length: int) -> SequenceBatch:
        """Sequences that end in recent episodes: they begin there, too, unless these are shorter than a sequence."""
        recent = np.minimum(np.maximum(self.recent_rows(), length), self.filled)
        return self._draw(batch, length, recent)
