"""Name and freeze the settings of every benchmark suite, per paper.

The same task name means different tasks in different papers (frame size, sticky actions, random starts, action set),
so a score only means something together with these settings. Each preset is a value that is plain JSON data: it can be
read from an environment (``env.get_wrapper_attr("suite_preset")``), stored with a model and compared at evaluation.

Sources: the released codes. ``planet``: google-research/planet, camera-ready release; ``dreamerv2``: danijar/dreamerv2;
``dreamerv3-2023``: danijar/dreamerv3 at 8fa35f8 (the code of arXiv 2301.04104v1); ``dreamerv3-2024``: the same
repository after its rewrite of December 2024.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_dreamer.hints import near

DEFAULT_PRESET = "dreamerv3-2023"
CHOICES: dict[str, tuple[Any, ...]] = {  #: of the settings that are names
    "resize": ("area", "antialias"),
    "grayscale": (False, True, "luma", "screen"),
    "pixels": (None, "only", "both"),
    "lives": ("unused", "discount", "reset"),
    "reward": (None, "clip", "sign", "tanh", "symlog"),
}
ALIASES = {"dreamerv3": "dreamerv3-2023", "v3": "dreamerv3-2023", "v2": "dreamerv2"}


@dataclass(frozen=True)
class Settings:
    """All settings of an environment; None or the default where a suite does not use it.

    :param action_repeat: environment frames per agent step
    :param time_limit: episode length in environment frames, after which it is truncated, instead of the environment's
        own limit; None: only that
    :param size: height and width of the image in pixels; None: as the environment has it
    :param resize: ``"area"`` or ``"antialias"`` (see ``resize_image``)
    :param grayscale: False, ``"luma"`` (one channel computed from the resized colors) or ``"screen"`` (the emulator's
        own gray palette, before pooling and resizing)
    :param pixels: None (as the environment has it), ``"only"`` (image instead of state) or ``"both"``
    :param camera: dm_control camera, None: the papers' choice per domain
    :param sticky: probability that the emulator repeats the previous action at a frame
    :param noops: smallest and largest number of no-op frames at the start of an episode (uniform)
    :param lives: ``"unused"``, ``"discount"`` (a lost life is a discount of 0) or ``"reset"`` (it ends the episode)
    :param all_actions: all 18 Atari actions instead of those the game uses
    :param max_pool: number of last frames of an agent step merged by their maximum
    :param frame_stack: number of stacked observations
    :param reward: None, ``"clip"`` (to [-1, 1]), ``"sign"``, ``"tanh"`` or ``"symlog"``
    :param reward_scale: factor on the reward, applied before that
    :param timeout_terminates: report a time limit as a terminal state
    :param one_hot: take discrete actions as one-hot vectors
    :param normalize_action: bounded continuous actions from [-1, 1]
    :param flatten: one vector instead of a dict of vectors
    :param action_set: name of the action set (DMLab)
    :param break_speed: block breaking speed (Minecraft)
    """

    action_repeat: int = 1
    time_limit: int | None = None
    size: tuple[int, int] | None = None
    resize: str = "area"
    grayscale: bool | str = False
    pixels: str | None = None
    camera: int | None = None
    sticky: float = 0.0
    noops: tuple[int, int] = (0, 0)
    lives: str = "unused"
    all_actions: bool = False
    max_pool: int = 1
    frame_stack: int = 1
    reward: str | None = None
    reward_scale: float = 1.0
    timeout_terminates: bool = False
    one_hot: bool = False
    normalize_action: bool = False
    flatten: bool = False
    action_set: str | None = None
    break_speed: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range.

        :raises ValueError: quoting the value and what is allowed
        """
        for name in ("action_repeat", "max_pool", "frame_stack", "time_limit"):
            value = getattr(self, name)
            fits = (_is_whole(value) and value >= 1) or (name == "time_limit" and value is None)
            _check(name, value, "a whole number from 1", fits)
        pair = self.size
        what = "two whole numbers from 1, height and width, or one for both"
        _check("size", pair, what, pair is None or (_are_whole(pair) and min(pair) >= 1))
        low, high = self.noops if _are_whole(self.noops) else (-1, -1)
        _check("noops", self.noops, "a smallest and a largest number from 0", 0 <= low <= high)
        chance = _is_number(self.sticky) and 0.0 <= self.sticky <= 1.0
        _check("sticky", self.sticky, "a probability from 0 to 1", chance)
        _check("camera", self.camera, "the number of a camera", self.camera is None or _is_whole(self.camera))
        speed = self.break_speed
        _check("break_speed", speed, "a number above 0", speed is None or (_is_number(speed) and speed > 0))
        _check("reward_scale", self.reward_scale, "a finite number", _is_number(self.reward_scale))
        for name in ("all_actions", "timeout_terminates", "one_hot", "normalize_action", "flatten"):
            value = getattr(self, name)
            _check(name, value, "True or False", isinstance(value, bool))
        for name, known in CHOICES.items():
            value = getattr(self, name)
            _check(name, value, f"one of {', '.join(map(repr, known))}", value in known)


SETTING_NAMES = tuple(field.name for field in fields(Settings))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_whole(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) == 2 and all(map(_is_whole, values))


def _check(name: str, value: Any, what: str, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{name}={value!r} must be {what}.")


@dataclass(frozen=True)
class SuitePreset:
    """One environment's identity: suite, task, the preset's name and the settings in force.

    :param suite: suite name, ``"gymnasium"`` for a plain id
    :param task: task name in the suite, or the id
    :param preset: name of the preset the settings started from
    :param settings: the settings in force, overrides included
    :param overrides: names of the settings that differ from the preset
    """

    suite: str
    task: str
    preset: str
    settings: Settings
    overrides: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Return 12 hexadecimal digits that identify suite, task and settings (not the preset's name)."""
        content = json.dumps([self.suite, self.task, asdict(self.settings)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values (tuples as lists), with the hash."""
        data = {"suite": self.suite, "task": self.task, "preset": self.preset, "hash": self.hash}
        plain: dict[str, Any] = json.loads(json.dumps({"settings": asdict(self.settings), "overrides": self.overrides}))
        return {**data, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SuitePreset:
        """Build the preset from what ``to_dict`` returned.

        :raises ValueError: if a setting is unknown
        """
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in data["settings"].items()}
        settings = apply_overrides(Settings(), values)
        return cls(data["suite"], data["task"], data["preset"], settings, tuple(data.get("overrides", ())))


def apply_overrides(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Return the settings with some of them replaced.

    :param overrides: setting name to value; ``size`` may be one number
    :raises ValueError: for an unknown name, with the nearest known one
    """
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in overrides.items()}
    for name in values:
        if name not in SETTING_NAMES:
            raise ValueError(f"unknown setting {name!r}{near(name, SETTING_NAMES)}: use {', '.join(SETTING_NAMES)}")
    for name in ("size", "noops"):
        if isinstance(values.get(name), int):
            values[name] = (values[name],) * 2
        elif isinstance(values.get(name), list | np.ndarray):
            values[name] = tuple(np.asarray(values[name], object).tolist())
    return replace(settings, **values)


class SuiteInfo(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Carry the preset that an environment was made with.

    Read it through other wrappers with ``env.get_wrapper_attr("suite_preset")``, through an SB3 vector environment with
    ``vec_env.get_attr("suite_preset")[0]``; it is a dict of plain JSON values.

    :param env: environment to wrap
    :param preset: ``SuitePreset`` or its ``to_dict()``
    """

    def __init__(self, env: gym.Env, preset: SuitePreset | dict[str, Any]):
        data = preset.to_dict() if isinstance(preset, SuitePreset) else preset
        gym.utils.RecordConstructorArgs.__init__(self, preset=data)
        gym.Wrapper.__init__(self, env)
        self._preset = SuitePreset.from_dict(data)

    @property
    def suite_preset(self) -> dict[str, Any]:
        """Return suite, task, preset name, hash and settings as plain JSON values (a fresh copy)."""
        return self._preset.to_dict()


_ATARI = Settings(action_repeat=4, time_limit=108_000, size=(64, 64), max_pool=2, sticky=0.25)
_DMC = Settings(action_repeat=2, time_limit=1000, size=(64, 64), normalize_action=True)
_VISION = replace(_DMC, pixels="only")
_CRAFTER = Settings(size=(64, 64), time_limit=10_000)
_DMLAB = Settings(action_repeat=4, size=(64, 64), action_set="impala", timeout_terminates=True)
_MINECRAFT = Settings(size=(64, 64), time_limit=36_000, break_speed=100.0)

PRESETS: dict[str, dict[str, Settings]] = {
    "atari": {
        "dreamerv2": replace(_ATARI, grayscale="screen", noops=(1, 30)),
        "dreamerv3-2023": replace(_ATARI, all_actions=True),
        "dreamerv3-2024": replace(
            _ATARI, size=(96, 96), grayscale="luma", resize="antialias", noops=(0, 30), all_actions=True
        ),
    },
    "atari100k": {
        "dreamerv3-2023": replace(_ATARI, sticky=0.0, noops=(0, 29)),
        "dreamerv3-2024": replace(_ATARI, sticky=0.0, noops=(0, 30), resize="antialias"),
    },
    "dmc_vision": {
        "dreamerv2": _VISION,
        "dreamerv3-2023": _VISION,
        "dreamerv3-2024": replace(_VISION, action_repeat=1),
    },
    "dmc_proprio": {
        "dreamerv2": _DMC,
        "dreamerv3-2023": _DMC,
        "dreamerv3-2024": replace(_DMC, action_repeat=1),
    },
    "planet": {"planet": _VISION},  # action repeat per task: tasks.PLANET_REPEATS
    "crafter": {"dreamerv2": _CRAFTER, "dreamerv3-2023": _CRAFTER, "dreamerv3-2024": _CRAFTER},
    "bsuite": {"dreamerv3-2023": Settings(), "dreamerv3-2024": Settings()},
    "dmlab": {"dreamerv3-2023": _DMLAB, "dreamerv3-2024": replace(_DMLAB, action_set="popart")},
    "minecraft": {"dreamerv3-2023": _MINECRAFT, "dreamerv3-2024": _MINECRAFT},
}


def find_preset(suite: str, preset: str | None) -> tuple[str, Settings]:
    """Return the preset's full name and settings.

    :param suite: suite name
    :param preset: preset name or alias; None takes ``"dreamerv3-2023"``, or the suite's only preset
    :raises ValueError: if the suite has no such preset
    """
    known = PRESETS[suite]
    if preset is None:
        preset = DEFAULT_PRESET if DEFAULT_PRESET in known else next(iter(known))
    preset = ALIASES.get(preset, preset)
    if preset not in known:
        raise ValueError(f"suite {suite!r} has no preset {preset!r}; write one of {', '.join(known)}.")
    return preset, known[preset]
