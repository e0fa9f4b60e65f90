"""Resize image observations by area or with an antialiasing filter, in color or gray."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

METHODS = ("area", "antialias")
GRAY_WEIGHTS = np.array([0.299, 0.587, 1 - (0.299 + 0.587)])  # ITU-R BT.601 luma


@functools.lru_cache(maxsize=64)
def _area_weights(source: int, target: int) -> np.ndarray:
    """Return the (target, source) matrix whose row i averages the source pixels that target pixel i covers."""
    edges = np.arange(target + 1, dtype=np.float64) * source / target
    pixels = np.arange(source, dtype=np.float64)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0.0, None)
    return weights / weights.sum(1, keepdims=True)


def _resize_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink by averaging the covered area; OpenCV's implementation where it is installed, else numpy (within ±1)."""
    try:
        import cv2
    except ImportError:
        rows, cols = _area_weights(image.shape[0], size[0]), _area_weights(image.shape[1], size[1])
        mean = np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float64), cols, optimize=True)
        return np.rint(mean).astype(np.uint8)
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return resized if resized.ndim == 3 else resized[:, :, None]  # OpenCV drops a single channel


def _resize_antialias(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize with Pillow's bilinear filter, whose support grows with the scale (so nothing aliases)."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("resize='antialias' needs Pillow: pip install pillow (or use resize='area').") from None
    source = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    resized = np.asarray(source.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized if resized.ndim == 3 else resized[:, :, None]


def to_gray(image: np.ndarray) -> np.ndarray:
    """Return the luma of an RGB image, truncated to whole levels as the released Dreamer code does.

    :param image: (H, W, 3) uint8
    :return: (H, W, 1) uint8
    """
    if image.shape[-1] == 1:
        return image
    return (image * GRAY_WEIGHTS).sum(-1).astype(image.dtype)[..., None]


def resize_image(
    image: np.ndarray, size: tuple[int, int] | None, method: str = "area", grayscale: bool = False
) -> np.ndarray:
    """Resize one frame, then turn it gray (in this order, as the released code does).

    :param image: (H, W, C) uint8, C = 1 or 3
    :param size: (height, width) in pixels, or None to keep the size
    :param method: ``"area"`` (OpenCV's ``INTER_AREA``: DreamerV2, DreamerV3 of 2023) or ``"antialias"`` (Pillow's
        bilinear: DreamerV3 of 2024)
    :param grayscale: return one channel
    :return: (height, width, 1 or C) uint8, C-contiguous
    """
    if size is not None and image.shape[:2] != tuple(size):
        image = _resize_area(image, size) if method == "area" else _resize_antialias(image, size)
    if grayscale:
        image = to_gray(image)
    return np.ascontiguousarray(image)


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Return ``size`` as (height, width).

    :param size: pixels, one number for a square or (height, width)
    :raises ValueError: if it is neither
    """
    pair: Any = tuple(size) if isinstance(size, (list, tuple, np.ndarray)) else (size, size)
    if len(pair) != 2 or not all(_is_side(side) for side in pair):
        raise ValueError(f"size={size!r}: write a whole number of pixels or (height, width).")
    return int(pair[0]), int(pair[1])


def _is_side(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value > 0)


def check_method(method: str) -> str:
    """Return ``method`` if it is a known resize filter, else raise ``ValueError``."""
    if method not in METHODS:
        raise ValueError(f"resize method {method!r} is unknown; write one of {', '.join(map(repr, METHODS))}.")
    return method


class ResizeFrame(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Resize image observations, alone or inside a ``Dict``, with the filter a paper's code used.

    Gymnasium's ``ResizeObservation`` always uses OpenCV's area filter, handles no ``Dict`` and needs a second wrapper
    for gray, which it computes with other weights and drops the channel axis; the papers differ in filter and order.

    :param env: environment whose observation is an image (H, W), (H, W, 1) or (H, W, 3) of uint8, or a ``Dict`` with
        some of those
    :param size: height and width in pixels, one number for a square; None keeps the size
    :param method: ``"area"`` or ``"antialias"`` (see ``resize_image``)
    :param grayscale: one channel instead of three
    :param keys: names of the ``Dict`` entries to change; None (default) takes every image among them
    :raises ValueError: if there is no image, a named key is none, or an argument is malformed
    """

    def __init__(
        self,
        env: gym.Env,
        size: int | Sequence[int] | None = (64, 64),
        method: str = "area",
        grayscale: bool = False,
        keys: Sequence[str] | None = None,
    ):
        gym.utils.RecordConstructorArgs.__init__(self, size=size, method=method, grayscale=grayscale, keys=keys)
        gym.ObservationWrapper.__init__(self, env)
        self.size = None if size is None else check_size(size)
        self.method = check_method(method)
        self.grayscale = grayscale
        if isinstance(keys, str):
            raise ValueError(f"keys={keys!r} is one name: write a list, keys=[{keys!r}].")
        space = env.observation_space
        if isinstance(space, spaces.Dict):
            chosen = [key for key, sub in space.items() if _is_frame(sub)] if keys is None else list(keys)
            wrong = [key for key in chosen if key not in space.spaces or not _is_frame(space[key])]
            if wrong or not chosen:
                raise ValueError(f"no uint8 image under {wrong or 'any key'} of {space}.")
            self._keys: list[str] | None = chosen
            changed = {key: self._space(sub) if key in chosen else sub for key, sub in space.items()}
            self.observation_space: spaces.Space[Any] = spaces.Dict(changed)
        else:
            if not _is_frame(space) or keys is not None:
                raise ValueError(f"ResizeFrame needs a uint8 image (H, W, 1 or 3) observation, got {space}.")
            self._keys = None
            self.observation_space = self._space(space)

    def _space(self, space: spaces.Space[Any]) -> spaces.Box:
        assert space.shape is not None
        height, width = self.size or space.shape[:2]
        channels = 1 if self.grayscale or len(space.shape) == 2 else space.shape[2]
        return spaces.Box(0, 255, (height, width, channels), np.uint8)

    def _frame(self, image: np.ndarray) -> np.ndarray:
        image = image[:, :, None] if image.ndim == 2 else image
        return resize_image(image, self.size, self.method, self.grayscale)

    def observation(self, observation: Any) -> Any:
        """Return the observation with its frames resized."""
        if self._keys is None:
            return self._frame(observation)
        return {key: self._frame(value) if key in self._keys else value for key, value in observation.items()}


def _is_frame(space: spaces.Space[Any]) -> bool:
    """Return whether the space is a uint8 (H, W), (H, W, 1) or (H, W, 3) box."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    return len(space.shape) == 2 or space.shape[2] in (1, 3)
