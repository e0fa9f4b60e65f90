"""The smallest pixel task on which a world model can be seen to learn: catch a falling ball.

Importing this module registers ``PixelCatch-v0``, so that
``make_env("sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0")`` makes it.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class PixelCatch(gym.Env[np.ndarray, np.int64]):
    """A ball falls from a random column, one row a step; the paddle in the last row moves left, stays or moves right.

    The reward comes at the end of the episode: 1 if the paddle is under the ball, else -1. A random policy gets about
    -0.75, a perfect one 1.

    :param cells: rows and columns of the board (8); an episode has one step less
    :param scale: pixels of a cell (2): the image has ``cells * scale`` pixels a side, one grey channel
    :param render_mode: ``"rgb_array"`` or None
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - gymnasium declares it without ClassVar

    def __init__(self, cells: int = 8, scale: int = 2, render_mode: str | None = None):
        if cells < 3 or scale < 1:
            raise ValueError(f"cells={cells}, scale={scale}: need at least 3 cells and 1 pixel")
        self.cells, self.scale, self.render_mode = cells, scale, render_mode
        side = cells * scale
        self.observation_space = spaces.Box(0, 255, (side, side, 1), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.row = self.column = self.paddle = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start with the ball in the first row and the paddle in the middle."""
        super().reset(seed=seed)
        self.row, self.paddle = 0, self.cells // 2
        self.column = int(self.np_random.integers(self.cells))
        return self._image(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move the paddle, let the ball fall one row."""
        self.paddle = min(max(self.paddle + int(action) - 1, 0), self.cells - 1)
        self.row += 1
        landed = self.row == self.cells - 1
        reward = (1.0 if self.paddle == self.column else -1.0) if landed else 0.0
        return self._image(), reward, landed, False, {}

    def render(self) -> np.ndarray | None:
        """The observation in three channels, if asked for."""
        return self._image().repeat(3, -1) if self.render_mode == "rgb_array" else None

    def _image(self) -> np.ndarray:
        board = np.zeros((self.cells, self.cells), np.uint8)
        board[-1, self.paddle] = 128
        board[self.row, self.column] = 255
        return board.repeat(self.scale, 0).repeat(self.scale, 1)[..., None]


gym.register("PixelCatch-v0", entry_point="sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch")
