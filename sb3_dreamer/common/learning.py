"""Learning: the loop of collecting and updating, what is owed in updates, and the log."""

import contextlib
import functools
import warnings
from typing import TYPE_CHECKING, TypeVar, cast

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, Schedule, TrainFreq

from sb3_dreamer.common import distributed, report, together
from sb3_dreamer.common.collection import CollectionMethods
from sb3_dreamer.common.offline import OfflineMethods
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.resume.checkpoint import CheckpointMethods
from sb3_dreamer.common.updates import prefetch
from sb3_dreamer.common.updates.malloc import keep_freed_memory
from sb3_dreamer.common.updates.ratio import UpdateRatio
from sb3_dreamer.common.updates.runner import UpdateMethods

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm

Self = TypeVar("Self", bound="LearningMethods")


class LearningMethods(CheckpointMethods, OfflineMethods, CollectionMethods, UpdateMethods):
    """``learn`` and ``train`` of a :class:`WorldModelAlgorithm`."""

    replay_buffer: SequenceReplayBuffer
    batch_length: int
    ratio: UpdateRatio
    lr_schedules: dict[str, Schedule]
    overlap: bool
    prefetch: bool | None
    _owed: int
    _ratio_state: list[int]
    _metrics: report.MetricMeans
    _callback: BaseCallback | None
    _forecast: report.Forecast

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps:
            self._resume = self._restart_seed = None
        together.join(cast("WorldModelAlgorithm", self))
        callback, progress_bar = together.own_callbacks(callback), progress_bar and distributed.is_first()
        if self.optimize_memory_usage and reset_num_timesteps and self.replay_buffer.size() > 0:  # as SB3 does
            warnings.warn(
                "The last trajectory in the replay buffer will be truncated: learn() resets the environments. "
                "Use reset_num_timesteps=False to go on with the running episodes",
                stacklevel=3,
            )
        self._resume_random()
        resets = reset_num_timesteps or self._last_obs is None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if resets:
            self.replay_buffer.cut()
        if self._carry is None or resets or len(self._carry.deter) != self.n_envs:
            self._carry = self.policy.initial_state(self.n_envs)
        report.check_memory(self.replay_buffer, -(-total_timesteps // distributed.world_size()))
        if self.device.type == "cpu":
            keep_freed_memory()
        self._callback = result[1]
        self._forecast = self._make_forecast()
        return result

    def _make_forecast(self) -> report.Forecast:
        """What says, after some updates, how long the run will take."""
        return report.Forecast(cast("WorldModelAlgorithm", self))

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` agent steps.

        :param total_timesteps: agent steps over all environments (a lower bound, as in SB3)
        :param callback: called at every step
        :param log_interval: episodes between two log lines
        :param tb_log_name: name of the TensorBoard run; the class's name by default
        :param reset_num_timesteps: False goes on counting, and goes on with the running episodes
        :param progress_bar: show a progress bar
        :return: the model itself
        """
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        callback.on_training_start(locals(), globals())
        self._resume_rest()
        while self.num_timesteps < total_timesteps:
            rollout, filled = self._collect_together(callback, log_interval)
            if not rollout.continue_training:
                break
            if self.num_timesteps > self.learning_starts and filled:
                self._train_after(rollout)
        self._train_owed()
        callback.on_training_end()
        return self

    def _collect_together(self, callback: BaseCallback, log_interval: int) -> distributed.Merged:
        """Collect once, on all ranks: what they decide from afterwards is the same everywhere."""
        assert self.env is not None and isinstance(self.train_freq, TrainFreq)
        alone = distributed.world_size() == 1
        steps, episodes = self.num_timesteps, self._episode_num
        rollout = self.collect_rollouts(
            self.env,
            callback,
            self.train_freq,
            self.replay_buffer,
            self.action_noise,
            self.learning_starts,
            log_interval if alone else None,
        )
        if alone:
            return distributed.Merged(rollout, self._replay_is_filled())
        merged = distributed.merge(rollout, self._replay_is_filled() and self.replay_buffer.ready(self.batch_length))
        self.num_timesteps = steps + merged.rollout.episode_timesteps
        self._episode_num = episodes + merged.rollout.n_episodes
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        if log_interval and self._episode_num // log_interval > episodes // log_interval:
            together.dump_logs(cast("WorldModelAlgorithm", self))
        return merged

    def _replay_is_filled(self) -> bool:
        """Whether replay holds as much as before the first update; not so after a resume without replay."""
        replay = self.replay_buffer
        share = -(-self.learning_starts // distributed.world_size())
        return replay.size() >= min(share, replay.buffer_size * replay.n_envs)

    def _train_after(self, rollout: RolloutReturn) -> None:
        """The updates that a stretch of collection asks for."""
        if self.gradient_steps is None:
            updates = (
                self.ratio.updates(rollout.episode_timesteps) if self.replay_buffer.ready(self.batch_length) else 0
            )
        else:
            updates = self.gradient_steps if self.gradient_steps >= 0 else rollout.episode_timesteps
        self._owed += updates
        self._ratio_state = self.ratio.state()
        if not self.overlap:
            self._train_owed()

    def _train_owed(self) -> None:
        """Do the updates that collection has earned."""
        updates, self._owed = self._owed, 0
        if updates > 0:
            self.train(updates, self.batch_size)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Do a number of updates, as soon as replay holds a whole sequence.

        :param gradient_steps: number of updates
        :param batch_size: B
        """
        if not self.replay_buffer.ready(self.batch_length):
            return
        self.policy.set_training_mode(True)
        for name, schedule in self.lr_schedules.items():
            self.optimizers[name].set_learning_rate(schedule(self._current_progress_remaining))
        draw = functools.partial(self.replay_buffer.sample_sequences, batch_size, self.batch_length)
        ahead = self.device.type == "cuda" if self.prefetch is None else self.prefetch
        ahead = ahead and self.replay_buffer.draws_ahead
        with contextlib.closing(prefetch.batches(draw, gradient_steps, self.device, ahead=ahead)) as batches:
            for _ in range(gradient_steps):
                with self._forecast.part("sampling"):
                    batch = next(batches)
                with self._forecast.timed_update():
                    metrics = self.update(batch)
                self._metrics.add(distributed.average_metrics(metrics))
                self._n_updates += 1
        self.logger.record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def dump_logs(self) -> None:
        """Write log data: SB3's keys, and the means of all metrics since the last time."""
        for name, value in self._metrics.take().items():
            self.logger.record(f"train/{name}", value)
        super().dump_logs()
