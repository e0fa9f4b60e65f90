"""Repeat, limits, lives, discounts, no-ops and counters, checked step by step on the counting environment."""

import gymnasium as gym
import numpy as np
import pytest

from sb3_dreamer.wrappers import ActionRepeat, DiscountInfo, FrameCounter, FrameLimit, LifeLoss, NoopReset


def test_repeat_sums_rewards_and_tells_frames(counting):
    env = ActionRepeat(counting(length=10), 4)
    env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(1)
    assert (obs[1], reward, terminated, truncated, info["frames"]) == (4, 1 + 2 + 3 + 4, False, False, 4)
    assert env.unwrapped.actions == [1, 1, 1, 1]


def test_repeat_stops_at_the_end(counting):
    env = ActionRepeat(counting(length=6), 4)
    env.reset(seed=0)
    env.step(0)
    obs, reward, terminated, _, info = env.step(0)
    assert (obs[1], reward, terminated, info["frames"]) == (6, 5 + 6, True, 2)


def test_repeats_multiply(counting):
    env = ActionRepeat(ActionRepeat(counting(length=20), 2), 3)
    env.reset(seed=0)
    assert env.step(0)[4]["frames"] == 6
    assert env.metadata["render_fps"] == 20 / 6 and env.unwrapped.metadata["render_fps"] == 20


def test_max_pool_takes_the_last_frames_of_this_step_only(counting):
    class Flicker(gym.ObservationWrapper):
        def observation(self, observation):
            return np.where(self.unwrapped.t % 2, 0, observation).astype(np.uint8)  # odd frames are black

    env = ActionRepeat(Flicker(counting(kind="image", length=6)), 3, max_pool=2)
    env.reset(seed=0)
    assert env.step(0)[0].max() == 2  # frames 2 and 3 (black)
    assert env.step(0)[0].max() == 6  # frames 5 (black) and 6, the end
    one = ActionRepeat(Flicker(counting(kind="image", length=4)), 3, max_pool=2)
    one.reset(seed=0)
    one.step(0)
    obs, _, terminated, _, info = one.step(0)
    assert terminated and info["frames"] == 1 and obs.max() == 4  # a single frame: nothing older is mixed in


def test_max_pool_of_an_environment_that_reuses_its_array(counting):
    class OneArray(gym.ObservationWrapper):
        buffer = np.zeros((8, 12, 3), np.uint8)

        def observation(self, observation):
            self.buffer[:] = 100 if self.unwrapped.t % 2 else 50
            return self.buffer

    env = ActionRepeat(OneArray(counting(kind="image")), 2, max_pool=2)
    env.reset(seed=0)
    assert env.step(0)[0].max() == 100


def test_repeat_stops_at_a_lost_life(counting):
    env = ActionRepeat(LifeLoss(counting(length=20, lives=3)), 4)
    env.reset(seed=0)
    obs, _, terminated, truncated, info = env.step(0)
    assert (obs[1], info["frames"], info["discount"], info["life_lost"]) == (3, 3, 0.0, True)
    assert not terminated and not truncated


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2"])
def test_bad_repeat_is_refused(counting, bad):
    with pytest.raises(ValueError, match="amount"):
        ActionRepeat(counting(), bad)


def test_pooling_needs_a_box(counting):
    with pytest.raises(ValueError, match="Box"):
        ActionRepeat(counting(kind="dict"), 4, max_pool=2)


@pytest.mark.parametrize(
    "build,match",
    [
        (lambda make: ActionRepeat(make(), 2, max_pool=5), "max_pool=5: must be a whole number .* from 1 to 2"),
        (lambda make: ActionRepeat(make(), True), "amount=True"),
        (lambda make: FrameLimit(make(), True), "max_frames=True: must be a whole number of frames"),
        (lambda make: FrameLimit(make(), 0), "max_frames=0"),
        (lambda make: NoopReset(make(action="box")), "needs a Discrete action space, got Box"),
        (lambda make: NoopReset(make(), noop_action=99), r"noop_action=99 is no action of Discrete\(3\)"),
        (lambda make: NoopReset(make(), 0.5, 2), "low=0.5: must be a whole number of no-ops, from 0 to 2"),
        (lambda make: NoopReset(make(), 3, 2), "low=3: must be"),
        (lambda make: NoopReset(make(), 0, -1), "high=-1: must be"),
        (lambda make: LifeLoss(make(lives=0)).reset(), r"CountingEnv reports no info\['lives'\]: leave LifeLoss"),
    ],
)
def test_bad_arguments_are_refused(counting, build, match):
    with pytest.raises(ValueError, match=match):
        build(counting)


def test_numbers_of_numpy_are_whole_numbers(counting):
    assert type(FrameLimit(counting(), np.int64(5)).max_frames) is int
    assert NoopReset(counting(), np.int32(0), np.int32(2), noop_action=np.int64(1)).high == 2


@pytest.mark.parametrize("outside", [False, True])
def test_frame_limit_truncates_inside_and_outside_a_repeat(counting, outside):
    env = counting(length=100)
    env = FrameLimit(ActionRepeat(env, 4), 10) if outside else ActionRepeat(FrameLimit(env, 10), 4)
    for _ in range(2):
        env.reset(seed=0)
        steps = [env.step(0) for _ in range(3)]
        assert [step[3] for step in steps] == [False, False, True]
        assert not any(step[2] for step in steps)
        assert sum(step[4]["frames"] for step in steps) == (12 if outside else 10)


def test_limit_at_a_terminal_step_keeps_terminated(counting):
    env = FrameLimit(counting(length=5), 5)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(5)][-1] == (True, True)


@pytest.mark.parametrize("mode,ends", [("discount", False), ("reset", True)])
def test_life_loss(counting, mode, ends):
    env = DiscountInfo(LifeLoss(counting(length=20, lives=3), mode))
    env.reset(seed=0)
    told = [env.step(0) for _ in range(4)]
    assert [step[4]["discount"] for step in told] == [1.0, 1.0, 0.0, 1.0]
    assert [step[2] for step in told] == [False, False, ends, False]


def test_the_last_life_is_an_ordinary_end(counting):
    env = LifeLoss(counting(length=3, lives=1))
    env.reset(seed=0)
    last = [env.step(0) for _ in range(3)][-1]
    assert last[2] and "life_lost" not in last[4]


@pytest.mark.parametrize(
    "end,turn,flags,discount",
    [
        ("terminated", False, (True, False), 0.0),
        ("truncated", False, (False, True), 1.0),
        ("truncated", True, (True, False), 0.0),
    ],
)
def test_discount_at_the_end(counting, end, turn, flags, discount):
    env = DiscountInfo(counting(length=2, end=end), timeout_terminates=turn)
    env.reset(seed=0)
    assert env.step(0)[4]["discount"] == 1.0
    _, _, terminated, truncated, info = env.step(0)
    assert ((terminated, truncated), info["discount"]) == (flags, discount)


def test_noops_are_seeded_and_in_range(counting):
    env = NoopReset(counting(length=100), 2, 7, noop_action=2)
    counts = [env.reset(seed=seed)[1]["noops"] for seed in range(60)]
    assert set(counts) == {2, 3, 4, 5, 6, 7}
    assert counts == [env.reset(seed=seed)[1]["noops"] for seed in range(60)]
    obs, info = env.reset(seed=3)
    assert obs[1] == info["noops"] and set(env.unwrapped.actions) == {2}


def test_an_episode_that_ends_in_the_noops_restarts(counting):
    obs, _ = NoopReset(counting(length=4), 5, 5).reset(seed=0)
    assert tuple(obs[:2]) == (1, 1)


@pytest.mark.parametrize("start", [0, 5])
def test_the_noop_is_found_by_its_name(counting, start):
    class Game(counting):
        def __init__(self):
            super().__init__(length=100)
            self.action_space = gym.spaces.Discrete(3, start=start)

        def get_action_meanings(self):
            return ["FIRE", "NOOP", "UP"]

    env = NoopReset(gym.wrappers.OrderEnforcing(Game()), 4, 4)
    env.reset(seed=0)
    assert env.unwrapped.actions == [start + 1] * 4


def test_actions_with_names_but_no_noop_are_refused(counting):
    class Game(counting):
        def get_action_meanings(self):
            return ["FIRE", "UP", "DOWN"]

    with pytest.raises(ValueError, match="noop_action="):
        NoopReset(Game(), 0, 4)
    assert NoopReset(Game(), 0, 4, noop_action=2).noop_action == 2


def test_without_names_the_noop_is_the_first_action(counting):
    env = counting()
    env.action_space = gym.spaces.Discrete(3, start=2)
    assert NoopReset(env).noop_action == 2


def test_counter(counting):
    env = FrameCounter(ActionRepeat(counting(length=6), 4))
    env.reset(seed=0)
    env.step(0)

    def counts(info):
        names = ("frames", "episode_frames", "episode_steps")
        return [*(info[name] for name in names), env.total_frames, env.total_steps, env.total_episodes]

    assert counts(env.step(0)[4]) == [2, 6, 2, 6, 2, 1]
    assert counts(env.reset()[1]) == [0, 0, 0, 6, 2, 1]
    assert counts(env.step(0)[4]) == [4, 4, 1, 10, 3, 1]
