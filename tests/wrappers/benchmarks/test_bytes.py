"""Frames, rewards and ends of our suites equal an independent computation from the raw simulators, byte for byte."""

import collections

import numpy as np
import pytest

from sb3_dreamer.wrappers import make_env

LUMA = np.array([0.299, 0.587, 1 - 0.299 - 0.587])


class RawAtari:
    """The papers' preprocessing written once more, straight on ALE's C++ interface."""

    def __init__(self, rom, seed, *, sticky, all_actions, noops, size, grayscale, filter_name):
        import ale_py
        from ale_py import roms

        self.ale = ale_py.ALEInterface()
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale.setFloat("repeat_action_probability", sticky)
        # ale-py's environment derives the emulator's seed from the given one in this way.
        self.ale.setInt("random_seed", np.int32(np.random.SeedSequence(seed).generate_state(2)[1]))
        self.ale.loadROM(roms.get_rom_path(rom))
        self.actions = self.ale.getLegalActionSet() if all_actions else self.ale.getMinimalActionSet()
        self.noops, self.size, self.grayscale, self.filter_name = noops, size, grayscale, filter_name
        self.rng = np.random.default_rng(seed)

    def screen(self):
        return self.ale.getScreenGrayscale()[..., None] if self.grayscale == "screen" else self.ale.getScreenRGB()

    def finish(self, screens):
        import cv2
        from PIL import Image

        image = np.maximum(screens[0], screens[-1])
        if self.filter_name == "area":
            image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        else:
            image = np.asarray(Image.fromarray(image).resize((self.size, self.size), Image.BILINEAR))
        image = image.reshape(self.size, self.size, -1)
        if self.grayscale == "luma":
            image = np.floor(image[..., 0] * LUMA[0] + image[..., 1] * LUMA[1] + image[..., 2] * LUMA[2])[..., None]
        return image.astype(np.uint8)

    def reset(self):
        self.ale.reset_game()
        if self.noops[1]:
            for _ in range(self.rng.integers(self.noops[0], self.noops[1] + 1)):
                self.ale.act(0)
        return self.finish([self.screen()])

    def step(self, action):
        screens, reward, frames = [], 0, 0
        while frames < 4:
            reward += self.ale.act(self.actions[action])
            frames += 1
            screens.append(self.screen())
            if self.ale.game_over():
                break
        return self.finish(screens[-2:]), reward, self.ale.game_over(), frames


ATARI = [
    ("atari:pong", "dreamerv2", "pong", 0.25, False, (1, 30), 64, "screen", "area"),
    ("Pong", "dreamerv3-2023", "pong", 0.25, True, (0, 0), 64, None, "area"),
    ("atari:breakout", "dreamerv3-2024", "breakout", 0.25, True, (0, 30), 96, "luma", "antialias"),
    ("atari100k:ms_pacman", "dreamerv3-2023", "ms_pacman", 0.0, False, (0, 29), 64, None, "area"),
    ("atari100k:kung_fu_master", "dreamerv3-2024", "kung_fu_master", 0.0, False, (0, 30), 64, None, "antialias"),
]


@pytest.mark.parametrize("name,preset,rom,sticky,full,noops,size,grayscale,filter_name", ATARI)
def test_atari_equals_raw_ale(name, preset, rom, sticky, full, noops, size, grayscale, filter_name):
    pytest.importorskip("ale_py")
    for module in ("cv2", "PIL"):
        pytest.importorskip(module)
    env = make_env(name, preset=preset)
    steps = 0
    for seed in (0, 7):
        options = {"sticky": sticky, "all_actions": full, "noops": noops}
        raw = RawAtari(rom, seed, **options, size=size, grayscale=grayscale, filter_name=filter_name)
        obs, _ = env.reset(seed=seed)
        assert np.array_equal(obs, raw.reset())
        env.action_space.seed(seed)
        for _ in range(400):
            action = env.action_space.sample()
            obs, reward, terminated, truncated, info = env.step(action)
            expected, raw_reward, over, frames = raw.step(action)
            assert np.array_equal(obs, expected)
            assert (reward, terminated, truncated, info["frames"]) == (raw_reward, over, False, frames)
            steps += 1
            if over:
                assert np.array_equal(env.reset()[0], raw.reset())
    assert steps == 800


def test_atari_time_limit_is_truncation_unless_asked():
    pytest.importorskip("ale_py")
    for told, flags in [(False, (False, True)), (True, (True, False))]:
        env = make_env("Pong", time_limit=10, timeout_terminates=told)
        env.reset(seed=0)
        steps = [env.step(0) for _ in range(3)]
        assert steps[-1][2:4] == flags and [step[4]["frames"] for step in steps] == [4, 4, 2]


DMC = [
    ("walker_walk", "walker", "walk", 2, 0),
    ("cup_catch", "ball_in_cup", "catch", 2, 0),
    ("quadruped_walk", "quadruped", "walk", 2, 2),
]


@pytest.mark.parametrize("task,domain,name,repeat,camera", DMC)
def test_dmc_equals_dm_control_by_hand(mujoco_pixels, task, domain, name, repeat, camera):
    from dm_control import suite

    env = make_env(f"dmc_vision:{task}", pixels="both")
    raw = suite.load(domain, name, task_kwargs={"random": np.random.RandomState(11)})
    obs, _ = env.reset(seed=11)
    timestep = raw.reset()
    rng = np.random.default_rng(0)
    for _ in range(6):
        assert np.array_equal(obs["image"], raw.physics.render(64, 64, camera_id=camera))
        for key, value in timestep.observation.items():
            assert np.array_equal(obs[key], np.asarray(value, np.float32).reshape(obs[key].shape)), key
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, terminated, truncated, info = env.step(action)
        total = 0.0
        spec = raw.action_spec()  # most bounds are ±1, the quadruped's are not
        torque = spec.minimum + (action.astype(np.float64) + 1) / 2 * (spec.maximum - spec.minimum)
        for _ in range(repeat):
            timestep = raw.step(torque)
            total += timestep.reward
        assert reward == total and not terminated and not truncated and info["frames"] == repeat


def test_planet_repeat_and_length():
    pytest.importorskip("dm_control")
    env = make_env("planet:cartpole_swingup", pixels=None)
    env.reset(seed=0)
    action = np.zeros(1, np.float32)
    steps = [env.step(action) for _ in range(125)]
    assert [step[3] for step in steps] == [False] * 124 + [True] and not steps[-1][2]
    assert steps[-1][4]["episode_frames"] == 1000 and steps[-1][4]["discount"] == 1.0


def in_order_of_creation(raw):
    """Make the raw package repeatable: it picks creatures to remove from sets ordered by memory address."""

    class Ordered(list):
        add = list.append

    world = raw._world
    chunks = collections.defaultdict(Ordered)
    for thing in world.objects:
        chunks[world.chunk_key(thing.pos)].append(thing)
    world._chunks = chunks


@pytest.mark.parametrize(
    ("reward", "steps", "deaths"),
    [
        (True, 200, 1),
        pytest.param(True, 600, 2, marks=pytest.mark.slow),
        pytest.param(False, 600, 2, marks=pytest.mark.slow),
    ],
)
def test_crafter_equals_the_raw_package(reward, steps, deaths):
    crafter = pytest.importorskip("crafter")
    env = make_env("crafter:reward" if reward else "crafter:noreward", render_mode="rgb_array")
    raw = crafter.Env(reward=reward, seed=5)
    obs, _ = env.reset(seed=5)
    assert np.array_equal(obs, raw.reset())
    in_order_of_creation(raw)
    rng, ends = np.random.default_rng(0), 0
    for step in range(steps):
        action = int(rng.integers(env.action_space.n))
        obs, given, terminated, truncated, info = env.step(action)
        expected, raw_reward, done, raw_info = raw.step(action)
        assert np.array_equal(obs, expected)
        assert (given, terminated, truncated) == (raw_reward, done, False)
        assert (info["discount"], info["achievements"]) == (raw_info["discount"], raw_info["achievements"])
        if step % 50 == 0:
            assert env.render().shape == (256, 256, 3)  # must not change what comes after, night noise included
        if done:
            ends += 1
            assert info["unlocked"] == sorted(k for k, v in raw_info["achievements"].items() if v)
            assert np.array_equal(env.reset()[0], raw.reset())
            in_order_of_creation(raw)
    assert ends >= deaths


@pytest.mark.slow
def test_crafter_starts_like_the_untouched_package():
    crafter = pytest.importorskip("crafter")
    env = make_env("crafter:reward")
    for seed in range(5):
        raw = crafter.Env(seed=seed)
        assert np.array_equal(env.reset(seed=seed)[0], raw.reset())
        for action in range(9):  # the first removal of a creature can come at step 10
            assert np.array_equal(env.step(action)[0], raw.step(action)[0])


@pytest.mark.slow
def test_crafter_repeats_with_the_seed():
    pytest.importorskip("crafter")
    env = make_env("crafter:reward")

    def frames(seed):
        rng = np.random.default_rng(0)
        yield env.reset(seed=seed)[0]
        for _ in range(500):
            obs, _, terminated, _, _ = env.step(int(rng.integers(17)))
            yield env.reset()[0] if terminated else obs

    first = [hash(frame.tobytes()) for frame in frames(3)]
    assert first == [hash(frame.tobytes()) for frame in frames(3)] and first != [hash(f.tobytes()) for f in frames(4)]


def test_crafter_limit_truncates_and_sizes_are_height_first():
    pytest.importorskip("crafter")
    env = make_env("crafter:reward", time_limit=3, size=(36, 72))
    obs, _ = env.reset(seed=0)
    assert obs.shape == (36, 72, 3) and obs in env.observation_space
    steps = [env.step(0) for _ in range(3)]
    assert [step[3] for step in steps] == [False, False, True] and not steps[-1][2]
    assert steps[-1][4]["discount"] == 1.0


def test_crafter_worlds_do_not_touch_numpys_global_generator():
    pytest.importorskip("crafter")
    np.random.seed(0)
    make_env("crafter:reward").reset(seed=0)
    drawn = np.random.random()
    np.random.seed(0)
    assert drawn == np.random.random()
