"""What SB3 users rely on, for every algorithm: learn, predict, save, load, seeds, spaces, callbacks."""

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from tests.algorithms import VARIANTS, equal, tiny, weights, without_context
from tests.spaces_env import SpacesEnv, image

algorithms = pytest.mark.parametrize("algorithm", VARIANTS, ids=lambda cls: cls.__name__)
BOX = spaces.Box(-1, 1, (3,), np.float32)


@algorithms
def test_an_environment_may_be_given_by_its_id_everywhere(algorithm, tmp_path) -> None:
    tiny(algorithm, "MlpPolicy", "CartPole-v1").save(tmp_path / "model")
    model = algorithm.load(tmp_path / "model", env="CartPole-v1")
    assert model.get_env().num_envs == 1
    model.set_env("CartPole-v1")
    assert model.learn(20).num_timesteps >= 20
    with pytest.raises(ValueError, match="space"):
        model.set_env("Pendulum-v1")


@algorithms
@pytest.mark.parametrize("n_envs", [1, 2])
def test_learn_counts_steps_and_changes_weights(algorithm, n_envs) -> None:
    model = tiny(algorithm, "MlpPolicy", make_vec_env("CartPole-v1", n_envs, seed=0))
    before = weights(model)
    assert model.learn(64) is model
    assert model.num_timesteps == 64
    assert model._n_updates > 0
    after = weights(model)
    changed = {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert "world_model" in changed
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 80


ACTIONS = {
    "box": BOX,
    "box 1..50": spaces.Box(1.0, 50.0, (2,), np.float32),
    "box 2d float64": spaces.Box(-2.0, 3.0, (2, 2), np.float64),
    "discrete": spaces.Discrete(4),
    "discrete from 3": spaces.Discrete(3, start=3),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 5]),
    "multibinary": spaces.MultiBinary(4),
}


@algorithms
@pytest.mark.parametrize("name", ACTIONS)
def test_action_spaces(algorithm, name) -> None:
    model = tiny(algorithm, "MlpPolicy", SpacesEnv(BOX, ACTIONS[name])).learn(40)
    space = ACTIONS[name]
    for deterministic in (True, False):
        action, _ = model.predict(BOX.sample(), deterministic=deterministic)
        assert np.shape(action) == space.shape
        assert space.contains(np.int64(action) if isinstance(space, spaces.Discrete) else action)
        actions, _ = model.predict(np.stack([BOX.sample()] * 5), deterministic=deterministic)
        assert actions.shape == (5, *space.shape) and actions.dtype == space.dtype


OBSERVATIONS = {
    "vector": (BOX, "MlpPolicy"),
    "vector 2d float64": (spaces.Box(-np.inf, np.inf, (2, 3), np.float64), "MlpPolicy"),
    "discrete": (spaces.Discrete(6), "MlpPolicy"),
    "discrete from 2": (spaces.Discrete(6, start=2), "MlpPolicy"),
    "multidiscrete": (spaces.MultiDiscrete([3, 4]), "MlpPolicy"),
    "multibinary": (spaces.MultiBinary(5), "MlpPolicy"),
    "image hwc": (image(64, 64, 3), "CnnPolicy"),
    "image chw": (image(3, 64, 64), "CnnPolicy"),
    "image gray 36": (image(36, 36, 1), "CnnPolicy"),
    "image 40x57": (image(40, 57, 2), "CnnPolicy"),
    "image 32": (image(32, 32, 1), "CnnPolicy"),
    "image 128": (image(128, 128, 3), "CnnPolicy"),
    "image 100": (image(100, 100, 1), "CnnPolicy"),
    "dict": (
        spaces.Dict(
            {
                "camera": image(64, 64, 3),
                "small.view": image(32, 40, 1),
                "position": BOX,
                "mode": spaces.Discrete(3),
                "switches": spaces.MultiBinary(2),
            }
        ),
        "MultiInputPolicy",
    ),
}


@algorithms
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observation_spaces(algorithm, name, tmp_path) -> None:
    space, policy = OBSERVATIONS[name]
    model = tiny(algorithm, policy, SpacesEnv(space, spaces.Discrete(3))).learn(30)
    obs = space.sample()
    action, _ = model.predict(obs, deterministic=True)
    assert action.shape == ()
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    # The file keeps the spaces as the algorithm saw them (images channel-first); both layouts are accepted.
    assert loaded.predict(obs, deterministic=True)[0] == action


@algorithms
def test_predict_state(algorithm) -> None:
    model = tiny(algorithm, "MlpPolicy", make_vec_env("CartPole-v1", 2, seed=0)).learn(40)
    obs = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)

    def run(order: list[int]) -> np.ndarray:
        state, actions = None, []
        for t in range(len(obs)):
            starts = np.full(3, t == 0)
            _action, state = model.predict(obs[t][order], state, starts, deterministic=True)
            actions.append([state[0], state[1].reshape(3, -1), state[2]])
        return np.concatenate([np.concatenate(step, 1) for step in actions], 1)

    straight, shuffled = run([0, 1, 2]), run([2, 0, 1])
    np.testing.assert_allclose(straight[[2, 0, 1]], shuffled, atol=1e-5)
    # episode_start forgets: the state after it does not depend on what was before.
    _, warm = model.predict(obs[0], None, np.ones(3, bool), deterministic=True)
    _, reset = model.predict(obs[1], warm, np.ones(3, bool), deterministic=True)
    _, fresh = model.predict(obs[1], None, np.ones(3, bool), deterministic=True)
    _, going_on = model.predict(obs[1], warm, np.zeros(3, bool), deterministic=True)
    np.testing.assert_allclose(reset[0], fresh[0], atol=1e-6)
    assert not np.allclose(going_on[0], fresh[0])
    with pytest.raises(ValueError, match="recurrent state is for 3"):
        model.predict(obs[0][:2], warm)
    with pytest.raises(ValueError, match="mixing Gym API"):
        model.predict((obs[0], {}))


@algorithms
def test_predict_equals_the_filter_of_training(algorithm) -> None:
    """Step by step with predict() gives the latent states that observe() gives for the whole sequence."""
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", **without_context(algorithm)).learn(60)
    policy, replay = model.policy, model.replay_buffer
    batch = replay.gather(np.array([0]), np.arange(12)[None])
    rssm, state = policy.world_model.rssm, policy.initial_state(1)
    embed = policy.world_model.encode(batch.obs)
    th.manual_seed(3)
    with th.no_grad():
        whole = rssm.observe(embed, batch.prev_action, batch.is_first)
    th.manual_seed(3)
    with th.no_grad():
        latent = rssm.initial(1)
        for t in range(12):
            latent = rssm.obs_step(latent, batch.prev_action[:, t], embed[:, t], batch.is_first[:, t])
            th.testing.assert_close(latent.deter, whole.state.deter[:, t], rtol=1e-5, atol=1e-5)
            th.testing.assert_close(latent.stoch, whole.state.stoch[:, t], rtol=1e-5, atol=1e-5)
    assert state.deter.shape == latent.deter.shape


LOAD = """
import sys, numpy as np
from tests import algorithms
for name in sys.argv[1:]:
    model = getattr(algorithms, name).load(f"{name}.zip")
    np.save(f"{name}.npy", model.predict(np.load("obs.npy"), deterministic=True)[0])
"""


def test_save_and_load_in_a_new_process(tmp_path) -> None:
    """One process for all algorithms: starting Python with torch takes longer than the rest."""
    models = {cls.__name__: tiny(cls, "MlpPolicy", "Pendulum-v1").learn(50) for cls in VARIANTS}
    obs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.save(tmp_path / "obs.npy", obs)
    for name, model in models.items():
        model.save(tmp_path / name)
    root = str(Path(__file__).parent.parent)  # where tests.algorithms is
    command = [sys.executable, "-c", LOAD, *models]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, check=True)
    for name, model in models.items():
        wanted = model.predict(obs, deterministic=True)[0]
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), wanted, err_msg=name)


@algorithms
def test_load_goes_on_learning(algorithm, tmp_path) -> None:
    env = make_vec_env("CartPole-v1", 1, seed=0)
    model = tiny(algorithm, "MlpPolicy", env, learning_rate=3e-4).learn(50)
    buffer = io.BytesIO()
    model.save(buffer)
    buffer.seek(0)
    loaded = algorithm.load(buffer, env=env)
    assert equal(weights(model), weights(loaded))
    assert (loaded.num_timesteps, loaded._n_updates, loaded.learning_rate) == (50, model._n_updates, 3e-4)
    for name in model.optimizers:
        ours, theirs = (getattr(m, name).state_dict()["state"] for m in (model, loaded))
        assert ours.keys() == theirs.keys() and len(ours) > 0
        assert all(th.equal(ours[i]["exp_avg"], theirs[i]["exp_avg"]) for i in ours if "exp_avg" in ours[i])
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps == 80 and loaded._n_updates > model._n_updates
    other = algorithm.load(_rewound(buffer), env=make_vec_env("CartPole-v1", 3, seed=0))
    assert other.n_envs == 3 and other.learn(30).n_envs == 3


def _rewound(buffer: io.BytesIO) -> io.BytesIO:
    buffer.seek(0)
    return buffer


@algorithms
def test_parameters_round_trip(algorithm, tmp_path) -> None:
    model, other = (tiny(algorithm, "MlpPolicy", "CartPole-v1", seed=seed) for seed in (0, 1))
    assert not equal(weights(model), weights(other))
    other.set_parameters(model.get_parameters())
    assert equal(weights(model), weights(other))
    assert next(iter(model.get_parameters())) == "policy"
    with pytest.raises(ValueError):
        other.set_parameters({"policy": model.get_parameters()["policy"]}, exact_match=True)
    with pytest.raises(ValueError):
        other.set_parameters({"nonsense": {}}, exact_match=False)
    model.save(tmp_path / "model")
    third = tiny(algorithm, "MlpPolicy", "CartPole-v1", seed=2)
    third.set_parameters(tmp_path / "model.zip")
    assert equal(weights(model), weights(third))


@pytest.mark.parametrize("algorithm", VARIANTS)
def test_a_policy_alone_acts_and_foresees_ends_as_in_its_model(algorithm, tmp_path) -> None:
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", gamma=0.9)
    model.policy.save(tmp_path / "policy.zip")
    policy = type(model.policy).load(tmp_path / "policy.zip")
    obs, feat = np.zeros((1, 4), np.float32), th.randn(5, policy.world_model.rssm.feat_size)
    assert policy.predict(obs, deterministic=True)[0] == model.predict(obs, deterministic=True)[0]
    ends = [part.world_model.continue_probability(feat) for part in (policy, model.policy)]
    assert policy.gamma == 0.9 and th.equal(*ends)


def test_a_compiled_policy_is_saved_as_the_policy_it_compiles(tmp_path) -> None:
    model = tiny(VARIANTS[0], "MlpPolicy", "CartPole-v1")
    before = weights(model)
    model.policy = th.compile(model.policy)
    model.save(tmp_path / "model")
    assert equal(before, weights(VARIANTS[0].load(tmp_path / "model")))


@algorithms
def test_a_replay_class_of_the_users_is_not_lost_in_silence(algorithm, tmp_path) -> None:
    class Mine(SequenceReplayBuffer):
        pass

    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", replay_buffer_class=Mine, **without_context(algorithm))
    with pytest.warns(UserWarning, match="replay_buffer_class cannot be stored"):
        model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"replay_buffer_class cannot be stored .* pass it again with load"):
        algorithm.load(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = algorithm.load(tmp_path / "model", custom_objects={"replay_buffer_class": Mine})
        tiny(algorithm, "MlpPolicy", "CartPole-v1").save(tmp_path / "plain")
    assert type(again.replay_buffer) is Mine


@algorithms
def test_an_attribute_set_from_outside_does_not_spoil_the_file(algorithm, tmp_path) -> None:
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1").learn(30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save(tmp_path / "without")
    model.exploration_rate = 0.9
    with pytest.warns(UserWarning, match="exploration_rate: set on the model from outside"):
        model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    assert not hasattr(loaded, "exploration_rate") and equal(weights(model), weights(loaded))


@algorithms
def test_replay_buffer_file(algorithm, tmp_path) -> None:
    env = make_vec_env("CartPole-v1", 2, seed=0)
    model = tiny(algorithm, "MlpPolicy", env).learn(60)
    model.save_replay_buffer(tmp_path / "deep" / "replay.pkl")
    other = tiny(algorithm, "MlpPolicy", env)
    other.load_replay_buffer(tmp_path / "deep" / "replay.pkl", truncate_last_traj=False)
    for name, array in model.replay_buffer.arrays.items():
        np.testing.assert_array_equal(array, other.replay_buffer.arrays[name])
    ours, theirs = (m.replay_buffer.sample_sequences(3, 5) for m in (model, other))
    assert th.equal(ours.reward, theirs.reward) and th.equal(ours.obs["obs"], theirs.obs["obs"])
    wrong = tiny(algorithm, "MlpPolicy", make_vec_env("Pendulum-v1", 2))
    with pytest.raises(ValueError, match="does not fit this model"):
        wrong.load_replay_buffer(tmp_path / "deep" / "replay.pkl")
    assert wrong.replay_buffer.size() == 0
    (tmp_path / "broken.pkl").write_bytes((tmp_path / "deep" / "replay.pkl").read_bytes()[:300])
    with pytest.raises(ValueError):
        wrong.load_replay_buffer(tmp_path / "broken.pkl")


@algorithms
def test_set_env(algorithm) -> None:
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1").learn(25)
    model.set_env(gym.make("CartPole-v1"))
    assert model._last_obs is None
    model.learn(10, reset_num_timesteps=False)
    assert model.num_timesteps == 35
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(make_vec_env("CartPole-v1", 2))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(gym.make("Pendulum-v1"))


@algorithms
def test_callbacks(algorithm, tmp_path) -> None:
    env = make_vec_env("CartPole-v1", 2, seed=0)
    seen: list[int] = []

    def notice(local: dict, _: dict) -> bool:
        assert {"new_obs", "rewards", "dones", "infos", "actions"} <= local.keys()
        # The step that a callback sees is already in replay.
        assert local["self"].replay_buffer.size() >= local["self"].num_timesteps
        seen.append(local["self"].num_timesteps)
        return True

    callbacks = [
        CheckpointCallback(20, str(tmp_path), save_replay_buffer=True),
        EvalCallback(
            make_vec_env("CartPole-v1", 1), best_model_save_path=str(tmp_path), n_eval_episodes=2, eval_freq=20
        ),
        EveryNTimesteps(10, ConvertCallback(notice)),
    ]
    model = tiny(algorithm, "MlpPolicy", env)
    model.learn(60, callback=callbacks)
    assert seen and (tmp_path / "best_model.zip").exists()
    assert (tmp_path / "rl_model_40_steps.zip").exists()
    assert (tmp_path / "rl_model_replay_buffer_40_steps.pkl").exists()
    algorithm.load(tmp_path / "rl_model_40_steps.zip")
    stopped = tiny(algorithm, "MlpPolicy", env).learn(5000, callback=StopTrainingOnMaxEpisodes(2))
    assert stopped.num_timesteps < 5000


@algorithms
def test_logs(algorithm, tmp_path) -> None:
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", tensorboard_log=str(tmp_path))
    model.learn(70, log_interval=1, progress_bar=False)
    assert list(Path(tmp_path).glob(f"{algorithm.__name__}_1/events*"))
    model.set_logger(configure(str(tmp_path / "csv"), ["csv", "stdout"]))
    model.learn(80, log_interval=2)
    header = (tmp_path / "csv" / "progress.csv").read_text()
    for key in ("rollout/ep_rew_mean", "time/total_timesteps", "train/n_updates", "train/model_loss"):
        assert key in header


@algorithms
def test_evaluate_policy(algorithm) -> None:
    env = make_vec_env("CartPole-v1", 3, seed=0)
    model = tiny(algorithm, "MlpPolicy", env).learn(30)
    first, second = (evaluate_policy(model, make_vec_env("CartPole-v1", 3, seed=5), 6) for _ in range(2))
    assert first == second, "deterministic evaluation repeats"


@algorithms
def test_bad_input(algorithm, tmp_path) -> None:
    with pytest.raises(ValueError, match="did you mean 'debug'"):
        tiny(algorithm, "MlpPolicy", "CartPole-v1", model_size="debugg")
    with pytest.raises(ValueError, match=r"'detr'.*did you mean 'deter'"):
        tiny(algorithm, "MlpPolicy", "CartPole-v1", policy_kwargs={"detr": 3})
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        tiny(algorithm, "MlpPolicy", SpacesEnv(spaces.Dict({"a": BOX}), BOX))
    with pytest.raises(AssertionError, match="CnnPolicy only with image"):
        tiny(algorithm, "CnnPolicy", "CartPole-v1")
    with pytest.raises(AssertionError, match="finite"):
        tiny(algorithm, "MlpPolicy", SpacesEnv(BOX, spaces.Box(-np.inf, np.inf, (1,))))
    with pytest.raises(ValueError, match="'words' is a Text space"):
        tiny(algorithm, "MultiInputPolicy", SpacesEnv(spaces.Dict({"words": spaces.Text(3)}), BOX))
    with pytest.raises(ValueError, match="8x64 pixels"):
        tiny(algorithm, "CnnPolicy", SpacesEnv(image(3, 8, 64), BOX))
    with pytest.raises(ValueError, match="train_ratio=-1"):
        tiny(algorithm, "MlpPolicy", "CartPole-v1", train_ratio=-1)
    with pytest.raises(ValueError, match="SequenceReplayBuffer"):
        tiny(algorithm, "MlpPolicy", "CartPole-v1", replay_buffer_class=dict)
    with pytest.raises(ValueError, match=r"ignore_keys.*'nope'"):
        tiny(
            algorithm,
            "MultiInputPolicy",
            SpacesEnv(spaces.Dict({"a": BOX}), BOX),
            policy_kwargs={"ignore_keys": ("nope",)},
        )


@algorithms
@pytest.mark.parametrize("what", ["observation", "final observation", "reward"])
def test_nan_is_refused_with_its_place(algorithm, what) -> None:
    class Broken(SpacesEnv):
        def step(self, action):
            obs, reward, done, cut, info = super().step(action)
            if what == "reward" and self.t == 4:
                reward = float("nan")
            if (what == "observation" and self.t == 4) or (what == "final observation" and done):
                obs = {"a": obs["a"] * np.nan}
            return obs, reward, done, cut, info

    space = spaces.Dict({"a": BOX})
    env = DummyVecEnv([lambda: SpacesEnv(space, BOX), lambda: Broken(space, BOX)])
    model = tiny(algorithm, "MultiInputPolicy", env)
    place = {"observation": "observation 'a' of environment 1", "reward": "the reward of environment 1"}
    with pytest.raises(ValueError, match=place.get(what, "observation 'a' of environment 1") + ".*step"):
        model.learn(40)
    assert all(np.isfinite(model.replay_buffer.arrays[name]).all() for name in ("obs.a", "reward"))


@algorithms
def test_bad_files(algorithm, tmp_path) -> None:
    from stable_baselines3 import SAC

    model = tiny(algorithm, "MlpPolicy", "Pendulum-v1")
    model.save(tmp_path / "model")
    data = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / "sac")
    with pytest.raises(ValueError, match=r"cut\.zip"):
        algorithm.load(tmp_path / "cut")
    with pytest.raises(ValueError, match="pickle"):
        algorithm.load(tmp_path / "sac")
    with pytest.raises(FileNotFoundError):
        algorithm.load(tmp_path / "missing")
    with pytest.raises(ValueError, match="spaces do not match"):
        algorithm.load(tmp_path / "model", env=gym.make("CartPole-v1"))

    class Other(algorithm):
        pass

    with pytest.raises(ValueError, match=algorithm.__name__):
        Other.load(tmp_path / "model")


@algorithms
def test_unstorable_attributes_are_named(algorithm, tmp_path) -> None:
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", learning_rate=lambda progress: 1e-3 * progress)
    model.learn(30)
    assert model._current_progress_remaining == 0.0
    with pytest.warns(UserWarning, match=r"cannot hold a function .* learning_rate=0\.001"):
        model.save(tmp_path / "model")
    assert algorithm.load(tmp_path / "model").learning_rate == pytest.approx(1e-3), "the value at which learn() begins"
    schedule = algorithm.load(tmp_path / "model", custom_objects={"learning_rate": lambda _: 5e-4})
    assert schedule.lr_schedule(1.0) == pytest.approx(5e-4)


@algorithms
def test_replay_is_refused_where_it_cannot_fit(algorithm) -> None:
    env = SpacesEnv(image(3, 128, 128), BOX)
    model = tiny(algorithm, "CnnPolicy", env, buffer_size=10**9)
    assert isinstance(model.replay_buffer, SequenceReplayBuffer) and not model.replay_buffer.arrays
    with pytest.raises(MemoryError, match=r"GiB.*lower buffer_size"):
        model.learn(10**9)
    assert not model.replay_buffer.arrays


@algorithms
def test_a_cut_trajectory_is_said_with_the_memory_option(algorithm) -> None:
    """SB3 warns so when learn() begins anew with optimize_memory_usage, and not when it goes on."""
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", optimize_memory_usage=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(5).learn(5, reset_num_timesteps=False)
    with pytest.warns(UserWarning, match="The last trajectory in the replay buffer will be truncated"):
        model.learn(5)


@algorithms
def test_gradient_steps_of_minus_one_are_as_many_as_steps(algorithm) -> None:
    env = make_vec_env("CartPole-v1", 2, seed=0)
    numbers = {"learning_starts": 0, "batch_length": 4, "train_freq": 3, "gradient_steps": -1}
    model = tiny(algorithm, "MlpPolicy", env, **numbers, **without_context(algorithm))
    if algorithm.__name__ == "PlaNet":  # its first updates follow the seed episodes
        model._episode_num = model.seed_episodes
        model.learn(3, reset_num_timesteps=False)
    else:
        model.learn(3)
    assert model._n_updates == 6 == model.logger.name_to_value["train/n_updates"]


@algorithms
def test_the_suite_settings_are_stored_and_another_setting_warns(algorithm, tmp_path, recwarn) -> None:
    from sb3_dreamer.wrappers import make_env

    model = tiny(algorithm, "MlpPolicy", make_env("CartPole-v1"))
    model.save(tmp_path / "model")
    same = algorithm.load(tmp_path / "model", env=make_env("CartPole-v1"))
    assert same.suite_preset == model.suite_preset and same.suite_preset["task"] == "CartPole-v1"
    assert not [w for w in recwarn if "differs from" in str(w.message)]
    with pytest.warns(UserWarning, match="action_repeat: 1 -> 2"):
        algorithm.load(tmp_path / "model", env=make_env("CartPole-v1", action_repeat=2))
    with pytest.warns(UserWarning, match="action_repeat: 1 -> 2"):
        same.set_env(make_env("CartPole-v1", action_repeat=2))
    assert tiny(algorithm, "MlpPolicy", "CartPole-v1").suite_preset is None


@algorithms
def test_models_are_pickled_and_copied_whatever_happened(algorithm) -> None:
    def interrupt(local: dict, _: dict) -> bool:
        if local["self"].num_timesteps >= 15:
            raise KeyboardInterrupt
        return True

    model = tiny(algorithm, "MlpPolicy", "CartPole-v1")
    with pytest.raises(KeyboardInterrupt):
        model.learn(40, callback=interrupt)
    obs = np.zeros((2, 4), np.float32)
    for other in (
        copy.deepcopy(model).policy,
        pickle.loads(pickle.dumps(model.policy)),
        pickle.loads(pickle.dumps(model)).policy,
    ):
        np.testing.assert_array_equal(
            other.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
        )
    copy.deepcopy(model).learn(20, reset_num_timesteps=False)


def test_parameters_of_a_file_are_parameters_alone(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(30)
    model.save(tmp_path / "whole")
    model.save(tmp_path / "weights", exclude=["optimizers"])
    saved = weights(model)
    model.learn(20, reset_num_timesteps=False)
    carry = model._carry.deter.clone()
    with pytest.raises(ValueError, match="holds no optimizers: pass exact_match=False"):
        model.set_parameters(tmp_path / "weights")
    assert not equal(weights(model), saved)
    model.set_parameters(tmp_path / "weights", exact_match=False)
    assert equal(weights(model), saved) and th.equal(model._carry.deter, carry)
    model.set_parameters(tmp_path / "whole")
    assert th.equal(model._carry.deter, carry)


def test_a_checkpoint_callback_inside_another_is_refused(tmp_path) -> None:
    inner = ResumableCheckpoint(tmp_path, every=20)
    with pytest.raises(ValueError, match=r"inside EveryNTimesteps, .* beside that"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(30, callback=EveryNTimesteps(20, inner))
    with pytest.raises(ValueError, match="every='100' must be an integer"):
        ResumableCheckpoint(tmp_path, every="100")


def test_a_buffer_beyond_all_addresses() -> None:
    with pytest.raises(MemoryError, match="lower buffer_size"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", buffer_size=10**13).learn(5)
