"""DeepMind Control Suite through shimmy: states, pixels or both."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.action_repeat import ActionRepeat
from sb3_dreamer.wrappers.benchmarks.errors import require
from sb3_dreamer.wrappers.benchmarks.presets import Settings
from sb3_dreamer.wrappers.benchmarks.rendering import check_renderer, choose_backend
from sb3_dreamer.wrappers.frame_limit import FrameLimit
from sb3_dreamer.wrappers.tidy_observation import TidyObservation

INSTALL = 'pip install "sb3-dreamer[dmc]"'
CAMERAS = {"quadruped": 2}  # camera 0 of the quadruped stands still (danijar/dreamerv3, embodied/envs/dmc.py)
RENDER_SIZE = 256


class CameraObservation(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Draw dm_control's physics directly at the observation's size.

    ``PixelObservation`` draws with ``env.render()`` and shrinks the frame; the papers draw at 64 × 64, which is not the
    same image. ``env.render()`` stays free for a larger view.

    :param env: shimmy's dm_control environment
    :param size: (height, width) in pixels
    :param camera: camera number
    :param keep_state: return a ``Dict`` of the state entries and ``image`` instead of the image alone
    """

    def __init__(self, env: gym.Env, size: tuple[int, int] = (64, 64), camera: int = 0, keep_state: bool = False):
        gym.utils.RecordConstructorArgs.__init__(self, size=size, camera=camera, keep_state=keep_state)
        gym.ObservationWrapper.__init__(self, env)
        self.size, self.camera, self.keep_state = size, camera, keep_state
        image = spaces.Box(0, 255, (*size, 3), np.uint8)
        if keep_state:
            assert isinstance(env.observation_space, spaces.Dict)
            self.observation_space: spaces.Space[Any] = spaces.Dict({**env.observation_space.spaces, "image": image})
        else:
            self.observation_space = image

    def observation(self, observation: Any) -> Any:
        """Return the image, or the state with the image."""
        physics = self.env.unwrapped.physics  # type: ignore[attr-defined]
        image = np.ascontiguousarray(physics.render(*self.size, camera_id=self.camera))
        return {**observation, "image": image} if self.keep_state else image


def split_task(task: str) -> tuple[str, str]:
    """Return dm_control's domain and task name.

    :param task: ``"walker_walk"``; ``"cup_catch"`` is ``"ball_in_cup_catch"``, as in the papers
    :raises ValueError: if there is no such task
    """
    choose_backend()  # even for states: dm_control binds its renderer when it is first imported
    suite = require("dm_control.suite", "dmc", INSTALL)
    known = {f"{domain}_{name}": (domain, name) for domain, name in suite.ALL_TASKS}
    name = task.replace("-", "_")
    name = f"ball_in_{name}" if name.startswith("cup_") else name
    if name not in known:
        raise ValueError(f"dm_control has no task {task!r}{near(name, known)}")
    return known[name]


def is_control_task(env_id: str) -> bool:
    """Return whether a gymnasium id is a task of the Control Suite, which takes ``task_kwargs``.

    :param env_id: ``"dm_control/walker-walk-v0"``; the ids of locomotion and manipulation have no second dash
    """
    return env_id.startswith("dm_control/") and env_id.count("-") == 2


def set_frame_rate(env: gym.Env) -> None:
    """Write the speed of the simulation into ``env.metadata``: shimmy has milliseconds per step in its place.

    :param env: a task made by ``gymnasium.make`` through shimmy
    """
    seconds = env.unwrapped._env.control_timestep()  # type: ignore[attr-defined]
    env.metadata = {**env.metadata, "render_fps": 1 / seconds}


def make_dmc(task: str, settings: Settings, render_mode: str | None = None) -> gym.Env:
    """Make one task: shimmy → tidy entries → time limit → repeat → image.

    :param task: ``"<domain>_<task>"``
    :param settings: the preset's settings
    :param render_mode: ``"rgb_array"`` for ``render()`` at 256 × 256 from the same camera
    """
    draws = settings.pixels is not None or render_mode is not None
    if settings.camera is not None and not draws:
        raise ValueError(f"camera={settings.camera!r} needs images: write pixels=True or render_mode='rgb_array', too.")
    domain, name = split_task(task)
    gym.register_envs(require("shimmy", "dmc", INSTALL))
    if draws:
        check_renderer()
    camera = CAMERAS.get(domain, 0) if settings.camera is None else settings.camera
    kwargs: dict[str, Any] = {}
    if settings.time_limit is not None:  # instead of dm_control's own
        kwargs["task_kwargs"] = {"time_limit": float("inf")}
    if render_mode == "rgb_array":
        kwargs["render_kwargs"] = {"height": RENDER_SIZE, "width": RENDER_SIZE, "camera_id": camera}
    env: gym.Env = gym.make(
        f"dm_control/{domain}-{name}-v0", render_mode=render_mode, disable_env_checker=True, **kwargs
    )
    set_frame_rate(env)
    env = TidyObservation(env)
    if settings.time_limit is not None:
        env = FrameLimit(env, settings.time_limit)
    env = ActionRepeat(env, settings.action_repeat)
    if settings.pixels is not None:
        env = CameraObservation(env, settings.size or (64, 64), camera, keep_state=settings.pixels == "both")
    return env
