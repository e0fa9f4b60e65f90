"""Report episode returns in the task's own reward, whatever the agent learns from."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class _RawRewards(VecEnvWrapper):
    """Return the rewards before they were changed and keep those that the agent sees in ``learned``."""

    learned: np.ndarray

    def reset(self) -> VecEnvObs:
        """Nothing changes here."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Take ``info["raw_reward"]`` where a wrapper left it (see ``SquashReward``)."""
        obs, self.learned, dones, infos = self.venv.step_wait()
        raw = [info.get("raw_reward", reward) for info, reward in zip(infos, self.learned, strict=True)]
        return obs, np.array(raw, dtype=np.float32), dones, infos


class ScoreMonitor(VecMonitor):
    """Stable-Baselines3's ``VecMonitor``, but the episode's return is that of the task's own rewards.

    Stable-Baselines3's ``make_vec_env`` reaches the same by a ``Monitor`` inside of the wrappers that a user passes;
    there an episode's length counts environment frames, here agent steps.

    :param venv: environments to monitor
    :param filename: where ``monitor.csv`` goes; None writes none
    """

    venv: _RawRewards

    def __init__(self, venv: VecEnv, filename: str | None = None):
        super().__init__(_RawRewards(venv), filename)

    def step_wait(self) -> VecEnvStepReturn:
        """Count the raw rewards and return those to learn from."""
        obs, _, dones, infos = super().step_wait()
        return obs, self.venv.learned, dones, infos
