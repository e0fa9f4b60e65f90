"""A task counts as solved only if a second evaluation, on other episodes, agrees with the first."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_dreamer import DreamerV3
from sb3_dreamer.zoo.runs.stopping import StopWhenSolved


class Scripted(gym.Env):
    """Episodes of one step, whose returns are given."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, returns: list[float]):
        self.returns = iter([*returns, *[0.0] * 9])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), next(self.returns), True, False, {}


@pytest.mark.parametrize(
    ("returns", "ends_after", "best"),
    [
        ([9.0, 9.5], 1, 9.0),  # confirmed at once
        ([9.0, 5.0, 8.0, 9.0, 9.0], 3, 9.0),  # a lucky one is averaged with the next; 8 is a new best, but no solution
        ([9.0, 5.0, 6.9, 1.0], None, 7.0),  # never again
        ([3.0, 4.0, 5.0], None, 5.0),  # no second evaluation below the mark
    ],
)
def test_two_evaluations_have_to_agree(returns, ends_after, best) -> None:
    env = VecMonitor(DummyVecEnv([lambda: Scripted(returns)]))
    model = DreamerV3("MlpPolicy", env, model_size="debug", verbose=0, seed=0)
    evaluation = EvalCallback(
        env, callback_on_new_best=StopWhenSolved(9.0), n_eval_episodes=1, eval_freq=1, verbose=0, warn=False
    )
    model._setup_learn(10)
    evaluation.init_callback(model)
    goes_on = [evaluation.on_step() for _ in range(3)]
    if ends_after is None:
        assert all(goes_on)
    else:
        assert goes_on[: ends_after - 1] == [True] * (ends_after - 1) and not goes_on[ends_after - 1]
    assert evaluation.best_mean_reward == pytest.approx(best)
