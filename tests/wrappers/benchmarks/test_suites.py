"""Names, presets, overrides and errors of make_env."""

import dataclasses
import importlib.util
import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sb3_dreamer.wrappers import (
    PRESETS,
    SUITES,
    Settings,
    SuiteNotInstalledError,
    SuitePreset,
    compare_presets,
    make_env,
    warn_if_different,
)
from sb3_dreamer.wrappers.benchmarks.presets import apply_overrides
from sb3_dreamer.wrappers.benchmarks.suites import split_name
from sb3_dreamer.wrappers.benchmarks.tasks import ATARI_26, ATARI_55, PLANET_REPEATS


def installed(module):
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize(
    "name,expected",
    [
        ("Pong", ("atari", "Pong")),
        ("MsPacman", ("atari", "MsPacman")),
        ("ms_pacman", ("atari", "ms_pacman")),
        ("atari100k:pong", ("atari100k", "pong")),
        ("bsuite:cartpole/0", ("bsuite", "cartpole/0")),
        ("CartPole-v1", ("gymnasium", "CartPole-v1")),
        ("ALE/Pong-v5", ("gymnasium", "ALE/Pong-v5")),
        ("my_package:MyEnv-v0", ("gymnasium", "my_package:MyEnv-v0")),
    ],
)
def test_names(name, expected):
    assert split_name(name) == expected


def test_task_lists_have_the_papers_sizes():
    sizes = {name: len(suite.tasks) for name, suite in SUITES.items()}
    assert sizes == {
        "atari": 55, "atari100k": 26, "dmc_vision": 20, "dmc_proprio": 18, "planet": 7, "crafter": 2, "bsuite": 23,
        "dmlab": 30, "minecraft": 3,
    }  # fmt: skip
    assert set(ATARI_26) < set(ATARI_55)
    assert all(len(set(suite.tasks)) == len(suite.tasks) for suite in SUITES.values())
    assert PRESETS.keys() == SUITES.keys()


@pytest.mark.skipif(not installed("ale_py"), reason="needs ale_py")
def test_every_atari_game_exists():
    from sb3_dreamer.wrappers.benchmarks.atari import game_id

    assert len({game_id(task) for task in ATARI_55}) == 55
    assert game_id("james_bond") == game_id("Jamesbond") == "ALE/Jamesbond-v5"
    with pytest.raises(ValueError, match="pong"):
        game_id("pongg")


@pytest.mark.skipif(not installed("dm_control"), reason="needs dm_control")
def test_every_control_task_exists():
    from sb3_dreamer.wrappers.benchmarks.dmc import split_task

    for task in [*SUITES["dmc_vision"].tasks, *SUITES["planet"].tasks]:
        split_task(task)
    with pytest.raises(ValueError, match="walker_walk"):
        split_task("walker_wak")


CASES = [
    ("CartPole-v1", {}),
    ("CartPole-v1", {"pixels": True, "size": 32, "grayscale": True, "action_repeat": 2}),
    ("Pendulum-v1", {"normalize_action": True, "action_repeat": 2, "time_limit": 50}),
    ("ALE/Pong-v5", {"size": 64}),
    ("Pong", {}),
    ("atari:breakout", {"preset": "dreamerv3-2024", "frame_stack": 2, "lives": "discount"}),
    ("atari100k:pong", {}),
    ("dmc_proprio:walker_walk", {}),
    ("dmc_proprio:cartpole_swingup", {"flatten": True, "reward": "symlog"}),
    ("dm_control/walker-walk-v0", {}),
    pytest.param("crafter:reward", {"one_hot": True}, marks=pytest.mark.slow),  # its worlds take seconds to make
    ("bsuite:cartpole/0", {}),
]
NEEDS = {
    "ALE": "ale_py",
    "Pong": "ale_py",
    "atari": "ale_py",
    "dm": "dm_control",
    "crafter": "crafter",
    "bsuite": "bsuite",
}


@pytest.mark.parametrize("name,kwargs", CASES)
def test_environments_pass_gymnasiums_check_and_repeat_with_the_seed(name, kwargs):
    for prefix, module in NEEDS.items():
        if name.startswith(prefix) and not installed(module):
            pytest.skip(f"needs {module}")
    env = make_env(name, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checker's advice; its errors are what matters here
        check_env(env, skip_render_check=True)
    traces = []
    for _ in range(2):
        env.action_space.seed(1)
        trace = [env.reset(seed=1)[0]]
        for _ in range(20):
            obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert obs in env.observation_space and isinstance(reward, float) and info["frames"] >= 1
            trace += [obs, reward, terminated]
            if terminated or truncated:
                break
        traces.append(trace)
    assert all(_same(a, b) for a, b in zip(*traces, strict=True))
    stored = env.get_wrapper_attr("suite_preset")
    assert SuitePreset.from_dict(json.loads(json.dumps(stored))).to_dict() == stored
    env.close()


def _same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in a) if isinstance(a, dict) else np.array_equal(a, b)


@pytest.mark.parametrize("suite", ["dmc_vision", "planet"])
def test_control_from_pixels(mujoco_pixels, suite):
    env = make_env(f"{suite}:walker_walk", render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (64, 64, 3) and obs.std() > 10 and env.render().shape == (256, 256, 3)
    assert env.step(env.action_space.sample())[4]["frames"] == 2


@pytest.mark.parametrize("first", ["dmc_proprio:cartpole_swingup", "dm_control/cartpole-swingup-v0"])
def test_pictures_after_states_in_one_process(mujoco_pixels, run_script, first):
    code = (
        "from sb3_dreamer.wrappers import make_env\n"
        f"make_env({first!r}).reset(seed=0)\n"
        "print(make_env('dmc_vision:cartpole_swingup').reset(seed=0)[0].std() > 5)\n"
    )
    done = run_script(code, timeout=500, MUJOCO_GL="")
    assert done.stdout.strip() == "True", done.stderr


def test_a_renderer_bound_too_early_is_an_error_not_a_crash(mujoco_pixels, run_script):
    code = (
        "import os; os.environ.pop('DISPLAY', None)\n"
        "import dm_control.suite\nfrom sb3_dreamer.wrappers import make_env\n"
        "make_env('dmc_vision:cartpole_swingup')\n"
    )
    done = run_script(code, timeout=500, MUJOCO_GL="")
    assert "RuntimeError: dm_control was imported before" in done.stderr and done.returncode == 1


@pytest.mark.skipif(not installed("dm_control"), reason="needs dm_control")
def test_planet_repeats_are_in_the_preset():
    for task, repeat in PLANET_REPEATS.items():
        env = make_env(f"planet:{task}", pixels=None)
        assert env.get_wrapper_attr("suite_preset")["settings"]["action_repeat"] == repeat


def test_settings_are_frozen_and_json():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["atari"]["dreamerv2"].sticky = 0.0
    for suite, presets in PRESETS.items():
        for name, settings in presets.items():
            preset = SuitePreset(suite, "task", name, settings)
            assert SuitePreset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


def test_reading_the_preset_returns_a_copy():
    env = make_env("CartPole-v1", action_repeat=2)
    env.get_wrapper_attr("suite_preset")["settings"]["action_repeat"] = 99
    stored = env.get_wrapper_attr("suite_preset")
    assert stored["settings"]["action_repeat"] == 2 and stored["overrides"] == ["action_repeat"]
    assert (stored["suite"], stored["preset"]) == ("gymnasium", "none")


def test_hash_tells_settings_apart():
    one = SuitePreset("atari", "pong", "dreamerv2", Settings())
    assert one.hash == SuitePreset("atari", "pong", "other", Settings()).hash
    assert one.hash != SuitePreset("atari", "pong", "dreamerv2", Settings(sticky=0.25)).hash


def test_comparison_and_warning():
    old = SuitePreset("atari", "pong", "dreamerv2", PRESETS["atari"]["dreamerv2"]).to_dict()
    new = SuitePreset("atari", "pong", "dreamerv3-2023", PRESETS["atari"]["dreamerv3-2023"]).to_dict()
    lines = compare_presets(old, new)
    assert "all_actions: False -> True" in lines and "noops: [1, 30] -> [0, 0]" in lines and len(lines) == 3
    with pytest.warns(UserWarning, match="all_actions: False -> True"):
        assert warn_if_different(old, new)
    assert not warn_if_different(old, old) and not warn_if_different(None, new)


@pytest.mark.skipif(not installed("dm_control"), reason="needs dm_control")
def test_overrides_are_told_only_where_they_differ():
    env = make_env("dmc_proprio:walker_walk", action_repeat=2, reward="tanh")
    assert env.get_wrapper_attr("suite_preset")["overrides"] == ["reward"]


@pytest.mark.parametrize(
    "name,kwargs,match",
    [
        ("", {}, "empty"),
        ("atari:", {}, "names no task"),
        ("CartPole-v1", {"preset": "dreamerv3"}, "no preset"),
        ("crafter:reward", {"preset": "planet"}, "write one of dreamerv2"),
        ("crafter:reward", {"action_repet": 2}, "action_repeat"),
        ("crafter:reward", {"sticky": 0.5}, "no setting 'sticky'"),
        ("crafter:other", {}, "crafter:reward"),
        ("CartPole-v1", {"action_repeat": 0}, "action_repeat=0 must be a whole number from 1"),
        ("CartPole-v1", {"action_repeat": 1.5}, "action_repeat=1.5 must be"),
        ("CartPole-v1", {"frame_stack": 0}, "frame_stack=0 must be a whole number from 1"),
        ("CartPole-v1", {"time_limit": 0}, "time_limit=0 must be"),
        ("CartPole-v1", {"pixels": "yes"}, "pixels='yes' must be one of None, 'only', 'both'"),
        ("CartPole-v1", {"size": 0}, r"size=\(0, 0\) must be two whole numbers"),
        ("CartPole-v1", {"size": 64.0, "pixels": True}, "size=64.0 must be two whole numbers"),
        ("CartPole-v1", {"size": "64", "pixels": True}, "size='64' must be two whole numbers"),
        ("CartPole-v1", {"reward_scale": "3"}, "reward_scale='3' must be a finite number"),
        ("CartPole-v1", {"reward_scale": True}, "reward_scale=True must be"),
        ("CartPole-v1", {"one_hot": "yes"}, "one_hot='yes' must be True or False"),
        ("CartPole-v1", {"reward": "square"}, "reward='square' must be one of None, 'clip'"),
        ("atari:pong", {"sticky": 1.5}, "sticky=1.5 must be a probability"),
        ("atari:pong", {"noops": (3, 1)}, r"noops=\(3, 1\) must be a smallest and a largest"),
        ("atarii:pong", {}, "'atarii' of 'atarii:pong' is neither a suite .did you mean 'atari'"),
        ("CartPole-v1", {"action_repeats": 2}, "did you mean 'action_repeat'"),
        ("CartPole-v1", {"sticky": 0.25}, "'CartPole-v1' has no setting 'sticky'; it has action_repeat"),
        ("CartPole-v1", {"camera": 1}, "no setting 'camera'"),
        ("CartPole-v1", {"break_speed": 1.0}, "no setting 'break_speed'"),
        ("CartPole-v1", {"max_pool": 2}, "max_pool=2 merges more frames than action_repeat=1 has"),
        ("CartPole-v1", {"normalize_action": True}, "NormalizeAction needs a Box action space of floats"),
        ("CartPole-v1", {"flatten": True}, "flatten=True needs a Dict"),
        ("CartPole-v1", {"resize": "antialias"}, "resize='antialias' needs a size"),
        ("CartPole-v1", {"pixels": True, "grayscale": "screen"}, "grayscale='screen' is the palette of Atari"),
        ("CartPole-v1", {"time_limit": 9, "max_episode_steps": 9}, "max_episode_steps of gymnasium.make is set by"),
        ("dm_control/walker-walk-v0", {"camera": 1}, "camera=1 needs images"),
        ("dmc_proprio:walker_walk", {"camera": 1}, "camera=1 needs images"),
        ("dmc_proprio:walker_walk", {"size": 32}, r"size=\(32, 32\) needs images"),
    ],
)
def test_errors_say_what_to_write(name, kwargs, match):
    if name == "crafter:other":
        pytest.importorskip("crafter")
    if name.startswith("dm"):
        pytest.importorskip("dm_control")
    with pytest.raises(ValueError, match=match):
        make_env(name, **kwargs)


@pytest.mark.skipif(not installed("ale_py"), reason="needs ale_py")
def test_settings_of_a_plain_game_reach_the_emulator_and_are_recorded():
    def recorded(env):
        settings = env.get_wrapper_attr("suite_preset")["settings"]
        return settings["sticky"], settings["noops"], settings["all_actions"], settings["grayscale"]

    plain = make_env("ALE/Pong-v5")
    assert recorded(plain) == (0.25, [0, 0], False, False) and plain.action_space.n == 6
    env = make_env("ALE/Pong-v5", sticky=0.0, noops=30, all_actions=True, grayscale="screen")
    assert recorded(env) == (0.0, [30, 30], True, "screen") and env.action_space.n == 18
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.0
    obs, info = env.reset(seed=0)
    assert info["noops"] == 30 and obs.shape == (210, 160, 1)
    assert recorded(make_env("ALE/Pong-v5", repeat_action_probability=0.5))[0] == 0.5


def test_a_camera_of_a_plain_control_task(mujoco_pixels):
    images = [make_env("dm_control/walker-walk-v0", pixels=True, camera=i).reset(seed=0)[0] for i in (0, 1)]
    assert (images[0] != images[1]).any()


def length(env):
    env.reset(seed=0)
    for _ in range(10_000):
        _, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, env.action_space.dtype))
        if terminated or truncated:
            return info["episode_frames"], terminated
    return None, None


@pytest.mark.parametrize("name,own", [("Pendulum-v1", 200), ("dm_control/pendulum-swingup-v0", 1000),
                                      ("dmc_proprio:pendulum_swingup", 1000)])  # fmt: skip
def test_a_time_limit_replaces_the_environments_own(name, own):
    if name.startswith("dm"):
        pytest.importorskip("dm_control")
    assert length(make_env(name)) == (own, False)
    assert length(make_env(name, time_limit=own + 300)) == (own + 300, False)
    again = make_env(name, time_limit=50)
    assert length(again) == (50, False)
    assert length(gym.make(again.spec)) == (50, False)


@pytest.mark.skipif(not installed("ale_py"), reason="needs ale_py")
def test_a_time_limit_replaces_the_emulators():
    env = make_env("ALE/Pong-v5", time_limit=7)
    assert env.spec.kwargs["max_num_frames_per_episode"] == 0 and env.spec.max_episode_steps == 7
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(7)] == [False] * 6 + [True]


def test_no_more_frames_are_pooled_than_a_step_has():
    pytest.importorskip("ale_py")
    assert make_env("Pong", action_repeat=1).get_wrapper_attr("suite_preset")["settings"]["max_pool"] == 1


@pytest.mark.skipif(not installed("dm_control"), reason="needs dm_control")
def test_control_tasks_without_normalized_actions():
    env = make_env("dmc_proprio:finger_spin", normalize_action=False)
    assert not any(wrapper.name == "NormalizeAction" for wrapper in env.spec.additional_wrappers)


def test_an_environment_is_not_a_name():
    with pytest.raises(TypeError, match="as a string, not <"):
        make_env(gym.make("CartPole-v1"))


def test_unknown_keywords_of_an_id_go_to_gymnasium():
    assert make_env("FrozenLake-v1", is_slippery=False).unwrapped.spec.kwargs["is_slippery"] is False
    with pytest.raises(TypeError, match="no_such_argument"):
        make_env("CartPole-v1", no_such_argument=1)
    with pytest.raises(gym.error.NameNotFound):
        make_env("NoSuchThing-v0")


@pytest.mark.parametrize(
    "name,module,hint",
    [
        ("Pong", "ale_py", r"sb3-dreamer\[atari\]"),
        ("dmc_proprio:walker_walk", "dm_control.suite", r"sb3-dreamer\[dmc\]"),
        ("crafter:reward", "crafter", r"sb3-dreamer\[crafter\]"),
        ("bsuite:cartpole/0", "bsuite", r"sb3-dreamer\[bsuite\]"),
        ("dmlab:explore_goal_locations_small", "deepmind_lab", "Bazel"),
        ("minecraft:diamond", "minerl.herobraine.env_spec", "pip install minerl"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, name, module, hint):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(SuiteNotInstalledError, match=hint):
        make_env(name)


def test_overrides_take_lists_and_single_numbers():
    settings = apply_overrides(Settings(), {"size": np.int64(64), "noops": [0, 30]})
    assert (settings.size, settings.noops) == ((64, 64), (0, 30))
    assert apply_overrides(Settings(), {"size": np.array([32, 48])}).size == (32, 48)


@pytest.mark.parametrize(
    "name,fps",
    [
        ("Pong", 60 / 4),  # ale-py says 30, the emulator runs at 60
        ("ALE/Pong-v5", 60 / 4),
        ("dmc_proprio:cartpole_balance", 1 / 0.01 / 2),
        ("dm_control/cartpole-balance-v0", 1 / 0.01),
        ("CartPole-v1", 50),
    ],
)
def test_videos_have_the_speed_of_the_task(name, fps):
    if "ong" in name:
        pytest.importorskip("ale_py")
    if "dm" in name:
        pytest.importorskip("dm_control")
    assert make_env(name).metadata["render_fps"] == pytest.approx(fps)
