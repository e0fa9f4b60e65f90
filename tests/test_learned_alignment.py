"""A trained world model dreams the reward and the end of the action just taken, not of the one before or after.

A reward that is off by one step trains without any error and learns nothing: this is the test that sees it, through
environment, replay, world model and imagination at once.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.types import LatentState


class EchoEnv(gym.Env):
    """Action 0: nothing. Action 1: reward 1. Action 2: reward 2 and the end. The observation tells nothing of it."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action), action == 2, False, {}


@pytest.mark.parametrize("n_envs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_dream_of_a_trained_model(n_envs: int) -> None:
    env = DummyVecEnv([EchoEnv] * n_envs)
    model = DreamerV3(
        "MlpPolicy",
        env,
        model_size="debug",
        batch_size=16,
        batch_length=8,
        learning_starts=10**6,
        learning_rate=6e-3,
        horizon=3,  # the actor does not matter here
        buffer_size=2000,
        seed=0,
    )
    model.learn(600)  # uniform actions only
    model.train(180, 16)
    world_model = model.policy.world_model
    plan = th.tensor([0, 1, 0, 0, 1, 1, 2])
    one_hot = th.nn.functional.one_hot(plan, 3).float()
    actions = iter(one_hot)

    def policy(state: LatentState) -> th.Tensor:
        return next(actions).expand(32, -1)

    with th.no_grad():
        obs = {"obs": th.zeros(32, 1)}
        first = th.ones(32, dtype=th.bool)
        start = world_model.rssm.obs_step(world_model.rssm.initial(32), th.zeros(32, 3), world_model.encode(obs), first)
        states, taken = world_model.imagine(policy, start, len(plan))
        reward = world_model.reward(states.feat).median(0).values
        head = world_model.cont_head
        assert head is not None
        end_logit = head(states.feat).squeeze(-1).median(0).values
    assert th.equal(taken[0].argmax(-1), plan)
    np.testing.assert_allclose(reward, plan.float(), atol=0.25, err_msg="reward t + 1 belongs to action t")
    assert (end_logit[:-1] > 0).all() and end_logit[-1] < 0, "the end belongs to the action that caused it"
