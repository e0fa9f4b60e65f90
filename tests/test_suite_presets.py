import warnings

import pytest

from sb3_dreamer.hints import near
from sb3_dreamer.suite_presets import compare_presets, warn_if_different
from sb3_dreamer.wrappers import PRESETS, SuitePreset, make_env

PONG = SuitePreset("atari", "pong", "dreamerv2", PRESETS["atari"]["dreamerv2"]).to_dict()


@pytest.mark.parametrize("older", ["stored", "current"])
def test_a_setting_that_another_release_does_not_have_is_no_difference(older: str) -> None:
    fewer = {**PONG, "hash": "0" * 12, "settings": {k: v for k, v in PONG["settings"].items() if k != "max_pool"}}
    pair = (fewer, PONG) if older == "stored" else (PONG, fewer)
    assert compare_presets(*pair) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_if_different(*pair)


def test_every_difference_is_told() -> None:
    other = {**PONG, "task": "breakout", "settings": {**PONG["settings"], "sticky": 0.0}}
    assert compare_presets(PONG, other) == ["task: 'pong' -> 'breakout'", "sticky: 0.25 -> 0.0"]


def test_a_model_of_a_release_with_fewer_settings_loads_without_a_warning() -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv

    from sb3_dreamer.common.checks import warn_other_preset

    env = DummyVecEnv([lambda: make_env("CartPole-v1", action_repeat=2)])
    stored = env.get_attr("suite_preset")[0]
    stored["hash"], stored["settings"] = "0" * 12, {"action_repeat": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_other_preset(stored, env)
    stored["settings"]["action_repeat"] = 1
    with pytest.warns(UserWarning, match=r"\(action_repeat: 1 -> 2\)"):
        warn_other_preset(stored, env)


def test_the_nearest_name() -> None:
    assert near("PONGG", ["Pong", "breakout"]) == " (did you mean 'Pong'?)"
    assert near("pong", ["breakout"]) == ""
