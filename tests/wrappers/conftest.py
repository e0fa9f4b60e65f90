"""A counting environment: every observation tells episode and step, so that wrappers can be checked exactly."""

import importlib.util
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_dreamer.wrappers.benchmarks.rendering import choose_backend, probe_backend


class CountingEnv(gym.Env):
    """Observation (episode, step, noise), reward = step, ends after ``length`` steps; pictures are filled with step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, length=10, end="terminated", kind="vector", action="discrete", lives=0, render_mode="rgb_array"):
        self.length, self.end, self.kind, self.lives, self.render_mode = length, end, kind, lives, render_mode
        vector = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        image = spaces.Box(0, 255, (8, 12, 3), np.uint8)
        self.observation_space = {
            "vector": vector,
            "image": image,
            "dict": spaces.Dict(vector=vector, image=image, scalar=spaces.Box(-np.inf, np.inf, (), np.float64)),
        }[kind]
        self.action_space = {
            "discrete": spaces.Discrete(3),
            "box": spaces.Box(np.array([1.0, -2.0]), np.array([50.0, 2.0]), dtype=np.float64),
        }[action]
        self.episode, self.t, self.actions = -1, 0, []

    def _image(self):
        return np.full((8, 12, 3), self.t % 256, np.uint8)

    def _obs(self):
        vector = np.array([self.episode, self.t, self.np_random.random()])
        whole = {"vector": vector, "image": self._image(), "scalar": np.array(float(self.t))}
        return whole if self.kind == "dict" else whole[self.kind]

    def _info(self):
        return {"lives": max(0, self.lives - self.t // 3)} if self.lives else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        if seed is not None:
            self.episode = 0
        return self._obs(), self._info()

    def step(self, action):
        self.actions.append(action)
        self.t += 1
        over = self.t >= self.length
        return (
            self._obs(),
            float(self.t),
            over and self.end == "terminated",
            over and self.end == "truncated",
            self._info(),
        )

    def render(self):
        return self._image()


@pytest.fixture
def counting():
    return CountingEnv


if importlib.util.find_spec("dm_control") is not None:
    choose_backend()  # before any test imports dm_control, which binds its renderer then


@pytest.fixture
def mujoco_pixels():
    """Skip where MuJoCo cannot draw."""
    pytest.importorskip("dm_control")
    backend = os.environ.get("MUJOCO_GL")
    if not backend or probe_backend(backend) is not None:
        pytest.skip("no MuJoCo rendering backend draws here")


def run_script(code, *args, timeout=120, **variables):
    """Run a Python program in a new process and return it."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


@pytest.fixture(name="run_script")
def _run_script():
    return run_script
