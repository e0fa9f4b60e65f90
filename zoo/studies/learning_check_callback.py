"""The callback of :mod:`sb3_dreamer.zoo.studies.learning_check`: evaluates, and stops at a goal or a time limit."""

import time
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv


class CheckCallback(BaseCallback):
    """Evaluates the deterministic policy every so often and remembers every training episode.

    :param eval_env: environment of the evaluations
    :param every: agent steps between two evaluations; 0: never
    :param episodes: of an evaluation
    :param goal: stop if an evaluation reaches it, and a second one of other episodes as well; None: never
    :param name: of the run, in what is printed
    :param seconds: stop when training and evaluations have taken this much processor time
    """

    def __init__(self, eval_env: VecEnv, *, every: int, episodes: int, goal: float | None, seconds: float, name: str):
        super().__init__()
        self.eval_env = eval_env
        self.every = every
        self.episodes = episodes
        self.goal = goal
        self.seconds = seconds
        self.name = name
        self.next_step = every
        self.evaluations: list[list[float]] = []
        self.training_episodes: list[list[float]] = []
        self.stopped = "all steps done"

    def _on_training_start(self) -> None:
        self.start = time.process_time()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.training_episodes.append([self.num_timesteps, float(info["episode"]["r"])])
        if self.every and self.num_timesteps >= self.next_step:
            self.next_step += self.every
            if self._reaches_goal() and self._reaches_goal():
                self.stopped = "goal reached"
                return False
        if time.process_time() - self.start > self.seconds:
            self.stopped = "time limit"
            return False
        return True

    def _reaches_goal(self) -> bool:
        """Evaluate once; whether the mean return is at least the goal."""
        returns: Any = evaluate_policy(
            self.model, self.eval_env, self.episodes, deterministic=True, return_episode_rewards=True
        )[0]
        mean, std = float(np.mean(returns)), float(np.std(returns))
        self.evaluations.append([self.num_timesteps, round(mean, 4), round(std, 4)])
        print(f"{self.name}, step {self.num_timesteps}: {mean:.1f} +- {std:.1f}", flush=True)
        return self.goal is not None and mean >= self.goal
