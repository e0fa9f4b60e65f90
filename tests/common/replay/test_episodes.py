"""Recorded episodes: what is added is what was recorded, from every source; and learning without an environment."""

import pickle
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import ConvertCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.offline import OfflineEnv
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.wrappers import EpisodeRecorder, make_env
from tests.algorithms import ALGORITHMS, equal, tiny, weights
from tests.counting_env import CountingEnv

algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda cls: cls.__name__)
BOX, ACTION = spaces.Box(-10, 10, (2,), np.float32), spaces.Box(0.0, 4.0, (1,), np.float32)


def buffer(**kwargs) -> SequenceReplayBuffer:
    return SequenceReplayBuffer(kwargs.pop("size", 100), BOX, ACTION, "cpu", seed=0, **kwargs)


def episode(length: int = 3, terminated: bool = True, begin: float = 0.0) -> dict:
    steps = np.arange(length + 1, dtype=np.float32) + begin
    actions = np.linspace(0, 4, length, dtype=np.float32)[:, None]
    return {
        "observations": np.stack([steps, -steps], 1),
        "actions": actions,
        "rewards": steps[1:],
        "terminated": terminated,
    }


def check_rows(replay: SequenceReplayBuffer) -> None:
    batch = replay.gather(np.array([0]), np.arange(7)[None])
    assert batch.obs["obs"][0, :, 0].tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert batch.reward[0].tolist() == [0, 1, 2, 3, 0, 6, 7]
    assert batch.prev_action[0, :, 0].tolist() == [0, -1, 0, 1, 0, -1, 1]
    assert batch.is_first[0].tolist() == [True, False, False, False, True, False, False]
    assert batch.is_last[0].tolist() == [False, False, False, True, False, False, True]
    assert batch.is_terminal[0].tolist() == [False, False, False, True, False, False, False]


def test_dicts_npz_and_minari_give_the_same_rows(tmp_path) -> None:
    parts = [episode(), episode(2, terminated=False, begin=5.0)]
    files = []
    for index, part in enumerate(parts):
        files.append(tmp_path / f"{index}.npz")
        np.savez(files[-1], **part)
    minari = SimpleNamespace(
        iterate_episodes=lambda: (
            SimpleNamespace(
                observations=part["observations"],
                actions=part["actions"],
                rewards=part["rewards"],
                terminations=np.array([False] * (len(part["rewards"]) - 1) + [part["terminated"]]),
            )
            for part in parts
        )
    )
    for source in (parts, files, minari):
        replay = buffer()
        assert replay.add_episodes(source) == 2
        check_rows(replay)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("pixels", [None, "only", "both"])
def test_what_the_episode_recorder_writes_is_read(tmp_path, env_id, pixels) -> None:
    made = make_env(env_id, pixels=pixels, action_repeat=20, **({"size": 16} if pixels else {}))
    env = EpisodeRecorder(made, tmp_path, video=False, npz=True)
    env.action_space.seed(0)
    seen, executed, rewards = [env.reset(seed=0)[0]], [], [0.0]
    while len(env.files) < 1:
        executed.append(env.action_space.sample())
        obs, reward, terminated, truncated, _ = env.step(executed[-1])
        seen.append(obs)
        rewards.append(reward)
    model = tiny(ALGORITHMS[0], "MultiInputPolicy" if pixels == "both" else "MlpPolicy", made)
    assert model.add_episodes(env.files[0]) == model.add_episodes(str(path) for path in env.files) == 1
    rows = model.replay_buffer.gather(np.array([0]), np.arange(len(seen))[None])
    for key, stored in rows.obs.items():
        values = np.stack([obs[key] if isinstance(obs, dict) else obs for obs in seen])
        values = np.moveaxis(values, -1, 1) if values.ndim == 4 else values
        np.testing.assert_array_equal(stored[0], values)
    np.testing.assert_allclose(rows.reward[0], rewards, rtol=1e-6)
    assert rows.is_last[0].tolist() == [False] * len(executed) + [True]
    assert bool(rows.is_terminal[0, -1]) == terminated != truncated
    actions = model.replay_buffer.codec.from_env(np.stack(executed))
    np.testing.assert_allclose(model.replay_buffer.arrays["action"][0, 1 : len(seen)].reshape(actions.shape), actions)


def test_one_hot_actions_are_refused_with_what_to_do() -> None:
    replay = SequenceReplayBuffer(100, BOX, spaces.Discrete(3, start=5), "cpu")
    with pytest.raises(ValueError, match=r"shape \(3, 3\), expected \(3,\) for .* np.argmax\(actions, 1\) \+ 5\)"):
        replay.add_episodes(episode() | {"actions": np.eye(3, dtype=np.float32)})


def test_an_sb3_buffer_gives_the_rows_of_its_episodes() -> None:
    """Collected by DQN in an environment that counts; compared with what our own collection stores."""
    env = DummyVecEnv([lambda: CountingEnv((3, 2), ("terminated", "truncated"))])
    dqn = DQN("MlpPolicy", env, buffer_size=50, learning_starts=1000, train_freq=1, policy_kwargs={"net_arch": [4]})
    dqn.learn(9)
    replay = SequenceReplayBuffer(100, env.observation_space, env.action_space, "cpu")
    assert replay.add_episodes(dqn.replay_buffer) == 4
    batch = replay.gather(np.array([0]), np.arange(replay.filled[0])[None])
    assert batch.obs["obs"][0, :, 2].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert batch.obs["obs"][0, :, 1].tolist() == [0] * 4 + [1] * 3 + [2] * 3 + [3] * 3
    np.testing.assert_array_equal(batch.is_terminal[0], [i == 3 for i in range(13)])
    np.testing.assert_array_equal(batch.is_last[0], [i in (3, 6, 9, 12) for i in range(13)])
    np.testing.assert_array_equal(
        batch.reward[0], np.where(batch.is_first[0], 0, 100 * batch.obs["obs"][0, :, 1] + batch.obs["obs"][0, :, 2])
    )
    executed = dqn.replay_buffer.actions[:9, 0, 0]
    assert batch.prev_action[0][~batch.is_first[0]].argmax(-1).tolist() == executed.tolist()


@algorithms
def test_another_models_replay_gives_its_rows(algorithm) -> None:
    env = make_vec_env(lambda: CountingEnv(lengths=(7,)), 2)
    source = tiny(algorithm, "MlpPolicy", env, buffer_size=60).learn(100).replay_buffer  # rings that have begun again
    model = tiny(algorithm, "MlpPolicy", make_vec_env(lambda: CountingEnv(lengths=(7,)), 1), buffer_size=1000)
    count = model.add_episodes(source)
    replay = model.replay_buffer
    assert replay.size() >= source.size() - 2 * 2 and count >= 6
    rows = {name: array[0, : replay.size()] for name, array in replay.arrays.items()}
    same = rows["obs.obs"][1:, 1] == rows["obs.obs"][:-1, 1]
    np.testing.assert_array_equal(rows["is_first"][1:], ~same)
    np.testing.assert_array_equal(
        rows["reward"][1:][same], (100 * rows["obs.obs"][:, 1] + rows["obs.obs"][:, 2])[1:][same]
    )


def test_full_rings_take_turns() -> None:
    replay = buffer(size=40, n_envs=2)
    replay.add_episodes([episode(6, begin=i / 4) for i in range(12)])
    assert replay.arrays["obs.obs"][..., 0].min(1).min() > 1, "both rings hold recent episodes"


def test_a_pickled_sb3_buffer_is_refused_unless_trusted(tmp_path) -> None:
    sac = SAC("MlpPolicy", "Pendulum-v1", buffer_size=60, learning_starts=1000, policy_kwargs={"net_arch": [4]})
    sac.learn(30).save_replay_buffer(tmp_path / "sac.pkl")
    model = tiny(ALGORITHMS[0], "MlpPolicy", "Pendulum-v1")
    with pytest.raises(ModelFileError, match="pickled data"):
        model.load_replay_buffer(tmp_path / "sac.pkl")
    model.load_replay_buffer(tmp_path / "sac.pkl", trust_pickle=True)
    assert model.replay_buffer.filled[0] == 31
    scaled = model.replay_buffer.arrays["action"][0, 1:31, 0]
    np.testing.assert_allclose(scaled, sac.replay_buffer.actions[:30, 0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"observations": np.zeros((3, 2), np.float32)},
            r"episode 0: observation 'obs' has the shape \(3, 2\), expected 4 rows",
        ),
        (
            {"observations": np.full((4, 2), np.nan, np.float32)},
            "the observation of row 0 is nan in episode 0: nothing of this episode was stored",
        ),
        ({"observations": np.zeros((4, 2), complex)}, "is complex128 in episode 0, but its space"),
        ({"rewards": np.array([1, np.inf, 0])}, "the reward of row 1 is inf in episode 0"),
        ({"actions": np.zeros((2, 1), np.float32)}, "3 rewards and actions"),
        ({"rewards": None}, "has no rewards"),
        ({"actions": [], "rewards": []}, r"rewards of shape \(0,\): record one for each step, at least one"),
        ({"actions": []}, r"actions of shape \(0,\), expected \(3, 1\)"),
        ({"actions": np.zeros((3, 2))}, r"actions of shape \(3, 2\), expected \(3, 1\)"),
        ({"actions": 1.0}, r"actions of shape \(\), expected"),
        ({"rewards": np.array([1, 1e300, 0])}, "the reward of row 1 is 1e.300 in episode 0: .* too large for float32"),
        ({"actions": np.full((3, 1), np.nan)}, r"action 0 is \[nan\]"),
        ({"actions": np.full((3, 1), 99.0)}, r"the action of row 0 is .*, scaled to \[-1, 1\],"),
        ({"dones": np.ones(3)}, "the episode has 'dones', which is unknown: it may have observations, actions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(change, message) -> None:
    replay, part = buffer(), episode() | change
    with pytest.raises(ValueError, match=message):
        replay.add_episodes({key: value for key, value in part.items() if value is not None})
    assert replay.size() == 0
    with pytest.raises(TypeError, match="add_episodes"):
        replay.add_episodes(3)


def test_a_pickle_in_an_npz_file_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "bad.npz", **(episode() | {"rewards": np.array([1, {"an": "object"}, None])}))
    replay = buffer()
    with pytest.raises(ValueError, match="allow_pickle=False"):
        replay.add_episodes(tmp_path / "bad.npz")
    assert replay.size() == 0


def test_not_while_an_episode_is_running() -> None:
    env = gym.make("CartPole-v1")
    model = tiny(ALGORITHMS[0], "MlpPolicy", env).learn(3)
    with pytest.raises(ValueError, match="an episode is running"):
        model.add_episodes([])


@algorithms
def test_learning_without_an_environment(algorithm, tmp_path) -> None:
    model = tiny(algorithm, "MlpPolicy", OfflineEnv(BOX, ACTION))
    with pytest.raises(ValueError, match="add_episodes"):
        model.learn_offline(1)
    assert model.add_episodes([episode(12, begin=float(i)) for i in range(3)]) == 3
    before = weights(model)
    assert model.learn_offline(4, log_interval=2) is model
    assert (model._n_updates, model.num_timesteps) == (4, 0) and not equal(before, weights(model))
    with pytest.raises(RuntimeError, match="learn_offline"):
        model.learn(5)
    model.save(tmp_path / "model")
    assert equal(weights(model), weights(algorithm.load(tmp_path / "model")))
    env = make_vec_env("CartPole-v1")
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(env)


def test_callbacks_without_an_environment(tmp_path) -> None:
    """Each update counts as a step: evaluations come every so many updates, and a callback can end the training."""
    env = make_vec_env("CartPole-v1")
    model = tiny(DreamerV3, "MlpPolicy", OfflineEnv(env.observation_space, env.action_space))
    collector = tiny(DreamerV3, "MlpPolicy", env).learn(30)
    collector.save_replay_buffer(tmp_path / "replay")
    model.load_replay_buffer(tmp_path / "replay")
    evaluation = EvalCallback(env, eval_freq=2, n_eval_episodes=1, log_path=str(tmp_path), verbose=0)
    seen: list[int] = []
    after = ConvertCallback(lambda found, _: seen.append(found["update"]) or len(seen) < 5)
    model.learn_offline(9, callback=[evaluation, after])
    assert (model._n_updates, model.num_timesteps, seen) == (5, 0, [0, 1, 2, 3, 4])
    assert len(evaluation.evaluations_results) == 2 and model._callback is None
    model.learn_offline(1, lambda found, _: seen.append(found["update"]) or True)
    assert seen[5:] == [0]


def test_replay_of_another_number_of_environments(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", make_vec_env("CartPole-v1", 2), buffer_size=200).learn(18)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    one = DreamerV3.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 1))
    with pytest.raises(ModelFileError, match=r"make_vec_env\(..., n_envs=2\) and buffer_size=200") as error:
        one.load_replay_buffer(tmp_path / "replay")
    assert "2 environment(s) with 100 rows each, this model has 1 with 200" in str(error.value)
    advised = DreamerV3.load(tmp_path / "model", env=make_vec_env("CartPole-v1", n_envs=2), buffer_size=200)
    advised.load_replay_buffer(tmp_path / "replay")
    assert advised.replay_buffer.size() == model.replay_buffer.size() > 0


@algorithms
def test_a_replay_class_without_episodes(algorithm) -> None:
    with pytest.raises(ValueError, match=r"replay_buffer_class=.* must be SequenceReplayBuffer or a subclass"):
        tiny(algorithm, "MlpPolicy", "CartPole-v1", replay_buffer_class=ReplayBuffer)


def test_a_trusted_pickle_that_does_not_fit_leaves_the_replay_as_it_was(tmp_path) -> None:
    model = DreamerV3("MlpPolicy", "CartPole-v1", model_size="debug", batch_size=2, batch_length=8, learning_starts=99)
    model.learn(30)
    before = model.replay_buffer.size()
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"a": np.zeros(3)}))
    with pytest.raises(ValueError, match="'a', which is unknown"):
        model.load_replay_buffer(tmp_path / "bad.pkl", trust_pickle=True)
    assert model.replay_buffer.size() == before > 0


def test_observations_may_be_a_dict_of_arrays() -> None:
    space = spaces.Dict({"a": BOX, "b": spaces.Discrete(3, start=1)})
    own = {"actions": np.ones(3, int), "rewards": np.ones(3)}
    keys = {"a": np.zeros((4, 2)), "b": np.ones(4, int)}
    found = []
    for observations in ({"observations": keys}, {f"observations.{key}": value for key, value in keys.items()}):
        replay = SequenceReplayBuffer(9, space, spaces.Discrete(2), "cpu")
        assert replay.add_episodes(own | observations) == 1
        found.append(replay.gather(np.array([0]), np.arange(4)[None]).obs["b"].tolist())
    assert found == [[[1] * 4]] * 2
