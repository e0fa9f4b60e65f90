"""RepeatPrevious: what is right, when it counts, the name."""

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from sb3_dreamer.wrappers import check_dreamer_env, make_env
from sb3_dreamer.wrappers.benchmarks.repeat_previous import RepeatPrevious

NAME = "sb3_dreamer.wrappers.benchmarks.repeat_previous:RepeatPrevious-v0"


@pytest.mark.parametrize("k", [1, 4])
def test_the_symbol_of_k_steps_before_is_right(k: int):
    env = RepeatPrevious(k=k, symbols=3, length=10)
    seen = [int(env.reset(seed=1)[0])]
    rewards, ends = [], []
    for t in range(k + 10):
        wrong = t % 5 == 4
        answer = (seen[t - k] + wrong) % 3 if t >= k else 0
        obs, reward, terminated, truncated, _ = env.step(answer)
        assert reward == (t >= k and not wrong) and not truncated
        seen.append(int(obs))
        rewards.append(reward)
        ends.append(terminated)
    assert sum(rewards) == 8 and ends == [False] * (k + 9) + [True]
    assert {*seen} == {0, 1, 2}


def test_the_last_symbol_does_not_help():
    env, total = RepeatPrevious(), 0.0
    for seed in range(50):
        obs, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            obs, reward, ended, _, _ = env.step(obs)
            total += reward
    assert total / 50 == pytest.approx(20 / 4, abs=1.0)


def test_name_checks_and_bad_numbers():
    check_env(gym.make(NAME).unwrapped, skip_render_check=True)
    assert check_dreamer_env(make_env(NAME, k=2), steps=100).ok
    for bad in ({"k": 0}, {"symbols": 1}, {"length": 0}):
        with pytest.raises(ValueError, match=r"k=.*must be at least"):
            RepeatPrevious(**bad)
