"""When PlaNet collects at random and when it updates: the outer loop of Algorithm 1 (arXiv 1811.04551)."""

import time
from typing import Literal

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import RolloutReturn

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.planet.forecast import PlaNetForecast


class EpisodeSchedule(WorldModelAlgorithm):
    """Random episodes first, then rounds of updates that follow the finished episodes.

    :ivar seed_episodes: episodes with random actions, S
    :ivar collect_interval: updates of a round, C
    :ivar collection: ``planner`` or ``random``
    """

    seed_episodes: int
    collect_interval: int
    collection: Literal["planner", "random"]
    planning_horizon: int
    planning_iterations: int
    planning_candidates: int
    planning_elites: int

    def describe(self) -> list[tuple[str, str]]:
        """See :meth:`WorldModelAlgorithm.describe`; updates follow the episodes."""
        rows = super().describe()
        words = f"{self.collect_interval} per finished episode, after {self.seed_episodes} random ones"
        search = (
            f"CEM, {self.planning_iterations} iterations of {self.planning_candidates:,} sequences of "
            f"{self.planning_horizon} steps, {self.planning_elites} elites"
        )
        by_episode = self.gradient_steps is None and not self.train_ratio
        rows = [(name, words if name == "updates" and by_episode else text) for name, text in rows]
        return [*rows, ("planning", search)]

    def _make_forecast(self) -> PlaNetForecast:
        return PlaNetForecast(self)

    def _train_after(self, rollout: RolloutReturn) -> None:
        """C updates once the seed episodes are complete, then C for each episode that is finished."""
        if self._episode_num < self.seed_episodes:
            return
        if self.gradient_steps is not None or self.train_ratio:
            super()._train_after(rollout)
            return
        now, before = self._episode_num, self._episode_num - rollout.n_episodes
        rounds = self._rounds(now) - self._rounds(before)
        if rounds > 0:
            self.train(rounds * self.collect_interval, self.batch_size)

    def _rounds(self, episodes: int) -> int:
        """Rounds of updates that Algorithm 1 has done when this many episodes are finished."""
        return max(0, episodes - max(1, self.seed_episodes) + 1)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Random until the seed episodes are complete, then planned; the time of planning is logged."""
        if self._episode_num < self.seed_episodes or self.collection == "random":
            learning_starts = self.num_timesteps + 1
        start = time.perf_counter()
        actions = super()._sample_action(learning_starts, action_noise, n_envs)
        if self.num_timesteps >= learning_starts:
            milliseconds = 1000.0 * (time.perf_counter() - start)
            self._metrics.add({"plan_ms": th.tensor(milliseconds)})
        return actions
