"""Observations, actions and rewards: values, spaces and refusals."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from sb3_dreamer.wrappers import (
    FilterKeys,
    NormalizeAction,
    OneHotAction,
    PixelObservation,
    ResizeFrame,
    SquashReward,
    StackChannels,
    TidyObservation,
    make_env,
)
from sb3_dreamer.wrappers import resize_frame as resize_module
from sb3_dreamer.wrappers.resize_frame import resize_image, to_gray


def test_area_resize_is_the_mean_of_whole_blocks():
    image = np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8)
    expected = np.rint(image.reshape(4, 3, 4, 2, 3).mean((1, 3)))
    assert np.abs(resize_image(image, (4, 4)).astype(int) - expected).max() <= 1  # ties may round either way


def test_area_resize_without_opencv_agrees_with_it(monkeypatch):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    for shape, size in [
        ((210, 160, 3), (64, 64)),
        ((210, 160, 1), (96, 96)),
        ((400, 600, 3), (64, 64)),
        ((64, 64, 3), (64, 64)),
    ]:
        image = rng.integers(0, 256, shape, np.uint8)
        with_cv2 = resize_image(image, size)
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, "cv2", None)
            without = resize_image(image, size)
        assert with_cv2.shape == without.shape == (*size, shape[2])
        assert np.abs(with_cv2.astype(int) - without.astype(int)).max() <= 1
        assert (with_cv2 != without).mean() < 0.02


def test_antialias_is_pillow_bilinear():
    image_module = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(2).integers(0, 256, (210, 160, 3), np.uint8)
    expected = np.asarray(image_module.fromarray(image).resize((64, 48), image_module.Resampling.BILINEAR))
    assert np.array_equal(resize_image(image, (48, 64), "antialias"), expected)
    checker = np.indices((128, 128)).sum(0) % 2 * np.uint8(255)
    small = resize_image(checker.astype(np.uint8)[..., None], (32, 32), "antialias")
    assert small.min() > 100 and small.max() < 155  # a nearest-neighbor filter would keep black and white


def test_gray_uses_luma_and_truncates():
    assert to_gray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[[76], [149], [29]]]


def test_resize_wrapper_on_dict_and_box(counting):
    env = ResizeFrame(counting(kind="dict"), (4, 6), grayscale=True)
    assert env.observation_space["image"] == spaces.Box(0, 255, (4, 6, 1), np.uint8)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space and obs["vector"].shape == (3,)
    assert ResizeFrame(counting(kind="image"), 4).observation_space.shape == (4, 4, 3)
    flat = ResizeFrame(gym.wrappers.GrayscaleObservation(counting(kind="image")), None)
    assert flat.reset(seed=0)[0].shape == flat.observation_space.shape == (8, 12, 1)


@pytest.mark.parametrize("arguments", [{"size": (1, 2, 3)}, {"size": 0}, {"method": "cubic"}, {"keys": ["vector"]}])
def test_resize_refuses(counting, arguments):
    with pytest.raises(ValueError, match=r"size|method|image"):
        ResizeFrame(counting(kind="dict"), **arguments)


def test_resize_needs_an_image(counting):
    with pytest.raises(ValueError, match="uint8 image"):
        ResizeFrame(counting(kind="vector"))


def test_pixels_replace_or_join_the_state(counting):
    alone = PixelObservation(counting(length=300), (4, 4))
    alone.reset(seed=0)
    obs, *_ = alone.step(0)
    assert obs.shape == (4, 4, 3) and (obs == 1).all()
    both = PixelObservation(counting(), 8, grayscale=True, keep_state=True)
    obs, _ = both.reset(seed=0)
    assert sorted(obs) == ["image", "state"] and obs in both.observation_space and obs["image"].shape == (8, 8, 1)
    with pytest.raises(ValueError, match="key"):
        PixelObservation(counting(kind="dict"), keep_state=True)
    with pytest.raises(ValueError, match="rgb_array"):
        PixelObservation(counting(render_mode=None))


def test_building_pixels_does_not_reset(counting):
    env = counting()
    PixelObservation(env)
    assert env.episode == -1


def test_tidy(counting):
    env = TidyObservation(counting(kind="dict"))
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    assert {key: (value.dtype.name, value.shape) for key, value in obs.items()} == {
        "vector": ("float32", (3,)),
        "image": ("uint8", (8, 12, 3)),
        "scalar": ("float32", (1,)),
    }


def test_tidy_drops_empty_entries_and_keeps_bounds():
    class Odd(gym.Env):
        observation_space = spaces.Dict(
            empty=spaces.Box(0, 1, (0,)), bounded=spaces.Box(-3.0, 4.0, (2,), np.float64), number=spaces.Discrete(4)
        )
        action_space = spaces.Discrete(2)

    space = TidyObservation(Odd()).observation_space
    assert space == spaces.Dict(bounded=spaces.Box(-3.0, 4.0, (2,), np.float32), number=spaces.Discrete(4))


@pytest.mark.parametrize(
    "low,high,before,after",
    [
        (-5, 2**31 - 1, np.int64, np.int32),
        (-5, 2**31, np.int64, np.int64),
        (-(2**31) - 1, 0, np.int64, np.int64),
        (0, 2**32 - 1, np.uint64, np.uint32),
        (0, 2**32, np.uint64, np.uint64),
        (0, 9, np.int16, np.int16),
    ],
)
def test_tidy_whole_numbers_of_64_bits_that_fit_into_32(counting, low, high, before, after):
    env = counting()
    env.observation_space = spaces.Box(low, high, (2,), before)
    env._obs = lambda: np.array([low, high], before)
    tidy = TidyObservation(env)
    assert tidy.observation_space == spaces.Box(low, high, (2,), after)
    obs, _ = tidy.reset(seed=0)
    assert obs.dtype == after and obs.tolist() == [low, high]


def test_filter_keys(counting):
    assert list(FilterKeys(counting(kind="dict"), include="vec.*|image").observation_space) == ["image", "vector"]
    assert list(FilterKeys(counting(kind="dict"), exclude="image|scalar").reset(seed=0)[0]) == ["vector"]
    alone = FilterKeys(counting(kind="dict"), include="image", unwrap_single=True)
    assert alone.reset(seed=0)[0] in alone.observation_space and alone.observation_space.shape == (8, 12, 3)
    with pytest.raises(ValueError, match="matches"):
        FilterKeys(counting(kind="dict"), include="vec")  # must match the whole key
    with pytest.raises(ValueError, match="Dict"):
        FilterKeys(counting())


def test_stack_channels(counting):
    env = StackChannels(counting(kind="image"), 3)
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step(0)
    assert obs.shape == (8, 12, 9) == env.observation_space.shape
    assert obs[0, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]  # oldest first, newest last
    vector = StackChannels(counting(), 2)
    assert vector.reset(seed=0)[0].shape == (6,) and vector.step(0)[0][[1, 4]].tolist() == [0, 1]
    nested = StackChannels(ResizeFrame(counting(kind="dict"), 4), 2)
    assert nested.reset(seed=0)[0] in nested.observation_space


class Reshaped(gym.ObservationWrapper):
    """Images of another form, all filled with the step."""

    def __init__(self, env, shape):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def observation(self, observation):
        return np.full(self.observation_space.shape, self.unwrapped.t, np.uint8)


@pytest.mark.parametrize(
    "shape,stacked,channels",
    [((3, 8, 12), (9, 8, 12), 0), ((1, 64, 64), (3, 64, 64), 0), ((8, 12), (8, 12, 3), 2), ((8, 12, 1), (8, 12, 3), 2)],
)
def test_stack_of_images_in_every_form(counting, shape, stacked, channels):
    env = StackChannels(Reshaped(counting(), shape), 3)
    env.reset(seed=0)
    env.step(0)
    obs, *_ = env.step(0)
    assert obs.shape == env.observation_space.shape == stacked and obs in env.observation_space
    order = np.moveaxis(obs, channels, 0)[:, 0, 0]
    assert order.tolist() == sorted([0, 1, 2] * (stacked[channels] // 3))


def test_stack_channels_refuses(counting):
    for amount in (1, 2.0, True, "4"):
        with pytest.raises(ValueError, match=f"amount={amount!r}: must be a whole number of observations, at least 2"):
            StackChannels(counting(), amount)
    with pytest.raises(ValueError, match="at most three axes"):
        StackChannels(Reshaped(counting(), (2, 8, 8, 3)), 2)


def test_a_spec_stacks_once():
    for env in (StackChannels(gym.make("CartPole-v1"), 3), make_env("CartPole-v1", frame_stack=3)):
        again = gym.make(env.spec)
        assert again.observation_space == env.observation_space and again.reset(seed=0)[0].shape == (12,)
        assert gym.make(again.spec).observation_space == env.observation_space


@pytest.mark.parametrize(
    "kind,scale,given,expected",
    [("tanh", 1.0, 2.0, np.tanh(2.0)), ("clip", 1.0, -7.0, -1.0), ("clip", 0.1, -7.0, -0.7), ("sign", 1.0, 3.0, 1.0)],
)
def test_squash(counting, kind, scale, given, expected):
    assert SquashReward(counting(), kind, scale).reward(given) == pytest.approx(expected)


def test_symlog_and_raw_reward(counting):
    env = SquashReward(counting(), "symlog")
    assert env.reward(-(np.e - 1)) == pytest.approx(-1.0) and env.reward(0.0) == 0.0
    env.reset(seed=0)
    env.step(0)
    _, reward, _, _, info = env.step(0)
    assert reward == pytest.approx(np.log(3)) and info["raw_reward"] == 2.0
    for bad in ({"kind": "log"}, {"scale": float("nan")}):
        with pytest.raises(ValueError, match="="):
            SquashReward(counting(), **bad)


def test_one_hot(counting):
    env = OneHotAction(counting())
    env.action_space.seed(0)
    seen = {tuple(env.action_space.sample()) for _ in range(50)}
    assert seen == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    env.reset(seed=0)
    env.step(np.array([0, 0, 1], np.float32))
    assert env.unwrapped.actions == [2]
    for bad in ([0.5, 0.5, 0], [1, 1, 0], [0, 0, 0], [1, 0]):
        with pytest.raises(ValueError, match="one-hot"):
            env.step(np.array(bad, np.float32))
    with pytest.raises(ValueError, match="Discrete"):
        OneHotAction(counting(action="box"))


def test_one_hot_actions_of_a_vector_environment():
    envs = gym.vector.SyncVectorEnv([lambda: OneHotAction(gym.make("CartPole-v1"))] * 3)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    seen = set()
    for _ in range(60):
        actions = envs.action_space.sample()
        assert actions.shape == (3, 2) and actions in envs.action_space
        seen.add(tuple(actions.argmax(1)))
        envs.step(actions)
    envs.close()
    assert len(seen) == 8  # the copies act each by itself
    assert np.array([[0, 1], [1, 1], [0, 1]], np.float32) not in envs.action_space
    assert envs.action_space == envs.action_space and envs.action_space != envs.single_action_space


def test_normalize_action_hits_the_bounds_exactly(counting):
    env = NormalizeAction(counting(action="box"))
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    env.reset(seed=0)
    for given, expected in [([-1, -1], [1, -2]), ([1, 1], [50, 2]), ([0, 0.5], [25.5, 1]), ([9, -9], [50, -2])]:
        env.step(np.array(given, np.float32))
        assert env.unwrapped.actions[-1].tolist() == expected and env.unwrapped.actions[-1].dtype == np.float64


def test_normalize_action_leaves_unbounded_dimensions():
    class Half(gym.Env):
        observation_space = spaces.Box(0, 1, (1,))
        action_space = spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([10.0, np.inf], np.float32))

    env = NormalizeAction(Half())
    assert env.action_space.low.tolist() == [-1, -np.inf]
    assert env.action(np.array([0.0, 7.0])).tolist() == [5.0, 7.0]


def test_constructor_arguments_are_recorded(counting):
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env = SquashReward(PixelObservation(env, size=32, grayscale=True), "clip", 0.5)
    wrappers = env.spec.additional_wrappers
    assert [wrapper.name for wrapper in wrappers] == ["PixelObservation", "SquashReward"]
    assert wrappers[0].kwargs["size"] == 32 and wrappers[1].kwargs == {"kind": "clip", "scale": 0.5}
    again = gym.make(env.spec)
    assert again.observation_space == env.observation_space and again.reset(seed=0)[0].shape == (32, 32, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda make: PixelObservation(make()),
        lambda make: ResizeFrame(make(kind="image"), 4),
        lambda make: TidyObservation(make(kind="dict")),
        lambda make: FilterKeys(make(kind="dict"), include="vector"),
        lambda make: StackChannels(make(), 3),
        lambda make: NormalizeAction(make(action="box")),
        lambda make: OneHotAction(make()),
        lambda make: SquashReward(make()),
    ],
)
def test_gymnasium_check_env(counting, build):
    check_env(build(counting), skip_render_check=True)


@pytest.mark.parametrize(
    "build,match",
    [
        (lambda make: FilterKeys(make(kind="dict"), ["image", "vector"]), r"write one pattern .* 'image\|vector'"),
        (lambda make: FilterKeys(make(kind="dict"), "*"), r"include='\*' is no regular expression"),
        (lambda make: FilterKeys(make(kind="dict"), exclude=3), "exclude=3: write one pattern"),
        (lambda make: ResizeFrame(make(kind="dict"), keys="image"), r"write a list, keys=\['image'\]"),
        (lambda make: PixelObservation(make(), size=64.0), "size=64.0: write a whole number of pixels"),
        (lambda make: PixelObservation(make(), size="64"), "size='64': write a whole number of pixels"),
        (lambda make: ResizeFrame(make(kind="image"), size=True), "size=True: write"),
        (lambda make: SquashReward(make(), scale="2"), "scale='2': must be a finite number"),
        (lambda make: SquashReward(make(), scale=True), "scale=True: must be"),
        (lambda make: NormalizeAction(make(action="box")).action(np.array([np.nan, 0])), "none of them NaN"),
        (lambda make: NormalizeAction(make(action="box")).action(np.zeros(3)), r"must be \(2,\) numbers"),
    ],
)
def test_bad_arguments_are_refused(counting, build, match):
    with pytest.raises(ValueError, match=match):
        build(counting)


@pytest.mark.parametrize(
    "space,match",
    [
        (spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))), r"\['a'\] of the observation are Dict or Tuple"),
        (spaces.Box(0, 1, (0,)), "is empty"),
    ],
)
def test_tidy_refuses(counting, space, match):
    env = counting()
    env.observation_space = space
    with pytest.raises(ValueError, match=match):
        TidyObservation(env)


def test_missing_pillow_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        resize_module.resize_image(np.zeros((8, 8, 3), np.uint8), (4, 4), "antialias")
