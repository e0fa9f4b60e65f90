"""What surrounds the updates of DreamerV2: schedules, pretraining, and the slow critic."""

import torch as th
from stable_baselines3.common.type_aliases import RolloutReturn, Schedule

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v2.behavior import DreamerV2Behavior
from sb3_dreamer.dreamer_v2.policies import MlpPolicy
from sb3_dreamer.dreamer_v2.recipe import ScheduledValues, apply_recipe


class DreamerV2Hooks(WorldModelAlgorithm):
    """The parts of :class:`DreamerV2` that are not its algorithm; arguments as there."""

    policy: MlpPolicy
    actor_learning_rate: float | Schedule
    critic_learning_rate: float | Schedule
    target_update_interval: int
    pretrain: int

    @property
    def behavior(self) -> DreamerV2Behavior:
        """Actor, critic and slow critic."""
        assert isinstance(self.policy.behavior, DreamerV2Behavior)
        return self.policy.behavior

    def _setup_model(self) -> None:
        super()._setup_model()
        self.scheduled: ScheduledValues = apply_recipe(self)  # type: ignore[arg-type]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "scheduled"]

    def _learning_rates(self) -> dict[str, float | Schedule]:
        return {
            "model_optim": self.learning_rate,
            "actor_optim": self.actor_learning_rate,
            "critic_optim": self.critic_learning_rate,
        }

    def _train_after(self, rollout: RolloutReturn) -> None:
        if self.pretrain and self._n_updates == 0:
            self.train(self.pretrain, self.batch_size)
        super()._train_after(rollout)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Do a number of updates; see :class:`WorldModelAlgorithm`."""
        self.scheduled.update(self._current_progress_remaining)
        super().train(gradient_steps, batch_size)

    def _after_update(self, batch: SequenceBatch, metrics: dict[str, th.Tensor]) -> None:
        """Move the slow critic, with the first update and then at every ``target_update_interval``-th."""
        if self._n_updates % self.target_update_interval == 0:
            self.behavior.update_slow_critic(self.tau)
