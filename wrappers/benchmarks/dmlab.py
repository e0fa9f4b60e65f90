"""DMLab through DeepMind Lab's own Python module."""

from __future__ import annotations

import re
import zlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.benchmarks.errors import require
from sb3_dreamer.wrappers.benchmarks.presets import Settings

INSTALL = (
    "DeepMind Lab has no package on PyPI; build the wheel with Bazel from its repository (deepmind/lab, target "
    "//python/pip_package:build_pip_package, Python up to 3.11) and pip install it."
)
LOOK, PITCH = "LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", "LOOK_DOWN_UP_PIXELS_PER_FRAME"
STRAFE, MOVE, FIRE = "STRAFE_LEFT_RIGHT", "MOVE_BACK_FORWARD", "FIRE"


def _walk_and_turn(small: int, large: int) -> list[dict[str, int]]:
    """Return forward, back, strafe left and right, then looking left and right by each angle."""
    walks: list[dict[str, int]] = [{MOVE: 1}, {MOVE: -1}, {STRAFE: -1}, {STRAFE: 1}]
    return walks + [{LOOK: sign * angle} for angle in dict.fromkeys((small, large)) for sign in (-1, 1)]


def _turn_walking(angles: tuple[int, ...]) -> list[dict[str, int]]:
    return [{LOOK: sign * angle, MOVE: 1} for angle in angles for sign in (-1, 1)]


# 9 actions (Espeholt et al. 2018, arXiv 1802.01561, table D.2) and 15 (Hessel et al. 2018, arXiv 1809.04474).
ACTION_SETS: dict[str, list[dict[str, int]]] = {
    "impala": [*_walk_and_turn(20, 20), *_turn_walking((20,)), {FIRE: 1}],
    "popart": [*_walk_and_turn(10, 60), {PITCH: 10}, {PITCH: -10}, *_turn_walking((10, 60)), {FIRE: 1}],
}
SIMULATOR_FPS = 60
TEXT_WORDS, TEXT_WIDTH, TEXT_BUCKETS = 32, 32, 64 * 1024


class DMLabEnv(gym.Env, gym.utils.EzPickle):
    """One DMLab-30 level with a small discrete action set.

    Levels end after their time is up (or their task is done, which the interface does not distinguish): the end is
    ``truncated``; the papers' preset turns it into ``terminated``, as their code does. Language levels have a second
    observation ``instr``: fixed random vectors of the first 32 hashed words of the instruction.

    :param level: level name without ``contributed/dmlab30/``
    :param repeat: frames per step, run inside the simulator; ``info["frames"]`` is the number that was run
    :param size: (height, width) of the image
    :param action_set: ``"impala"`` (9 actions) or ``"popart"`` (15)
    :param render_mode: None or ``"rgb_array"`` (the observation)
    :raises ValueError: for an unknown action set
    :raises SuiteNotInstalledError: without ``deepmind_lab``
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (gymnasium declares it as a plain dict)

    def __init__(
        self,
        level: str,
        repeat: int = 4,
        size: tuple[int, int] = (64, 64),
        action_set: str = "impala",
        render_mode: str | None = None,
    ):
        gym.utils.EzPickle.__init__(self, level, repeat, size, action_set, render_mode)
        if action_set not in ACTION_SETS:
            raise ValueError(f"action_set={action_set!r} is unknown; write one of {', '.join(ACTION_SETS)}.")
        lab = require("deepmind_lab", "dmlab", INSTALL)
        self.repeat, self.size, self.render_mode = repeat, size, render_mode
        self.metadata = {**self.metadata, "render_fps": SIMULATOR_FPS / repeat}
        self._text = level.startswith("language")
        self._env = lab.Lab(
            level=f"contributed/dmlab30/{level}",
            observations=["RGB_INTERLEAVED", *(["INSTR"] if self._text else [])],
            config={"height": str(size[0]), "width": str(size[1]), "logLevel": "WARN"},
        )
        names = [spec["name"] for spec in self._env.action_spec()]
        self._actions = np.array([[act.get(name, 0) for name in names] for act in ACTION_SETS[action_set]], np.intc)
        self.action_space = spaces.Discrete(len(self._actions))
        image = spaces.Box(0, 255, (*size, 3), np.uint8)
        text = spaces.Box(-np.inf, np.inf, (TEXT_WORDS * TEXT_WIDTH,), np.float32)
        self.observation_space: spaces.Space[Any] = spaces.Dict(image=image, instr=text) if self._text else image
        self._table: np.ndarray | None = None
        self._obs: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode with a seed drawn from this environment's generator."""
        super().reset(seed=seed)
        self._env.reset(seed=int(self.np_random.integers(2**31 - 1)))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Run ``repeat`` frames; after the end the last image is returned, since the level has none any more."""
        before = self._env.num_steps()
        reward = self._env.step(self._actions[int(action)], num_steps=self.repeat)
        running = bool(self._env.is_running())
        frames = self._env.num_steps() - before if running else self.repeat
        return self._observe() if running else self._obs, float(reward), False, not running, {"frames": int(frames)}

    def _observe(self) -> Any:
        raw = self._env.observations()
        image = np.array(raw["RGB_INTERLEAVED"], np.uint8)
        self._obs = {"image": image, "instr": self._embed(str(raw["INSTR"]))} if self._text else image
        return self._obs

    def _embed(self, text: str) -> np.ndarray:
        """Return the concatenated vectors of the words, missing ones as bucket 0."""
        if self._table is None:
            self._table = np.random.default_rng(0).normal(size=(TEXT_BUCKETS, TEXT_WIDTH)).astype(np.float32)
        words = re.findall(r"[a-z_]+|[^a-z_ ]+", text.lower())[:TEXT_WORDS]
        buckets = [zlib.crc32(word.encode()) % TEXT_BUCKETS for word in words]
        return self._table[buckets + [0] * (TEXT_WORDS - len(buckets))].reshape(-1)

    def render(self) -> np.ndarray | None:
        """Return the last image."""
        if self.render_mode is None:
            return None
        image: np.ndarray = self._obs["image"] if self._text else self._obs
        return image

    def close(self) -> None:
        """End the simulator."""
        self._env.close()


def make_dmlab(task: str, settings: Settings, render_mode: str | None = None) -> gym.Env:
    """Make one level; ``"goals"`` is short for ``"explore_goal_locations_small"``.

    :param task: level name of DMLab-30
    :param settings: the preset's settings
    :param render_mode: None or ``"rgb_array"``
    """
    level = {"goals": "explore_goal_locations_small"}.get(task, task)
    action_set = settings.action_set or "impala"
    return DMLabEnv(level, settings.action_repeat, settings.size or (64, 64), action_set, render_mode)
