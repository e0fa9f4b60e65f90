"""check_dreamer_env finds every planted fault, and nothing in sound environments."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_dreamer.wrappers import check_dreamer_env, make_env


class Faulty(gym.Env):
    """A sound environment with one fault at a time."""

    def __init__(self, fault=None):
        self.fault = fault
        self.observation_space = spaces.Dict(
            a=spaces.Box(-1, 1, (2,), np.float32),
            b=spaces.Box(0, 255, (16, 16, 3), np.float32 if fault == "float image" else np.uint8),
        )
        if fault in ("constant", "duplicate"):
            self.observation_space["c"] = spaces.Box(-1, 1, (2,), np.float32)
        if fault == "grid":
            self.observation_space["b"] = spaces.Box(0, 5, (16, 16, 3), np.uint8)
        if fault == "double":
            self.observation_space["a"] = spaces.Box(-1, 1, (2,), np.float64)
        if fault == "tuple":
            self.observation_space["t"] = spaces.Tuple([spaces.Discrete(2)])
        high = np.inf if fault == "unbounded" else (50.0 if fault == "bounds" else 1.0)
        self.action_space = spaces.Box(-high, high, (1,), np.float32)
        self.t, self.loose = 0, np.random.default_rng()

    def _obs(self):
        rng = self.loose if self.fault == "seeding" else self.np_random
        a = rng.uniform(-1, 1, 2).astype(self.observation_space["a"].dtype)
        if self.fault == "nan" and self.t == 7:
            a[0] = np.nan
        if self.fault == "outside" and self.t == 7:
            a[0] = 3.0
        image = rng.integers(0, 5 if self.fault == "grid" else 256, (16, 16, 3))
        obs = {"a": a, "b": image.astype(self.observation_space["b"].dtype)}
        if self.fault in ("constant", "duplicate"):
            obs["c"] = np.zeros(2, np.float32) if self.fault == "constant" else a.copy()
        if self.fault == "tuple":
            obs["t"] = (0,)
        if self.fault == "undeclared":
            obs["extra"] = np.zeros(1)
        return obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.length = (
            1 if self.fault == "single" else (9 if self.fault == "limit" else int(self.np_random.integers(5, 20)))
        )
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        over = self.t >= self.length and self.fault != "endless"
        reward = float(self.np_random.random()) * (1e6 if self.fault == "huge" else 1)
        reward = {"nan reward": np.nan, "no reward": 0.0}.get(self.fault, reward)
        return self._obs(), reward, over, over and self.fault == "both", {}


@pytest.mark.parametrize(
    "fault,level,words",
    [
        ("nan", "error", "a contains NaN"),
        ("outside", "error", "a is outside its space"),
        ("undeclared", "error", "extra is not in the observation space"),
        ("tuple", "error", "'t' is a Tuple space"),
        ("unbounded", "error", "has an infinite bound"),
        ("nan reward", "error", "a reward is NaN"),
        ("constant", "warning", "c never changed"),
        ("duplicate", "warning", "a and c are always equal"),
        ("float image", "warning", "b has an image's shape but dtype float32"),
        ("grid", "warning", "b is uint8 only up to 5"),
        ("huge", "warning", "rewards reach"),
        ("no reward", "warning", "every reward was 0"),
        ("endless", "warning", "no episode ended in 300 steps"),
        ("limit", "warning", "every episode terminated after exactly 9 steps"),
        ("seeding", "warning", "the same seed gave two different episodes"),
        ("double", "note", "a is float64"),
        ("bounds", "note", "actions are in"),
        ("both", "note", "terminated and truncated at once"),
        ("single", "note", "episodes of a single step"),
    ],
)
def test_each_fault_is_found_with_advice(fault, level, words):
    report = check_dreamer_env(Faulty(fault), steps=300)
    assert [found.level for found in report.findings if words in found.what] == [level]
    assert all(found.advice for found in report.findings) and words in str(report)
    assert report.ok == (level != "error")
    assert sorted(report.findings, key=lambda f: ["error", "warning", "note"].index(f.level)) == report.findings


def test_a_sound_environment_has_no_findings():
    report = check_dreamer_env(Faulty(), steps=300)
    assert report.findings == [] and "no problem found" in str(report)
    assert {"observation a", "observation b", "action", "reward", "episodes", "speed"} == set(report.facts)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Pong", "dmc_proprio:walker_walk"])
def test_real_environments_have_no_error(name):
    if name == "Pong":
        pytest.importorskip("ale_py")
    if name.startswith("dmc"):
        pytest.importorskip("dm_control")
    assert check_dreamer_env(make_env(name), steps=200).ok


def test_one_hot_actions_are_refused_by_the_check_and_by_the_algorithm():
    sb3_dreamer = pytest.importorskip("sb3_dreamer")
    env = make_env("CartPole-v1", one_hot=True)
    findings = [found for found in check_dreamer_env(env, steps=20).findings if "action" in found.what]
    assert [found.level for found in findings] == ["error"] and "no OneHotAction" in findings[0].advice
    with pytest.raises(ValueError, match=r"OneHotSpace\(2\) is a Box that .* no OneHotAction"):
        sb3_dreamer.DreamerV3("MlpPolicy", env)


def test_slow_environments_are_noted():
    class Slow(gym.Wrapper):
        def step(self, action):
            import time

            time.sleep(0.012)
            return self.env.step(action)

    found = check_dreamer_env(Slow(gym.make("CartPole-v1")), steps=20).findings
    assert any("a step takes" in finding.what and "make_vec_env" in finding.advice for finding in found)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="steps"):
        check_dreamer_env(gym.make("CartPole-v1"), steps=0)
    with pytest.raises(ValueError, match="not a vector"):
        check_dreamer_env(gym.make_vec("CartPole-v1", 2))
