"""Video files written frame by frame: MP4 through moviepy's ffmpeg writer, GIF through Pillow where that is missing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

GIF_LIMIT = 2000  # frames kept in memory for a GIF; later ones are dropped with a warning


class VideoWriter(Protocol):
    """What both writers offer."""

    path: Path

    def add(self, frame: np.ndarray) -> None:
        """Append a (H, W, 3) uint8 frame."""

    def close(self) -> Path | None:
        """Finish the file; return its path, None if there was no frame."""


def prepare_frame(frame: np.ndarray, scale: int = 1) -> np.ndarray:
    """Return a frame as H.264 takes it: three channels, enlarged by whole factors, sides padded to even lengths.

    :param frame: (H, W), (H, W, 1) or (H, W, 3) uint8
    :param scale: each pixel becomes ``scale`` × ``scale`` pixels
    """
    image = np.asarray(frame, np.uint8)
    image = image[:, :, None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"a frame of shape {np.shape(frame)} is no picture; need (H, W), (H, W, 1) or (H, W, 3).")
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


class Mp4Writer:
    """Stream frames to an H.264 file with constant memory.

    :param path: file to write; written under ``<name>.part.mp4`` until it is closed
    :param fps: frames per second
    :param scale: whole-number enlargement
    """

    def __init__(self, path: Path, fps: float, scale: int = 1):
        from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

        self.path, self.fps, self.scale = path, fps, scale
        self._part = path.with_suffix(".part.mp4")
        self._make: Any = FFMPEG_VideoWriter
        self._writer: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame; the first one sets the size."""
        image = prepare_frame(frame, self.scale)
        if self._writer is None:
            size = (image.shape[1], image.shape[0])
            params = ["-crf", "23", "-movflags", "+faststart"]
            self._writer = self._make(
                str(self._part), size, self.fps, codec="libx264", preset="veryfast", threads=1,
                ffmpeg_params=params, pixel_format="yuv420p",
            )  # fmt: skip
        self._writer.write_frame(image)

    def close(self) -> Path | None:
        """Finish the file."""
        if self._writer is None:
            return None
        self._writer.close()
        self._writer = None
        self._part.replace(self.path)
        return self.path


class GifWriter:
    """Keep up to ``GIF_LIMIT`` frames and write them as a GIF with a palette per frame.

    :param path: file to write
    :param fps: frames per second (GIF counts in hundredths of a second)
    :param scale: whole-number enlargement
    """

    def __init__(self, path: Path, fps: float, scale: int = 1):
        import PIL.Image

        self.path, self.fps, self.scale = path, fps, scale
        self._image: Any = PIL.Image
        self._frames: list[Any] = []

    def add(self, frame: np.ndarray) -> None:
        """Append a frame."""
        if len(self._frames) == GIF_LIMIT:
            warnings.warn(f"{self.path.name}: only the first {GIF_LIMIT} frames are kept.", stacklevel=2)
        if len(self._frames) <= GIF_LIMIT:
            self._frames.append(self._image.fromarray(prepare_frame(frame, self.scale)))

    def close(self) -> Path | None:
        """Write the file."""
        frames, self._frames = self._frames[:GIF_LIMIT], []
        if not frames:
            return None
        duration = max(20, round(1000 / self.fps))  # viewers slow down anything faster than 50 frames per second
        frames[0].save(self.path, save_all=True, append_images=frames[1:], duration=duration, loop=0)
        return self.path


def find_writer() -> tuple[str, str | None]:
    """Return the file suffix that can be written here and, if it is not MP4, why.

    :return: ``(".mp4", None)``, ``(".gif", reason)`` or ``("", reason)`` if nothing can be written
    """
    try:
        import imageio_ffmpeg
        import moviepy.video.io.ffmpeg_writer  # noqa: F401

        imageio_ffmpeg.get_ffmpeg_exe()
        return ".mp4", None
    except (ImportError, RuntimeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return "", f"{reason}; and no Pillow for a GIF"
    return ".gif", reason


def open_video(path: str | Path, fps: float = 30.0, scale: int = 1) -> VideoWriter:
    """Open a video for frames to be added one by one.

    :param path: file name; its suffix decides (``.mp4`` or ``.gif``); an MP4 becomes a GIF, with a warning, where
        moviepy or ffmpeg is missing; folders are made
    :param fps: frames per second, positive
    :param scale: whole-number enlargement of every frame (small observations are hard to see)
    :raises ValueError: for another suffix
    :raises ImportError: if neither moviepy nor Pillow is installed
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"{path.name!r}: give the file the suffix .mp4 or .gif.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        suffix, reason = find_writer()
        if suffix == ".mp4":
            return Mp4Writer(path, fps, scale)
        if suffix == "":
            raise ImportError(f"no video can be written ({reason}): pip install moviepy")
        warnings.warn(f"writing {path.stem}.gif instead of an MP4 ({reason}): pip install moviepy", stacklevel=2)
    return GifWriter(path.with_suffix(".gif"), fps, scale)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float = 30.0, scale: int = 1) -> Path | None:
    """Write a whole video.

    :param path: see ``open_video``
    :param frames: (H, W), (H, W, 1) or (H, W, 3) uint8 each
    :return: path of the file (the suffix may have become ``.gif``), None without frames
    """
    writer = open_video(path, fps, scale)
    try:
        for frame in frames:
            writer.add(frame)
    finally:
        done = writer.close()
    return done
