"""gymnasium's vector environments give exactly what DummyVecEnv gives, in every autoreset mode."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.vector_env import GymnasiumVecEnv
from tests.algorithms import equal, weights
from tests.counting_env import CountingEnv


class SeededCounting(CountingEnv):
    """Counts; has an entry that depends on the seed, infos of its own, and may hand its array out again."""

    def __init__(self, *args, kind: str = "box", reuse: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.kind, self.steps, self.reuse, self.out = kind, 0, reuse, np.zeros(4, np.float32)
        vector = spaces.Box(-1.0, 1e6, (4,), np.float32)
        self.observation_space = spaces.Dict(a=vector, n=spaces.Discrete(9)) if kind == "dict" else vector

    def _obs(self):
        self.out[:] = (*super()._obs(), self.np_random.random())
        vector = self.out if self.reuse else self.out.copy()
        return {"a": vector, "n": self.t} if self.kind == "dict" else vector

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed)
        return obs, {"first": self.episode, "options": str(options or None)}

    def step(self, action):
        self.steps += 1
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"action": int(action), "deep": {"t": self.t}}

    def double(self, value):
        return 2 * value


MAKERS = [
    functools.partial(SeededCounting, (2, 1, 3), ("terminated", "truncated", "both"), 0),
    functools.partial(SeededCounting, (4,), ("truncated",), 1),
    functools.partial(SeededCounting, (1, 5, 2), ("both", "terminated"), 2),
]
MODES = list(AutoresetMode)


def adapt(kind, mode, box="box", reuse=False, **kwargs):
    makers = [functools.partial(make, kind=box, reuse=reuse) for make in MAKERS]
    return GymnasiumVecEnv(kind(makers, autoreset_mode=mode, **kwargs))


def flat(obs):
    return {key: np.array(value) for key, value in obs.items()} if isinstance(obs, dict) else {"": np.array(obs)}


def rollout(env, steps=40):
    """All that a VecEnv returns."""
    rng = np.random.default_rng(0)
    env.seed(7)
    trace = [(flat(env.reset()), [dict(info) for info in env.reset_infos])]
    for _ in range(steps):
        obs, rewards, dones, infos = env.step(rng.integers(0, 5, env.num_envs))
        ends = [flat(info.pop("terminal_observation")) if done else {} for info, done in zip(infos, dones, strict=True)]
        assert not any("terminal_observation" in info for info in infos)
        firsts = [info if done else {} for info, done in zip(env.reset_infos, dones, strict=True)]
        trace.append((flat(obs), rewards.copy(), dones.copy(), ends, infos, firsts))
    return trace


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b) and a.dtype == b.dtype
    return a == b


@pytest.mark.parametrize("box", ["box", "dict"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_equal_to_dummy_vec_env(kind, mode, box):
    env = adapt(kind, mode, box)
    dummy = DummyVecEnv([functools.partial(make, kind=box) for make in MAKERS])
    for ours, theirs in zip(rollout(env), rollout(dummy), strict=True):
        assert same(ours, theirs), (ours, theirs)
    assert env.get_attr("steps") == [40] * 3, "a step of the vector is a step of every environment, none is a reset"
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_arrays_that_are_handed_out_again(mode):
    reuse = mode is not AutoresetMode.SAME_STEP  # there gymnasium itself keeps the environment's array
    env, dummy = adapt(SyncVectorEnv, mode, reuse=reuse, copy=False), DummyVecEnv(MAKERS)
    assert all(same(ours, theirs) for ours, theirs in zip(rollout(env), rollout(dummy), strict=True))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_workers_without_shared_memory(mode):
    env, dummy = adapt(AsyncVectorEnv, mode, shared_memory=False), DummyVecEnv(MAKERS)
    assert all(same(ours, theirs) for ours, theirs in zip(rollout(env), rollout(dummy), strict=True))
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_reported_by_a_monitor(mode):
    env = VecMonitor(adapt(SyncVectorEnv, mode))
    env.reset()
    told = [info["episode"] for _ in range(5) for info in env.step(np.zeros(3, int))[3] if "episode" in info]
    assert [(episode["r"], episode["l"]) for episode in told[:3]] == [(1, 1), (3, 2), (101, 1)]
    assert all(episode["t"] >= 0 for episode in told)


@pytest.mark.parametrize("mode", MODES)
def test_training_is_that_of_dummy_vec_env(mode):
    trained = []
    for env in (VecMonitor(adapt(SyncVectorEnv, mode)), VecMonitor(DummyVecEnv(MAKERS))):
        arguments = {"batch_size": 2, "batch_length": 4, "buffer_size": 300, "learning_starts": 12, "train_ratio": 2}
        model = DreamerV3("MlpPolicy", env, model_size="debug", seed=0, device="cpu", **arguments).learn(45)
        trained.append(model)
    assert trained[0]._n_updates > 0 and equal(*map(weights, trained))
    assert same(*(dict(model.replay_buffer.arrays) for model in trained))


@pytest.mark.parametrize("wrapped", [False, True])
def test_gymnasium_wrappers_may_lie_around(wrapped):
    vector = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    env = GymnasiumVecEnv(gym.wrappers.vector.RecordEpisodeStatistics(vector) if wrapped else vector)
    dummy = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
    env.seed(3)
    dummy.seed(3)
    assert same(env.reset(), dummy.reset())
    for action in np.random.default_rng(0).integers(0, 2, (60, 2)):
        ours, theirs = env.step(action), dummy.step(action)
        assert all(same(ours[i], theirs[i]) for i in range(3))
        for own, other in zip(ours[3], theirs[3], strict=True):
            assert all(same(own[name], value) for name, value in other.items())


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_attributes_and_methods(kind):
    env = adapt(kind, AutoresetMode.SAME_STEP)
    assert env.get_attr("index") == [0, 1, 2] and env.get_attr("index", [2, 0]) == [2, 0]
    assert env.has_attr("lengths") and not env.has_attr("suite_preset")
    with pytest.raises(AttributeError, match="'suite_preset'"):
        env.get_attr("suite_preset")
    env.set_attr("index", 9, indices=[1])
    assert env.get_attr("index") == [0, 9, 2], "the workers are alive after a missing attribute"
    env.set_attr("index", 4)
    assert env.env_method("double", 3) == [6, 6, 6] and env.get_attr("index") == [4, 4, 4]
    with pytest.raises(ValueError, match="indices=0"):
        env.env_method("double", 3, indices=0)
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3 and env.get_images() == [None] * 3
    env.close()


def test_wrappers_and_pictures_of_single_environments():
    env = GymnasiumVecEnv(gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", render_mode="rgb_array"))
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [True, True]
    env.reset()
    assert [frame.shape for frame in env.get_images()] == [(400, 600, 3)] * 2
    env.close()


def test_options_and_seeds():
    env = adapt(SyncVectorEnv, AutoresetMode.NEXT_STEP)
    env.set_options({"level": 3})
    env.reset()
    assert [info["options"] for info in env.reset_infos] == ["{'level': 3}"] * 3
    env.reset()
    assert env.reset_infos[0]["options"] == "None", "options are for one reset, as in Stable-Baselines3"
    env.set_options([{"level": 1}, {"level": 2}, {"level": 3}])
    with pytest.raises(ValueError, match="options differ"):
        env.reset()


def test_single_resets_are_needed():
    with pytest.raises(
        ValueError, match=r"CartPoleVectorEnv cannot .*make_vec\('CartPole-v1', num_envs=2, vect.*='sync'"
    ):
        GymnasiumVecEnv(gym.make_vec("CartPole-v1", 2))
    with pytest.raises(ValueError, match="NormalizeObservation in each of them"):
        GymnasiumVecEnv(gym.wrappers.vector.NormalizeObservation(gym.make_vec("CartPole-v1", 2, "sync")))
    with pytest.raises(ValueError, match="SAME_STEP"):
        adapt(AsyncVectorEnv, AutoresetMode.NEXT_STEP, shared_memory=False)
