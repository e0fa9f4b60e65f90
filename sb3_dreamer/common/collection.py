"""Collecting steps: acting with the recurrent carry, and storing what was seen."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq
from stable_baselines3.common.utils import should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from sb3_dreamer.common import distributed, report
from sb3_dreamer.common.checks import check_observation, check_reward
from sb3_dreamer.common.policy import PolicyState, WorldModelPolicy
from sb3_dreamer.common.spaces import as_dict
from sb3_dreamer.core.behavior import Behavior, RandomBehavior


class CollectionMethods(OffPolicyAlgorithm):
    """``collect_rollouts`` and what it calls, of a :class:`WorldModelAlgorithm`."""

    policy: WorldModelPolicy
    warmup_behavior: RandomBehavior
    _carry: PolicyState | None
    _restart_seed: int | None
    _collecting: bool
    _forecast: report.Forecast

    def _restart_environments(self) -> None:
        """See :class:`sb3_dreamer.common.resume.checkpoint.CheckpointMethods`."""
        raise NotImplementedError

    def _train_owed(self) -> None:
        """See :class:`sb3_dreamer.common.learning.LearningMethods`."""
        raise NotImplementedError

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Collect steps and store them; as in SB3, but a step is stored before the callbacks see it.

        A checkpoint that a callback writes therefore holds the step that ``num_timesteps`` counts.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        if self._restart_seed is not None:
            self._restart_environments()
        self._collecting = True
        try:
            return self._collect(env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval)
        finally:
            self._collecting = False

    def _collect(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None,
        learning_starts: int,
        log_interval: int | None,
    ) -> RolloutReturn:
        num_collected_steps, num_collected_episodes = 0, 0
        while should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
            with self._forecast.part("acting"):
                actions, buffer_actions = self._sample_action(learning_starts, action_noise, env.num_envs)
            env.step_async(actions)
            self._train_owed()  # with overlap, while environments in other processes take their step
            with self._forecast.part("environments"):
                new_obs, rewards, dones, infos = env.step_wait()
            self.num_timesteps += env.num_envs * distributed.world_size()
            num_collected_steps += 1
            with self._forecast.part("storing"):
                self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)  # type: ignore[arg-type]
            self._update_info_buffer(infos, dones)
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            callback.update_locals(locals())
            if not callback.on_step():
                return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, False)
            for _ in range(int(dones.sum())):
                num_collected_episodes += 1
                self._episode_num += 1
                if log_interval is not None and self._episode_num % log_interval == 0:
                    self.dump_logs()
        callback.on_rollout_end()
        return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, True)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions for the environments and for replay; moves the recurrent carry on.

        During the warm-up actions are uniform, but the carry follows, with the action that was executed.
        """
        assert self._carry is not None and self._last_obs is not None
        warmup = self.num_timesteps < learning_starts
        self._carry = self.policy.step(
            self._tensors(self._last_obs),
            self._carry,
            th.as_tensor(self._last_episode_starts, device=self.device),
            behavior=self.warmup_behavior if warmup else self._exploration_behavior(),
        )
        codec = self.policy.codec
        compact = codec.from_model(self._carry.prev_action)
        if action_noise is not None and codec.layout.kind == "continuous":
            compact = (
                (compact + th.as_tensor(action_noise(), device=self.device).reshape(compact.shape)).float().clamp(-1, 1)
            )
            self._carry = self._carry._replace(prev_action=compact)
        buffer_action = compact.cpu().numpy()
        return codec.to_env(buffer_action), buffer_action

    def _exploration_behavior(self) -> Behavior | None:
        """Who acts after the warm-up; None: the policy's own behaviour."""
        return None

    def _tensors(self, obs: Any) -> dict[str, th.Tensor]:
        return {key: th.as_tensor(value, device=self.device) for key, value in as_dict(obs).items()}

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store what the agent saw, with the true final observation where an episode ended."""
        check_observation(new_obs, self.num_timesteps)
        check_reward(reward, self.num_timesteps)
        final = {key: value.copy() for key, value in as_dict(new_obs).items()}
        for i in np.flatnonzero(dones):
            last = as_dict(infos[i]["terminal_observation"])
            for key, value in final.items():
                value[i] = last[key]
        check_observation(final, self.num_timesteps)
        replay_buffer.add(self._last_obs, final, buffer_action, reward, dones, infos)  # type: ignore[arg-type]
        self._last_obs = new_obs
        self._last_episode_starts = dones
