"""Replay alignment, pinned with an environment that counts."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.types import SequenceBatch
from tests.counting_env import CountingEnv

ENDS = [("terminated",), ("truncated",), ("both",), ("terminated", "truncated", "both")]


def collect(lengths: tuple[int, ...], ends: tuple[str, ...], n_envs: int, steps: int, **kwargs) -> tuple:
    """A model that has collected ``steps`` agent steps, and the actions that each environment executed."""
    executed: list[list[int]] = [[] for _ in range(n_envs)]

    def make(i: int) -> CountingEnv:
        class Recorder(CountingEnv):
            def step(self, action: int) -> tuple:
                executed[i].append(int(action))
                return super().step(action)

        # Environments differ in their episode lengths, so that their rows do not run in step.
        return Recorder(tuple(length + i for length in lengths), ends, i)

    env = DummyVecEnv([lambda i=i: make(i) for i in range(n_envs)])
    model = DreamerV3("MlpPolicy", env, model_size="debug", learning_starts=10**9, buffer_size=400 * n_envs, seed=1)
    model.learn(steps, **kwargs)
    return model, executed


def rows(model: DreamerV3, env: int) -> SequenceBatch:
    """All rows of one environment, in the order in which they were written."""
    replay = model.replay_buffer
    count = int(replay.filled[env])
    return replay.gather(np.array([env]), np.arange(count)[None])


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("ends", ENDS, ids="-".join)
@pytest.mark.parametrize("lengths", [(1,), (1, 2, 5), (4,)], ids=str)
def test_rows_of_episodes(lengths: tuple[int, ...], ends: tuple[str, ...], n_envs: int) -> None:
    model, executed = collect(lengths, ends, n_envs, 20 * n_envs)
    for env in range(n_envs):
        batch = rows(model, env)
        index, episode, t = (batch.obs["obs"][0, :, i].numpy() for i in range(3))
        length = np.array([lengths[min(int(e), len(lengths) - 1)] + env for e in episode])
        end = np.array([ends[min(int(e), len(ends) - 1)] for e in episode])
        assert (index == env).all()
        # L + 1 rows for each episode: its steps are counted without a gap, the final observation included.
        expected = [(e, s) for e in range(int(episode[-1]) + 1) for s in range(int(length[episode == e][0]) + 1)]
        assert list(zip(episode, t, strict=True)) == expected[: len(t)]
        np.testing.assert_array_equal(batch.is_first[0], t == 0)
        np.testing.assert_array_equal(batch.is_last[0], t == length)
        # Both flags at once count as an end by the task: there is nothing to bootstrap from.
        np.testing.assert_array_equal(batch.is_terminal[0], (t == length) & (end != "truncated"))
        np.testing.assert_array_equal(batch.reward[0], np.where(t == 0, 0.0, 100 * episode + t))
        action = batch.prev_action[0]
        assert (action[t == 0] == 0).all(), "no action leads to a first row"
        assert action[t > 0].argmax(-1).tolist() == executed[env], "replay holds the actions that were executed"
        assert (action[t > 0].sum(-1) == 1).all()


def test_both_flags_follow_sb3() -> None:
    """SB3 marks a step that terminates and truncates at once as not truncated, so it counts as terminal."""
    model, _ = collect((2,), ("both",), 1, 6)
    batch = rows(model, 0)
    assert batch.is_terminal.sum() == batch.is_last.sum() > 0


def test_reset_between_learn_calls_cuts_the_episode() -> None:
    model, _ = collect((50,), ("terminated",), 1, 7)
    model.learn(4, reset_num_timesteps=True)
    batch = rows(model, 0)
    assert batch.is_first[0].nonzero().flatten().tolist() == [0, 8]
    assert batch.is_last[0].nonzero().flatten().tolist() == [7]
    assert not batch.is_terminal.any()


def test_going_on_without_reset_keeps_the_episode() -> None:
    model, _ = collect((50,), ("terminated",), 1, 7)
    model.learn(4, reset_num_timesteps=False)
    batch = rows(model, 0)
    assert batch.is_first[0].nonzero().flatten().tolist() == [0]
    assert batch.obs["obs"][0, :, 2].tolist() == list(range(12))


def test_ring_overwrites_the_oldest_rows_only() -> None:
    replay = SequenceReplayBuffer(10, spaces.Box(-1, 1e6, (1,), np.float32), spaces.Discrete(2), seed=0)
    for t in range(25):
        obs, after = (np.array([[value]], np.float32) for value in (t, t + 1))
        replay.add(obs, after, np.array([1]), np.array([t + 1.0]), np.array([False]), [{}])
    assert replay.filled[0] == 10
    seen = set()
    for _ in range(100):
        batch = replay.sample_sequences(4, 5)
        first = batch.obs["obs"][:, 0, 0]
        th.testing.assert_close(batch.obs["obs"][..., 0], first[:, None] + th.arange(5.0))
        th.testing.assert_close(batch.reward, batch.obs["obs"][..., 0])
        seen |= set(first.tolist())
    assert seen == {float(value) for value in range(16, 22)}, "every stretch of stored rows is drawn, and no other"


def test_sampling_is_uniform_over_environments_of_unequal_length() -> None:
    space = spaces.Box(-1, 1e6, (1,), np.float32)
    replay = SequenceReplayBuffer(200, space, spaces.Discrete(2), n_envs=2, seed=0)
    for _ in range(60):
        obs = np.array([[0.0], [1.0]], np.float32)
        # Environment 1 ends an episode at every step and so writes two rows for each step.
        replay.add(obs, obs, np.array([0, 0]), np.zeros(2), np.array([False, True]), [{}, {}])
    choices = replay.filled - 8 + 1
    batch = replay.sample_sequences(4000, 8)
    share = float(batch.obs["obs"][:, 0, 0].mean())
    assert abs(share - choices[1] / choices.sum()) < 0.03


def test_too_little_data_is_an_error_with_numbers() -> None:
    replay = SequenceReplayBuffer(10, spaces.Box(0, 1, (1,)), spaces.Discrete(2))
    assert not replay.ready(2)
    with pytest.raises(ValueError, match="no stretch of 5 rows"):
        replay.sample_sequences(1, 5)


def test_memory_is_taken_on_first_use() -> None:
    replay = SequenceReplayBuffer(10**12, spaces.Box(0, 255, (3, 64, 64), np.uint8), spaces.Discrete(2))
    assert replay.arrays == {}
    # 12,288 bytes of image, 8 of action, 4 of reward, 3 flags: each observation is stored once.
    assert replay.nbytes == 10**12 * (3 * 64 * 64 + 8 + 4 + 3)


def test_memory_is_announced_before_it_is_taken(capsys) -> None:
    model = DreamerV3("MlpPolicy", CountingEnv(), model_size="debug", buffer_size=10**9, verbose=1)
    assert not model.replay_buffer.arrays
    model.learn(1)
    # 12 bytes of observation, 8 of action, 4 of reward, 3 flags.
    assert f"replay: 1,000,000,000 steps = {27 * 10**9 / 2**30:.2f} GiB when full" in capsys.readouterr().out


def test_single_transitions_are_refused() -> None:
    replay = SequenceReplayBuffer(10, spaces.Box(0, 1, (1,)), spaces.Discrete(2))
    with pytest.raises(TypeError, match="sample_sequences"):
        replay.sample(3)
