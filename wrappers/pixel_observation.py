"""Observe the rendered image of any environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.resize_frame import check_method, check_size, resize_image


class PixelObservation(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Observe what ``render()`` shows, resized, alone or beside the state.

    Gymnasium's ``AddRenderObservation`` returns the frame at window size and resets the environment while it is being
    built (to learn that size), which disturbs seeding; here the size is asked for, so the space is known beforehand.
    Put it outside ``ActionRepeat`` so that one frame is drawn per agent step.

    :param env: environment made with ``render_mode="rgb_array"``
    :param size: (height, width) in pixels or one number; default 64, the papers' size
    :param method: resize filter, ``"area"`` or ``"antialias"`` (see ``resize_image``)
    :param grayscale: one channel instead of three
    :param keep_state: False (default): the frame is the observation; True: a ``Dict`` with the frame under ``key``
        and the former observation beside it (its own entries if it was a ``Dict``, else under ``"state"``)
    :param key: name of the frame in that ``Dict``
    :raises ValueError: if the render mode is another one, or ``key`` is taken
    """

    def __init__(
        self,
        env: gym.Env,
        size: int | Sequence[int] = (64, 64),
        method: str = "area",
        grayscale: bool = False,
        keep_state: bool = False,
        key: str = "image",
    ):
        if env.render_mode != "rgb_array":
            raise ValueError(f"render_mode={env.render_mode!r}: make the environment with render_mode='rgb_array'.")
        gym.utils.RecordConstructorArgs.__init__(
            self, size=size, method=method, grayscale=grayscale, keep_state=keep_state, key=key
        )
        gym.ObservationWrapper.__init__(self, env)
        self.size = check_size(size)
        self.method = check_method(method)
        self.grayscale, self.keep_state, self.key = grayscale, keep_state, key
        image = spaces.Box(0, 255, (*self.size, 1 if grayscale else 3), np.uint8)
        space = env.observation_space
        state = dict(space.spaces) if isinstance(space, spaces.Dict) else {"state": space}
        if keep_state and key in state:
            raise ValueError(f"key={key!r} is already an observation of this environment; name another one.")
        self.observation_space = spaces.Dict({**state, key: image}) if keep_state else image

    def observation(self, observation: Any) -> Any:
        """Return the frame, or the dict of state and frame."""
        frame = np.asarray(self.env.render(), dtype=np.uint8)
        image = resize_image(frame, self.size, self.method, self.grayscale)
        if not self.keep_state:
            return image
        state = observation if isinstance(observation, dict) else {"state": observation}
        return {**state, self.key: image}
