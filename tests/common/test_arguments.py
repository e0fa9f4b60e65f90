"""Arguments of the constructors: ranges, names of other algorithms, spaces, policies."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.sac import MlpPolicy as SACPolicy

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.policy import FORGETFUL_CALLS
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.behavior import RandomBehavior
from sb3_dreamer.core.types import ActionLayout
from tests.algorithms import tiny
from tests.counting_env import CountingEnv
from tests.spaces_env import SpacesEnv, image

BOX = spaces.Box(-1, 1, (3,), np.float32)
OUT_OF_RANGE: list[tuple[type, dict[str, Any]]] = [
    (DreamerV3, {"ent_coef": "auto"}),
    (DreamerV3, {"horizon": 0}),
    (DreamerV3, {"horizon": 2.5}),
    (DreamerV3, {"gamma": 1.5}),
    (DreamerV3, {"gamma": float("nan")}),
    (DreamerV3, {"tau": -1}),
    (DreamerV3, {"gae_lambda": 2}),
    (DreamerV3, {"max_grad_norm": 0}),
    (DreamerV3, {"learning_rate": float("inf")}),
    (DreamerV3, {"actor_learning_rate": -1e-4}),
    (DreamerV3, {"buffer_size": 1e5}),
    (DreamerV3, {"buffer_size": 10**30}),
    (DreamerV3, {"batch_length": 1}),
    (DreamerV3, {"train_ratio": 1e300}),
    (DreamerV3, {"warmup_updates": -1}),
    (DreamerV3, {"max_skipped_updates": -1}),
    (DreamerV3, {"train_freq": 0}),
    (DreamerV3, {"train_freq": (-1, "step")}),
    (PlaNet, {"train_freq": (0, "episode")}),
    (DreamerV2, {"target_update_interval": 0}),
    (DreamerV2, {"free_nats": -1.0}),
    (DreamerV2, {"weight_decay": 2.0}),
    (PlaNet, {"planning_candidates": 0}),
    (PlaNet, {"exploration_noise": -0.1}),
]


@pytest.mark.parametrize(("algorithm", "wrong"), OUT_OF_RANGE, ids=str)
def test_numbers_out_of_range_are_refused_at_construction(algorithm: type, wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=f"{name}=.* must be a"):
        tiny(algorithm, "MlpPolicy", "CartPole-v1", **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_steps": 128}, "no argument 'n_steps': .* train_ratio and batch_length"),
        ({"n_epochs": 4}, "train_ratio"),
        ({"clip_range": 0.2}, "leave it out"),
        ({"lr": 1e-3}, "write learning_rate"),
        ({"regression": "mse"}, "write policy_kwargs={'regression': ...}"),
        ({"batch_lenght": 8}, "did you mean 'batch_length'"),
    ],
)
def test_names_of_other_algorithms_are_told_with_what_takes_their_place(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", **wrong)


NO_HEAD = {"policy_kwargs": {"discount_head": False}}
GAUSSIAN = {"policy_kwargs": {"latent": "gaussian"}}
PENDULUM = {"env": "Pendulum-v1"}
UNUSED: list[tuple[type, str, dict[str, Any], dict[str, Any]]] = [  # with what switches their part off, or on
    (DreamerV2, "discount_scale", NO_HEAD, {}),
    (DreamerV2, "latent_temperature", GAUSSIAN, {}),
    (DreamerV2, "actor_temperature", {"rho": 1.0}, {"rho": 0.5}),
    (DreamerV2, "actor_temperature", PENDULUM, {"rho": 0.5}),
    (PlaNet, "overshooting_scale", {}, {"overshooting_distance": 2}),
    (PlaNet, "planning_deviation", {}, PENDULUM),
    (PlaNet, "exploration_noise", {"collection": "random"}, {}),
    (PlaNet, "recent_episodes", {"recent_share": 0.0}, {}),
    (PlaNet, "recent_share", {"replay_buffer_class": SequenceReplayBuffer}, {}),
]


@pytest.mark.parametrize(("algorithm", "name", "off", "on"), UNUSED)
def test_arguments_of_a_part_that_is_off_are_named(algorithm: type, name: str, off: Any, on: Any) -> None:
    value = {"recent_episodes": 3, "planning_deviation": "mad"}.get(name, 0.25)
    with pytest.warns(UserWarning, match=rf"no effect: {name}={value!r}\. .*[Rr]emove it"):
        tiny(algorithm, "MlpPolicy", **{"env": "CartPole-v1", **off, name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny(algorithm, "MlpPolicy", **{"env": "CartPole-v1", **off})
        tiny(algorithm, "MlpPolicy", **{"env": "CartPole-v1", **on, name: value})


def test_presets_hold_no_argument_without_effect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, env in (("atari", "CartPole-v1"), ("dmc", "Pendulum-v1"), ("dreamer_v1", "Pendulum-v1")):
            DreamerV2("MlpPolicy", env, **DreamerV2.presets[name])


def test_state_dependent_exploration() -> None:
    tiny(DreamerV3, "MlpPolicy", "Pendulum-v1", use_sde=False)
    with pytest.raises(ValueError, match="use_sde=True"):
        tiny(DreamerV3, "MlpPolicy", "Pendulum-v1", use_sde=True)


@pytest.mark.parametrize(("size", "needed"), [("debug", 8), ("debug2024", 9)])
def test_a_buffer_that_never_holds_a_sequence_is_refused(size: str, needed: int) -> None:
    env = gym.make("CartPole-v1")
    tiny(DreamerV3, "MlpPolicy", env, model_size=size, buffer_size=needed, learning_starts=0)
    with pytest.raises(ValueError, match=f"takes {needed}: use buffer_size={needed} at least"):
        tiny(DreamerV3, "MlpPolicy", env, model_size=size, buffer_size=needed - 1)


def test_a_train_ratio_set_after_construction_counts() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(40)
    updates = model._n_updates
    assert updates > 0
    model.train_ratio = 0
    model.learn(40, reset_num_timesteps=False)
    assert model._n_updates == updates
    model.train_ratio = 16
    model.learn(40, reset_num_timesteps=False)
    assert model._n_updates == updates + 40


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("train_ratio", -1, "train_ratio=-1 must be a number from 0"),
        ("batch_size", 0, "batch_size=0 must be an integer from 1"),
        ("batch_length", 10_000, "a sequence of batch_length=10000 takes 10000"),
        ("horizon", 0, "horizon=0 must be an integer from 1"),
        ("train_freq", 0, "train_freq=0 must be an integer from 1"),
        ("train_freq", (1, "epoch"), "must be either 'step' or 'episode' not 'epoch'"),
    ],
)
def test_what_is_set_after_construction_is_checked_when_learning_begins(name: str, wrong: Any, message: str) -> None:
    model = tiny(DreamerV2, "MlpPolicy", "CartPole-v1").learn(30)
    setattr(model, name, wrong)
    for reset in (True, False):
        with pytest.raises(ValueError, match=message):
            model.learn(10, reset_num_timesteps=reset)
    with pytest.raises(ValueError, match="batch_length=10000" if name == "batch_length" else message):
        model.learn_offline(1)


def test_a_train_freq_may_be_set_as_the_constructor_takes_it() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    model.train_freq = (1, "episode")
    assert model.learn(10).train_freq.unit.value == "episode"


@pytest.mark.parametrize("env", [None])
def test_no_environment(env: Any) -> None:
    with pytest.raises(ValueError, match="env=None: pass an environment"):
        DreamerV3("MlpPolicy", env)


def test_policies_of_other_algorithms() -> None:
    with pytest.raises(ValueError, match="SACPolicy'> is not a world-model policy: use MlpPolicy"):
        DreamerV3(SACPolicy, "Pendulum-v1")  # type: ignore[arg-type]


def test_policy_kwargs_of_sb3() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", policy_kwargs={"activation_fn": th.nn.ReLU, "net_arch": [8]})
    assert model.policy.spec.act == "relu" and model.policy.spec.mlp == (8,)
    for name in ("optimizer_class", "optimizer_kwargs", "features_extractor_class"):
        with pytest.raises(ValueError, match=f"policy_kwargs has '{name}', which world-model policies do not have"):
            tiny(DreamerV3, "MlpPolicy", "CartPole-v1", policy_kwargs={name: {}})


def test_the_policy_is_called_like_a_module() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    obs = np.zeros((3, 4), np.float32)
    action = model.policy(th.as_tensor(obs), deterministic=True)
    wanted, _ = model.predict(obs, episode_start=np.ones(3, bool), deterministic=True)
    np.testing.assert_array_equal(action.numpy()[:, 0], wanted)


class WithMission(gym.ObservationWrapper):
    """Adds what cannot be stacked, as MiniGrid's mission is."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        inner = spaces.Dict(goal=BOX)
        self.observation_space = spaces.Dict(pole=self.env.observation_space, mission=spaces.Text(9), inner=inner)

    def observation(self, observation: np.ndarray) -> dict[str, Any]:
        return {"pole": observation, "mission": "balance", "inner": {"goal": BOX.sample()}}


def test_ignored_keys_may_hold_anything(tmp_path: Path) -> None:
    ignored = {"ignore_keys": ["mission", "inner"]}
    model = tiny(DreamerV3, "MultiInputPolicy", WithMission(), policy_kwargs=ignored).learn(40)
    assert model._n_updates > 0 and [key.name for key in model.policy.keys] == ["pole"]
    obs, _ = WithMission().reset(seed=0)
    model.save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model", env=WithMission(), device="cpu").learn(10, reset_num_timesteps=False)
    loaded.set_env(WithMission())
    np.testing.assert_array_equal(*(m.predict(obs, deterministic=True)[0].shape for m in (model, loaded)))
    with pytest.raises(ValueError, match=r"'mission' is a Text space.* leave the key out with policy_kwargs"):
        tiny(DreamerV3, "MultiInputPolicy", WithMission(), policy_kwargs={"ignore_keys": ["inner"]})
    with pytest.raises(ValueError, match=r"ignore_keys has 'misson', which is not a key"):
        tiny(DreamerV3, "MultiInputPolicy", WithMission(), policy_kwargs={"ignore_keys": ["misson"]})
    with pytest.raises(ValueError, match=r"ignore_keys='mission' is one name: pass a list"):
        tiny(DreamerV3, "MultiInputPolicy", WithMission(), policy_kwargs={"ignore_keys": "mission"})
    with pytest.raises(ValueError, match=r"'time', which is not a key of the observation: Box"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", policy_kwargs={"ignore_keys": ["time"]})


def test_predict_needs_no_ignored_key() -> None:
    model = tiny(DreamerV3, "MultiInputPolicy", WithMission(), policy_kwargs={"ignore_keys": ["mission", "inner"]})
    action, _ = model.predict({"pole": np.zeros(4, np.float32)}, deterministic=True)
    assert model.action_space.contains(int(action))


@pytest.mark.parametrize(
    ("policy", "env", "kwargs", "message"),
    [
        ("mlp", "CartPole-v1", {}, "policy='mlp' is unknown: use MlpPolicy, "),
        ("MlpPolicy", lambda: gym.make("CartPole-v1"), {}, "is not an environment: pass a gymnasium environment"),
        ("MlpPolicy", "CartPole-v1", {"policy_kwargs": "x"}, "policy_kwargs='x' must be a dict"),
        ("MlpPolicy", "CartPole-v1", {"policy_kwargs": {1: 2}}, "must be a dict from argument names"),
        ("MlpPolicy", "CartPole-v1", {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [4]}}}, "has different lists"),
        ("MlpPolicy", "CartPole-v1", {"replay_buffer_kwargs": {"foo": 1}}, "replay_buffer_kwargs has 'foo'"),
    ],
)
def test_what_is_no_policy_or_environment(policy: str, env: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(DreamerV3, policy, env, **kwargs)


@pytest.mark.parametrize(
    ("obs", "state", "message"),
    [
        ({"a": np.zeros(3)}, None, r"the observation is a dict of \['a'\]: pass an array"),
        (np.zeros((2, 3)), (np.zeros((2, 4)),), "the recurrent state has parts of shape"),
    ],
)
def test_what_predict_refuses(obs: Any, state: Any, message: str) -> None:
    model = tiny(DreamerV3, "MlpPolicy", SpacesEnv(BOX, spaces.Discrete(2)))
    with pytest.raises(ValueError, match=message):
        model.predict(obs, state)


def test_predict_refuses_choices_and_batches_that_do_not_fit() -> None:
    space = spaces.Dict(a=BOX, b=spaces.Discrete(3))
    model = tiny(DreamerV3, "MultiInputPolicy", SpacesEnv(space, spaces.Discrete(2)))
    with pytest.raises(ValueError, match="batches of different sizes"):
        model.predict({"a": np.zeros((2, 3), np.float32), "b": np.zeros(1, int)})
    with pytest.raises(ValueError, match=r"outside its space Discrete\(3\)"):
        model.predict({"a": np.zeros((1, 3), np.float32), "b": np.full(1, 3)})


def test_a_state_may_be_float64() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    obs = np.zeros((2, 4), np.float32)
    _, state = model.predict(obs, deterministic=True)
    doubled = tuple(part.astype(np.float64) for part in state)
    after = (model.predict(obs, before, deterministic=True)[1] for before in (state, doubled))
    for one, other in zip(*after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_default_rate_is_that_of_the_size_that_is_built() -> None:
    env = SpacesEnv(spaces.Box(0, 1, (3, 16, 16), np.float32), spaces.Discrete(2))
    model = DreamerV3("CnnPolicy", env, policy_kwargs={"normalize_images": False}, buffer_size=1000)
    assert (model.model_size, model.learning_rate) == ("S", 1e-4)


FLOATS = spaces.Box(0, 1, (3, 16, 16), np.float32)
AS_FLOATS = {"normalize_images": False}


@pytest.mark.parametrize("algorithm", [DreamerV3, DreamerV2])
def test_images_of_floats(algorithm: type, tmp_path: Path) -> None:
    """As SB3's ``normalize_images=False``: an image, learned, saved, and embedded as the same image of uint8 is."""
    env = SpacesEnv(FLOATS, spaces.Discrete(2))
    model = tiny(algorithm, "CnnPolicy", env, policy_kwargs=AS_FLOATS).learn(40)
    assert model._n_updates > 0 and model.policy.keys[0].kind == "image"
    assert model.replay_buffer.arrays["obs.obs"].dtype == np.float32
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    whole = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), np.uint8)
    np.testing.assert_array_equal(*(m.predict(whole / np.float32(255), deterministic=True)[0] for m in (model, loaded)))
    bytes_model = tiny(algorithm, "CnnPolicy", SpacesEnv(image(3, 16, 16), spaces.Discrete(2)))
    renamed = {name.replace("16x16_float", "16x16"): value for name, value in model.policy.state_dict().items()}
    bytes_model.policy.load_state_dict(renamed)
    world = model.policy.world_model
    embed = world.encode({"obs": th.as_tensor(whole / np.float32(255))})
    th.testing.assert_close(embed, bytes_model.policy.world_model.encode({"obs": th.as_tensor(whole)}))
    feat = th.zeros(2, world.rssm.feat_size)
    shown = bytes_model.policy.world_model.decode(feat)["obs"]
    th.testing.assert_close(world.decode(feat)["obs"].clamp(0, 1) * 255, shown)


def test_images_of_floats_that_are_refused() -> None:
    def make(algorithm: type, shape: tuple[int, ...], policy: str = "CnnPolicy", **kwargs: Any) -> Any:
        env = SpacesEnv(spaces.Box(0, 1, shape, np.float32), spaces.Discrete(2))
        return tiny(algorithm, policy, env, **kwargs)

    with pytest.raises(ValueError, match=r"\(16, 16, 3\) has its channels last, and normalize_images=False"):
        make(DreamerV3, (16, 16, 3), policy_kwargs=AS_FLOATS)
    with pytest.raises(ValueError, match="8x8 pixels, outside 16 to 512"):
        make(DreamerV3, (3, 8, 8), policy_kwargs=AS_FLOATS)
    with pytest.raises(ValueError, match="leave out normalize_images=False"):
        make(PlaNet, (3, 16, 16), policy_kwargs=AS_FLOATS)
    with pytest.raises(AssertionError, match="CnnPolicy only with image observations"):
        make(DreamerV3, (3, 16, 16))
    with pytest.warns(UserWarning, match="'normalize_images': False"):
        assert make(DreamerV3, (3, 16, 16), "MlpPolicy").policy.keys[0].kind == "vector"


SPACES = [
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    spaces.MultiBinary([2, 3]),
    spaces.Discrete(3, start=2),
    spaces.Dict({"a": BOX, "b": spaces.MultiDiscrete(np.array([[2, 3], [4, 2]]))}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_predict_takes_one_observation_or_a_batch_of_any_space(space: spaces.Space) -> None:
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    model = tiny(DreamerV3, policy, SpacesEnv(space, spaces.Discrete(2))).learn(30)
    one = space.sample()
    assert np.shape(model.predict(one)[0]) == ()
    many = {k: np.stack([v] * 4) for k, v in one.items()} if isinstance(one, dict) else np.stack([one] * 4)
    assert np.shape(model.predict(many)[0]) == (4,)


def test_an_empty_key_is_refused_unless_it_is_ignored() -> None:
    space = spaces.Dict({"a": BOX, "e": spaces.Box(-1, 1, (0,))})
    with pytest.raises(ValueError, match="observation 'e' has no entries"):
        tiny(DreamerV3, "MultiInputPolicy", SpacesEnv(space, spaces.Discrete(2)))
    tiny(
        DreamerV3, "MultiInputPolicy", SpacesEnv(space, spaces.Discrete(2)), policy_kwargs={"ignore_keys": ["e"]}
    ).learn(30)


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        (image(32, 32), "add a channel axis"),
        (spaces.Box(0, 1, (3, 32, 32), np.float32), "uint8 from 0 to 255"),
        (spaces.Box(0, 255, (2, 32, 32, 3), np.uint8), "StackChannels"),
    ],
)
def test_pictures_of_unusual_form_get_advice(space: spaces.Space, advice: str) -> None:
    with pytest.warns(UserWarning, match=advice):
        tiny(DreamerV3, "MlpPolicy", SpacesEnv(space, spaces.Discrete(2)))


def test_a_dropped_state_is_told_once() -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    obs, state = np.zeros(4, np.float32), None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2 * FORGETFUL_CALLS):
            _, state = model.predict(obs, state)
    with pytest.warns(UserWarning, match="in a row without state") as told:
        for _ in range(3 * FORGETFUL_CALLS):
            model.predict(obs)
    assert len(told) == 1


def test_endless_episodes_are_logged(monkeypatch) -> None:
    monkeypatch.setattr("sb3_dreamer.common.algorithm.LOG_AT_LEAST", 20)
    model = tiny(DreamerV3, "MlpPolicy", CountingEnv(lengths=(10**6,)))
    lines: list[int] = []
    original = model.dump_logs
    model.dump_logs = lambda: (lines.append(model.num_timesteps), original())[0]  # type: ignore[method-assign]
    model.learn(70, log_interval=4)
    assert lines == [20, 40, 60]
    lines.clear()
    model.learn(70, log_interval=None)
    assert lines == []


def test_random_steps_run_no_network_unless_latents_are_stored(monkeypatch) -> None:
    for size, wanted in (("debug", 10), ("debug2024", 40)):
        model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", model_size=size, learning_starts=30, train_ratio=0)
        calls: list[int] = []
        original = model.policy.step
        monkeypatch.setattr(model.policy, "step", lambda *a, f=original, c=calls, **k: (c.append(1), f(*a, **k))[1])
        model.learn(40)
        assert len(calls) == wanted


def test_a_replay_class_may_pass_arguments_on(tmp_path: Path) -> None:
    class Passing(SequenceReplayBuffer):
        def __init__(self, *args: Any, note: str = "", **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.note = note

    kwargs = {"note": "own", "spare_rows": 4}
    model = tiny(PlaNet, "MlpPolicy", "CartPole-v1", replay_buffer_class=Passing, replay_buffer_kwargs=kwargs)
    assert model.replay_buffer.note == "own"
    own = tiny(PlaNet, "MlpPolicy", "CartPole-v1", replay_buffer_kwargs={"replay_dir": tmp_path})
    assert own.replay_buffer.on_disk


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.full((1, 3), 1e300), r"NaN or infinity in observation 'obs' \(as float32\)"),
        (np.zeros((0, 3), np.float32), r"shape \(0, 3\): pass numbers, and at least one"),
        (np.array(["1", "2", "3"]), "an array of <U1"),
        (np.zeros(3, complex), "an array of complex128"),
    ],
)
def test_observations_that_have_no_action_are_refused(observation: np.ndarray, message: str) -> None:
    model = tiny(DreamerV3, "MlpPolicy", SpacesEnv(BOX, spaces.Discrete(2)))
    with pytest.raises(ValueError, match=message):
        model.predict(observation)


def test_a_reversed_view_is_an_observation_like_any_other() -> None:
    model = tiny(DreamerV3, "MlpPolicy", SpacesEnv(BOX, spaces.Discrete(2)))
    obs = np.eye(3, dtype=np.float32)[::-1]
    states = [model.predict(array, deterministic=True)[1] for array in (obs, obs.copy())]
    assert all(np.array_equal(*parts) for parts in zip(*states, strict=True))


@pytest.mark.parametrize("seed", [-1, 2.5, "a", 2**32])
def test_a_seed_that_no_generator_takes(seed: Any) -> None:
    with pytest.raises(ValueError, match=f"^seed={seed!r} must be an integer from 0"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", seed=seed)


def test_numbers_of_numpy_are_stored_as_those_of_python(tmp_path: Path) -> None:
    numbers = {"buffer_size": np.int64(300), "verbose": np.int64(0), "seed": np.int64(3), "train_ratio": np.float32(4)}
    tiny(DreamerV3, "MlpPolicy", "CartPole-v1", **numbers).save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model")
    assert {name: getattr(loaded, name) for name in numbers} == numbers


def test_load_refuses_what_is_no_environment(tmp_path: Path) -> None:
    tiny(DreamerV3, "MlpPolicy", "CartPole-v1").save(tmp_path / "model")
    with pytest.raises(TypeError, match="env=3 is not an environment"):
        DreamerV3.load(tmp_path / "model", env=3)


def test_a_planner_of_another_model_is_refused() -> None:
    model = tiny(DreamerV3, "MlpPolicy", SpacesEnv(BOX, spaces.Discrete(2)))
    with pytest.raises(ValueError, match=r"the planner chooses .*sizes=\(3,\).*model\.policy\.codec\.layout"):
        model.predict(np.zeros(3), planner=RandomBehavior(ActionLayout("discrete", (3,))))
