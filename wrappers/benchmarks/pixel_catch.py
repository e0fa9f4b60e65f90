"""Catch a falling ball: the smallest pixel task on which a world model can be seen to learn.

Importing this module registers ``PixelCatch-v0``, so that
``make_env("sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0")`` makes it.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))  #: in which a background moves, rows and columns of a step


class PixelCatch(gym.Env[np.ndarray, np.int64]):
    """Move a paddle in the last row under a ball that falls from a random column, one row a step.

    Actions: 0 moves left, 1 stays, 2 moves right. The reward comes at the end of the episode: 1 if the paddle is under
    the ball, else -1. A random policy gets about -0.75, a perfect one 1.

    :param cells: rows and columns of the board (default 8), at least 3; an episode has ``cells - 1`` steps
    :param scale: pixels per cell (default 2): the image has ``cells * scale`` pixels a side, one gray channel
    :param noise: brightest gray of a random pattern behind ball and paddle (default 0: black, at most 255). It is drawn
        anew for every episode and moves by a pixel every step, in one of four directions
    :param render_mode: ``"rgb_array"`` or None
    :raises ValueError: if a number is too small or the render mode is another one
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012  (gymnasium declares it as a plain dict)

    def __init__(self, cells: int = 8, scale: int = 2, noise: int = 0, render_mode: str | None = None):
        if cells < 3 or scale < 1:
            raise ValueError(f"cells={cells}, scale={scale}: must be at least 3 cells and 1 pixel.")
        if not 0 <= noise <= 255:
            raise ValueError(f"noise={noise}: must be from 0 (a black background) to 255.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: must be 'rgb_array' or None.")
        self.cells, self.scale, self.noise, self.render_mode = cells, scale, noise, render_mode
        side = cells * scale
        self.observation_space = spaces.Box(0, 255, (side, side, 1), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.row = self.column = self.paddle = 0
        self.pattern = np.zeros((side, side), np.uint8)
        self.direction = (0, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start with the ball in the first row and the paddle in the middle."""
        super().reset(seed=seed)
        self.row, self.paddle = 0, self.cells // 2
        self.column = int(self.np_random.integers(self.cells))
        if self.noise:
            self.pattern = self.np_random.integers(self.noise + 1, size=self.pattern.shape, dtype=np.uint8)
            self.direction = DIRECTIONS[self.np_random.integers(len(DIRECTIONS))]
        return self._image(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move the paddle, let the ball fall one row."""
        self.paddle = min(max(self.paddle + int(action) - 1, 0), self.cells - 1)
        self.row += 1
        if self.noise:
            self.pattern = np.roll(self.pattern, self.direction, (0, 1))
        landed = self.row == self.cells - 1
        reward = (1.0 if self.paddle == self.column else -1.0) if landed else 0.0
        return self._image(), reward, landed, False, {}

    def render(self) -> np.ndarray | None:
        """Return the observation in three channels with ``render_mode="rgb_array"``, else None."""
        return self._image().repeat(3, -1) if self.render_mode == "rgb_array" else None

    def _image(self) -> np.ndarray:
        board = np.zeros((self.cells, self.cells), np.uint8)
        board[-1, self.paddle] = 128
        board[self.row, self.column] = 255
        drawn = board.repeat(self.scale, 0).repeat(self.scale, 1)
        return np.where(drawn > 0, drawn, self.pattern)[..., None]


gym.register("PixelCatch-v0", entry_point="sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch")
