"""What reaches replay while collecting: executed actions, raw values, whole episodes; and what is refused."""

import copy
import threading
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.spaces import ActionCodec
from tests.algorithms import tiny
from tests.counting_env import CountingEnv
from tests.spaces_env import SpacesEnv

BOX = spaces.Box(-1, 1, (3,), np.float32)


# ---- actions -------------------------------------------------------------------------------------------------------

INTEGER_BOXES = [
    spaces.Box(0, 1, (3,), np.int64),
    spaces.Box(-3, 4, (2,), np.int32),
    spaces.Box(0, 255, (1,), np.uint8),
    spaces.Box(5, 5, (1,), np.int64),
    spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64),
]


@pytest.mark.parametrize("space", INTEGER_BOXES, ids=str)
def test_integer_actions_are_rounded_and_stored_as_executed(space: spaces.Box) -> None:
    codec = ActionCodec(space)
    chosen = th.rand(2000, space.shape[0], generator=th.Generator().manual_seed(0)) * 2.4 - 1.2
    stored = codec.to_replay(codec.executed(chosen))
    executed = codec.to_env(stored)
    assert all(space.contains(action) for action in executed)
    np.testing.assert_allclose(codec.from_env(executed), stored, atol=1e-6)
    if int(space.high[0]) - int(space.low[0]) < 10:
        assert set(np.unique(executed)) == set(range(space.low[0], space.high[0] + 1)), "every value is executed"
        near = np.rint((chosen.numpy().clip(-1, 1) + 1) / 2 * (space.high - space.low) + space.low)
        np.testing.assert_array_equal(executed, near.astype(space.dtype))


def test_an_integer_box_in_training() -> None:
    model = tiny(DreamerV3, "MlpPolicy", SpacesEnv(BOX, spaces.Box(0, 1, (2,), np.int64))).learn(60)
    rows = model.replay_buffer.arrays["action"][0, : int(model.replay_buffer.filled[0])]
    assert set(np.unique(rows)) <= {-1.0, 0.0, 1.0} and 1.0 in rows and -1.0 in rows


@pytest.mark.parametrize("bound", [3.4e38, 1e30, 1.0])
def test_wide_bounds_give_finite_actions(bound: float) -> None:
    space = spaces.Box(-bound, bound, (2,), np.float32)
    codec = ActionCodec(space)
    for action in (-1.0, -0.3, 0.0, 0.7, 1.0):
        stored = np.full((1, 2), action, np.float32)
        executed = codec.to_env(stored)
        assert space.contains(executed[0])
        np.testing.assert_allclose(codec.from_env(executed), stored, atol=1e-6)


class Spy(OrnsteinUhlenbeckActionNoise):
    resets = 0

    def reset(self) -> None:
        super().reset()
        type(self).resets += 1


def test_noise_begins_anew_with_each_episode() -> None:
    noise = Spy(np.zeros(2), np.full(2, 0.3))
    Spy.resets = 0
    env = SpacesEnv(BOX, spaces.Box(-1, 1, (2,), np.float32), length=5)
    tiny(DreamerV3, "MlpPolicy", env, action_noise=noise).learn(20)
    assert Spy.resets >= 4


def test_each_environment_has_noise_of_its_own() -> None:
    env = make_vec_env(lambda: SpacesEnv(BOX, spaces.Box(-1, 1, (1,), np.float32)), 2)
    model = tiny(DreamerV3, "MlpPolicy", env, action_noise=NormalActionNoise(np.zeros(1), np.full(1, 0.1))).learn(20)
    assert len(model.action_noise.noises) == 2


def test_noise_of_another_number_of_environments(tmp_path) -> None:
    make = lambda n: make_vec_env(lambda: SpacesEnv(BOX, spaces.Box(-1, 1, (1,), np.float32)), n)  # noqa: E731
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    tiny(DreamerV3, "MlpPolicy", make(2), action_noise=noise).learn(10).save(tmp_path / "model")
    for n in (1, 3):
        assert DreamerV3.load(tmp_path / "model", env=make(n)).learn(9).num_timesteps >= 9
    with pytest.raises(ValueError, match=r"action_noise is for Box actions, and the action space is Discrete\(2\)"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", action_noise=noise)


# ---- VecNormalize --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [DreamerV3, DreamerV2, PlaNet])
def test_replay_holds_raw_values_and_sampling_normalizes_them(algorithm) -> None:
    env = VecNormalize(DummyVecEnv([lambda: CountingEnv(lengths=(9,))]), clip_obs=1e9, clip_reward=1e9)
    model = tiny(algorithm, "MlpPolicy", env).learn(60)
    replay = model.replay_buffer
    rows = int(replay.filled[0])
    raw = replay.arrays["obs.obs"][0, :rows]
    episode, step = raw[:, 1], raw[:, 2]
    np.testing.assert_allclose(raw, np.rint(raw), atol=1e-4)  # SB3 scales the last observation to and fro
    first = replay.arrays["is_first"][0, :rows]
    reward = np.where(first, 0.0, 100 * np.rint(episode) + np.rint(step))
    np.testing.assert_array_equal(replay.arrays["reward"][0, :rows], reward)
    for scale in (1.0, 4.0):  # the statistics of today, not those of the time of storing
        env.obs_rms.var = env.obs_rms.var * scale
        batch = replay.gather(np.zeros(1, int), np.arange(rows)[None])
        std = np.sqrt(env.obs_rms.var + env.epsilon)
        np.testing.assert_allclose(batch.obs["obs"][0].numpy(), (raw - env.obs_rms.mean) / std, rtol=1e-4, atol=1e-4)
        reward = replay.arrays["reward"][0, :rows] / np.sqrt(env.ret_rms.var + env.epsilon)
        np.testing.assert_allclose(batch.reward[0].numpy(), reward, rtol=1e-4)


def test_normalized_integers_are_stored_whole() -> None:
    class Whole(CountingEnv):
        def __init__(self):
            super().__init__(lengths=(7,))
            self.observation_space = spaces.Box(-1, 10**6, (3,), np.int32)

        def _obs(self) -> np.ndarray:
            return super()._obs().astype(np.int32)

    model = tiny(DreamerV3, "MlpPolicy", VecNormalize(DummyVecEnv([Whole]))).learn(50)
    replay = model.replay_buffer
    ends = replay.arrays["obs.obs"][0, replay.arrays["is_last"][0]]
    np.testing.assert_array_equal(ends[:, 1:], [[episode, 7] for episode in range(len(ends))])


def test_normalized_dict_observations() -> None:
    space = spaces.Dict({"a": spaces.Box(-9, 9, (2,)), "b": spaces.Box(-9, 9, (1,))})
    env = VecNormalize(DummyVecEnv([lambda: SpacesEnv(space, spaces.Discrete(2))]), norm_obs_keys=["a"])
    model = tiny(DreamerV3, "MultiInputPolicy", env).learn(40)
    batch = model.replay_buffer.gather(np.zeros(1, int), np.arange(6)[None])
    raw = {key: model.replay_buffer.arrays[f"obs.{key}"][0, :6] for key in "ab"}
    np.testing.assert_array_equal(batch.obs["b"][0].numpy(), raw["b"])
    assert not np.allclose(batch.obs["a"][0].numpy(), raw["a"])


# ---- environments that are moved from outside ----------------------------------------------------------------------


def jumps(model: Any) -> int:
    """Rows that do not follow from the row before them in the same episode."""
    replay = model.replay_buffer
    rows = int(replay.filled[0])
    obs, first = replay.arrays["obs.obs"][0, :rows], replay.arrays["is_first"][0, :rows]
    same = (obs[1:, 1] == obs[:-1, 1]) & (obs[1:, 2] == obs[:-1, 2] + 1)
    return int((~same & ~first[1:]).sum())


class Outside(BaseCallback):
    """Evaluates on the training environment at one step."""

    def __init__(self, env: Any):
        super().__init__()
        self.env = env

    def _on_step(self) -> bool:
        if self.num_timesteps in (30, 44):
            evaluate_policy(self.model, self.env, n_eval_episodes=1, warn=False)
        return True


@pytest.mark.parametrize("kind", ["gym", "dummy", "subproc", "normalized"])
def test_evaluating_on_the_training_environment_cuts_the_episode(kind: str) -> None:
    inner: Any = CountingEnv(lengths=(9,))
    env: Any = inner
    if kind != "gym":
        make = lambda: CountingEnv(lengths=(9,))  # noqa: E731
        env = SubprocVecEnv([make]) if kind == "subproc" else DummyVecEnv([make])
    if kind == "normalized":
        env = VecNormalize(env, norm_obs=False)
    model = tiny(DreamerV3, "MlpPolicy", env)
    with pytest.warns(UserWarning, match="stepped or reset from outside"):
        model.learn(70, callback=Outside(env))
    assert jumps(model) == 0
    with pytest.warns(UserWarning, match="stepped or reset from outside"):
        evaluate_policy(model, env, n_eval_episodes=1, warn=False)
        model.learn(20, reset_num_timesteps=False)
    assert jumps(model) == 0
    model.get_env().close()


def test_a_refused_step_cuts_the_episode() -> None:
    class Fails(CountingEnv):
        def step(self, action: int) -> Any:
            obs, reward, *rest = super().step(action)
            return obs, np.nan if (self.episode, self.t) == (1, 9) else reward, *rest

    model = tiny(DreamerV3, "MlpPolicy", Fails(lengths=(9,)))
    with pytest.raises(ValueError, match="nan"):
        model.learn(40)
    with pytest.warns(UserWarning, match="from outside"):
        model.learn(20, reset_num_timesteps=False)
    assert jumps(model) == 0


def test_evaluating_again_and_again_warns_once_a_run() -> None:
    model = tiny(DreamerV3, "MlpPolicy", CountingEnv(lengths=(9,)))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            callback = EvalCallback(model.get_env(), eval_freq=10, n_eval_episodes=1, verbose=0, warn=False)
            model.learn(40, callback=callback)
    assert len([w for w in found if "from outside" in str(w.message)]) == 2


def test_an_environment_of_its_own_cuts_nothing(recwarn) -> None:
    env = CountingEnv(lengths=(9,))
    model = tiny(DreamerV3, "MlpPolicy", env)
    model.learn(60, callback=EvalCallback(DummyVecEnv([CountingEnv]), eval_freq=10, verbose=0, warn=False))
    model.learn(20, reset_num_timesteps=False)
    assert not [w for w in recwarn if "from outside" in str(w.message)]
    replay = model.replay_buffer
    lasts = np.flatnonzero(replay.arrays["is_last"][0, : int(replay.filled[0])])
    assert np.all(np.diff(lasts) == 10), "whole episodes"


# ---- foreign vector environments -----------------------------------------------------------------------------------


class Foreign(DummyVecEnv):
    """Returns the same array at every step, and leaves the last observation of an episode out if told so."""

    def __init__(self, fns: Any, leaves_out: bool = False):
        super().__init__(fns)
        self.leaves_out, self.shared = leaves_out, np.zeros((1, 3), np.float32)

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = super().step_wait()
        self.shared[:] = obs
        if self.leaves_out:
            for info in infos:
                info.pop("terminal_observation", None)
        return self.shared, rewards, dones, infos

    def reset(self) -> Any:
        self.shared[:] = super().reset()
        return self.shared


def test_an_array_that_is_returned_again_is_copied() -> None:
    model = tiny(DreamerV3, "MlpPolicy", Foreign([lambda: CountingEnv(lengths=(4,))])).learn(30)
    replay = model.replay_buffer
    rows = int(replay.filled[0])
    np.testing.assert_array_equal(replay.arrays["obs.obs"][0, :rows, 2], np.arange(rows) % 5)


def test_a_missing_terminal_observation_is_told() -> None:
    model = tiny(DreamerV3, "MlpPolicy", Foreign([lambda: CountingEnv(lengths=(4,))], leaves_out=True))
    with pytest.raises(ValueError, match="environment 0 ended, but its info has no 'terminal_observation'"):
        model.learn(30)


class Wrong(VecEnv):
    """One environment whose observations do not fit its space."""

    def __init__(self, space: spaces.Space, obs: np.ndarray, reward: Any = 0.0):
        super().__init__(1, space, spaces.Discrete(2))
        self.obs, self.reward = obs, reward

    def reset(self) -> Any:
        return self.obs

    def step_async(self, actions: np.ndarray) -> None: ...

    def step_wait(self) -> Any:
        return self.obs, np.array([self.reward]), np.zeros(1, bool), [{}]

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        raise AttributeError(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [True]


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (
            spaces.Box(0, 255, (3,), np.uint8),
            np.full((1, 3), 0.5, np.float32),
            "is float32 .* is uint8",
        ),
        (BOX, np.zeros((1, 4), np.float32), r"shape \(4,\) .* has \(3,\)"),
        (spaces.Discrete(3), np.array([3]), r"environment 0 is 3, outside its space Discrete\(3\)"),
        (spaces.Discrete(3, start=2), np.array([1]), "environment 0 is 1"),
        (spaces.MultiDiscrete([3, 2]), np.array([[1, 2]]), "outside its space"),
        (spaces.Dict({"a": BOX, "b": BOX}), {"a": np.zeros((1, 3), np.float32)}, "observation 'b' is missing"),
    ],
)
def test_observations_outside_their_space(space: spaces.Space, obs: Any, message: str) -> None:
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    with pytest.raises(ValueError, match=message):
        tiny(DreamerV3, policy, Wrong(space, obs)).learn(5)


def test_observations_too_large_for_replay() -> None:
    space = spaces.Box(-1e39, 1e39, (3,), np.float64)
    with pytest.raises(ValueError, match=r"environment 0 is 1e\+39 at step 0: .* too large for float32"):
        tiny(DreamerV3, "MlpPolicy", Wrong(space, np.full((1, 3), 1e39))).learn(5)


def test_a_wrapper_that_returns_channels_last() -> None:
    image_env = SpacesEnv(spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Discrete(2))
    env = VecNormalize(DummyVecEnv([lambda: image_env]), norm_obs=False)
    with pytest.raises(ValueError, match=r"VecNormalize\(VecTransposeImage\(venv\)\)"):
        tiny(DreamerV3, "CnnPolicy", env).learn(5)


def test_noise_of_another_size() -> None:
    noise = NormalActionNoise(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=r"action_noise gives 3 numbers for 1 environment\(s\) with actions of 1"):
        tiny(DreamerV3, "MlpPolicy", "Pendulum-v1", action_noise=noise).learn(5)


@pytest.mark.parametrize("reward", [1e300, float("nan"), None])
def test_rewards_that_replay_cannot_hold(reward: Any) -> None:
    env = Wrong(BOX, np.zeros((1, 3), np.float32), reward)
    with pytest.raises(ValueError, match="reward of environment 0 is"):
        tiny(DreamerV3, "MlpPolicy", env).learn(5)


# ---- stopping ------------------------------------------------------------------------------------------------------


class StopAt(BaseCallback):
    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


def test_a_callback_that_stops_at_the_end_of_an_episode_counts_it() -> None:
    model = tiny(DreamerV3, "MlpPolicy", CountingEnv(lengths=(6,))).learn(60, callback=StopAt(12))
    assert (model.num_timesteps, model._episode_num) == (12, 2)


def test_learning_again_and_again_keeps_no_log_open(tmp_path) -> None:
    """TensorBoard's log has a thread of its own, and SB3 makes a new log for each learn()."""
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", tensorboard_log=str(tmp_path)).learn(1)
    before = threading.active_count()
    for _ in range(3):
        model.learn(1, reset_num_timesteps=False)
    assert threading.active_count() == before


def test_a_model_can_be_copied_after_learning() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(40)
    twin = copy.deepcopy(model)
    obs = gym.make("CartPole-v1").reset(seed=0)[0]
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], twin.predict(obs, deterministic=True)[0])
    twin.learn(20, reset_num_timesteps=False)
    assert twin.num_timesteps == 60 and model.num_timesteps == 40
