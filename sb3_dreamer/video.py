"""Write video files frame by frame: MP4 through moviepy's ffmpeg writer, GIF through Pillow. Needs no torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GIF_LIMIT = 2000  # frames kept in memory for a GIF; later ones are dropped with a warning


class VideoWriter:
    """Append frames to a video file.

    MP4 frames are streamed with constant memory to ``<name>.part.mp4``, which gets its name when it is closed; GIF
    frames are kept until then.

    :param path: file name ending in ``.mp4`` or ``.gif``; where moviepy or ffmpeg is missing an MP4 becomes a GIF, with
        a warning; missing folders are made
    :param fps: frames per second, positive
    :param scale: whole-number enlargement of every frame (small observations are hard to see)
    :raises ValueError: for another suffix
    :raises ImportError: if neither moviepy nor Pillow is installed
    """

    def __init__(self, path: str | Path, fps: float = 30.0, scale: int = 1):
        self.path, self.fps, self.scale = Path(path), fps, scale
        if self.path.suffix not in (".mp4", ".gif"):
            raise ValueError(f"{self.path.name!r}: the name of a video must end in .mp4 or .gif.")
        if self.path.suffix == ".mp4":
            suffix, reason = find_writer()
            if suffix != ".mp4":
                if not suffix:
                    raise ImportError(f"no video can be written ({reason}): pip install moviepy")
                text = f"writing {self.path.stem}.gif instead of an MP4 ({reason}): pip install moviepy"
                warnings.warn(text, stacklevel=2)
                self.path = self.path.with_suffix(".gif")
        if self.path.suffix == ".gif":
            import PIL.Image  # noqa: F401  (fail before the first frame, not after the last)

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self.path.with_suffix(".part.mp4")
        self._ffmpeg: Any = None
        self._frames: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        """Append a frame; the first one sets the size.

        :param frame: (H, W), (H, W, 1) or (H, W, 3) uint8
        """
        image = prepare_frame(frame, self.scale)
        if self.path.suffix == ".mp4":
            if self._ffmpeg is None:
                self._ffmpeg = self._open(image.shape[1], image.shape[0])
            self._ffmpeg.write_frame(image)
        elif len(self._frames) < GIF_LIMIT:
            self._frames.append(image)
        else:
            warnings.warn(f"{self.path.name}: only the first {GIF_LIMIT} frames are kept.", stacklevel=2)

    def _open(self, width: int, height: int) -> Any:
        """Start ffmpeg."""
        from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

        return FFMPEG_VideoWriter(
            str(self._part), (width, height), self.fps, codec="libx264", preset="veryfast", threads=1,
            ffmpeg_params=["-crf", "23", "-movflags", "+faststart"], pixel_format="yuv420p",
        )  # fmt: skip

    def close(self) -> Path | None:
        """Finish the file; return its path, None if there was no frame."""
        ffmpeg, frames = self._ffmpeg, self._frames
        self._ffmpeg, self._frames = None, []
        if ffmpeg is not None:
            ffmpeg.close()
            self._part.replace(self.path)
        elif frames:
            self.path.write_bytes(encode_gif(frames, self.fps))
        else:
            return None
        return self.path


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float = 30.0, scale: int = 1) -> Path | None:
    """Write a whole video.

    :param path: see ``VideoWriter``
    :param frames: (H, W), (H, W, 1) or (H, W, 3) uint8 each
    :param fps: frames per second, positive
    :param scale: whole-number enlargement of every frame
    :return: path of the file (the suffix may have become ``.gif``), None without frames
    """
    writer = VideoWriter(path, fps, scale)
    try:
        for frame in frames:
            writer.add(frame)
    finally:
        done = writer.close()
    return done


def encode_gif(frames: Iterable[np.ndarray], fps: float) -> bytes:
    """Encode frames as an endless GIF with a palette per frame.

    :param frames: at least one (H, W, 3) uint8
    :param fps: frames per second; above 50 viewers slow down, so that is the most
    """
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=max(20, round(1000 / fps)), loop=0)
    return stream.getvalue()


def prepare_frame(frame: np.ndarray, scale: int = 1) -> np.ndarray:
    """Return a frame as H.264 takes it: three channels, enlarged by whole factors, sides padded to even lengths.

    :param frame: (H, W), (H, W, 1) or (H, W, 3) uint8
    :param scale: each pixel becomes ``scale`` × ``scale`` pixels
    :raises ValueError: for another shape
    """
    image = np.asarray(frame, np.uint8)
    image = image[:, :, None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"a frame of shape {np.shape(frame)} is no image: need (H, W), (H, W, 1) or (H, W, 3).")
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def whole_scale(sides: Sequence[int], least: int) -> int:
    """Return the smallest whole factor by which a frame of these sides becomes at least ``least`` pixels on each."""
    return max(1, -(-least // min(sides)))


def label_columns(frames: np.ndarray, labels: Sequence[str], height: int = 24) -> np.ndarray:
    """Write a name above each column of every frame.

    :param frames: ``(T, rows, columns, 3)`` uint8, columns of equal width side by side
    :param labels: one for each column
    :param height: of the strip of names, in pixels
    :return: ``(T, height + rows, columns, 3)``
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = frames.shape[2]
    strip = Image.new("RGB", (columns, height), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(0.7 * height)
    for i, label in enumerate(labels):
        draw.text(((i + 0.5) * columns / len(labels), height / 2), label, fill="black", font=font, anchor="mm")
    header = np.asarray(strip)[None].repeat(len(frames), axis=0)
    return np.concatenate([header, frames], axis=1)


def find_writer() -> tuple[str, str | None]:
    """Return the best suffix that can be written here and, if it is not MP4, why.

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
