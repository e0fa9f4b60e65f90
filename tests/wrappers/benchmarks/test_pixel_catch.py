"""PixelCatch: the board, the rules, the name."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sb3_dreamer.wrappers import check_dreamer_env, make_env
from sb3_dreamer.wrappers.benchmarks.pixel_catch import PixelCatch

NAME = "sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0"


def test_the_image_is_the_board():
    env = PixelCatch(cells=5, scale=3)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (15, 15, 1) and obs[::3, ::3, 0].tolist()[-1] == [0, 0, 128, 0, 0]
    ball = int(obs[0, ::3, 0].argmax())
    assert obs[0, 3 * ball, 0] == 255
    obs, *_ = env.step(0)
    assert obs[3, 3 * ball, 0] == 255 and obs[-1, 3, 0] == 128, "the ball fell a row, the paddle moved left"


def test_following_the_ball_wins_and_standing_still_rarely():
    scores = {}
    for name, act in {"follow": lambda env: 1 + np.sign(env.column - env.paddle), "stay": lambda env: 1}.items():
        env, rewards = PixelCatch(), []
        for seed in range(40):
            env.reset(seed=seed)
            steps = [env.step(act(env)) for _ in range(7)]
            assert [step[2] for step in steps] == [False] * 6 + [True] and not any(step[1] for step in steps[:-1])
            rewards.append(steps[-1][1])
        scores[name] = np.mean(rewards)
    assert scores["follow"] == 1.0 and -1.0 < scores["stay"] < -0.4


def test_name_wrappers_and_checks():
    env = make_env(NAME, render_mode="rgb_array")
    assert env.get_wrapper_attr("suite_preset")["task"] == NAME
    env.reset(seed=0)
    assert env.render().shape == (16, 16, 3) and PixelCatch().render() is None
    check_env(gym.make(NAME).unwrapped, skip_render_check=True)
    assert check_dreamer_env(env, steps=100).ok


def test_the_background_moves_and_hides_nothing():
    env, plain = PixelCatch(noise=200), PixelCatch()
    env.reset(seed=3)
    assert plain.reset(seed=3)[0].max() == 255 and env.column == plain.column, "the balls are those without noise"
    pattern, direction = env.pattern.copy(), env.direction
    assert 0 < pattern.mean() < 200 and pattern.max() <= 200
    for step in range(1, 4):
        obs, *_ = env.step(1)
        board = plain.step(1)[0]
        np.testing.assert_array_equal(obs[board > 0], board[board > 0])
        moved = np.roll(pattern, (step * direction[0], step * direction[1]), (0, 1))[..., None]
        np.testing.assert_array_equal(obs[board == 0], moved[board == 0])
    env.reset()
    assert not np.array_equal(env.pattern, pattern), "every episode has a pattern of its own"
    check_env(PixelCatch(noise=200), skip_render_check=True)


@pytest.mark.parametrize("arguments", [{"cells": 2}, {"scale": 0}, {"noise": 256}, {"render_mode": "human"}])
def test_arguments_are_checked(arguments):
    with pytest.raises(ValueError, match="must be"):
        PixelCatch(**arguments)
