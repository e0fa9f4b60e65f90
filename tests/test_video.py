"""The one video writer: suffixes, sizes, limits, fallbacks."""

import sys

import numpy as np
import pytest

from sb3_dreamer import video
from sb3_dreamer.video import VideoWriter, encode_gif, label_columns, prepare_frame, whole_scale, write_video

FRAMES = [np.full((5, 7, 3), 40 * i, np.uint8) for i in range(4)]


def read_video(path):
    imageio = pytest.importorskip("imageio.v3")
    return np.stack(list(imageio.imiter(path)))


def test_frames_are_prepared_for_h264():
    assert prepare_frame(np.zeros((5, 7), np.uint8)).shape == (6, 8, 3)
    assert prepare_frame(np.zeros((5, 7, 1), np.uint8), scale=2).shape == (10, 14, 3)
    with pytest.raises(ValueError, match="shape"):
        prepare_frame(np.zeros((5, 7, 4), np.uint8))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_file_has_the_frames(tmp_path, suffix):
    pytest.importorskip("moviepy")
    path = write_video(tmp_path / "deep" / f"a{suffix}", FRAMES, fps=10, scale=2)
    assert path == tmp_path / "deep" / f"a{suffix}" and list(path.parent.iterdir()) == [path]
    read = read_video(path)
    assert read.shape == (4, 10, 14, 3) and np.abs(read.mean((1, 2, 3)) - 40 * np.arange(4)).max() < 3


def test_small_frames_are_enlarged_by_whole_factors():
    assert [whole_scale(sides, 192) for sides in ((64, 64), (68, 100), (192, 400), (300, 200))] == [3, 3, 1, 1]


def test_every_column_has_its_label():
    frames = np.full((4, 60, 3 * 50, 3), 7, np.uint8)
    labeled = label_columns(frames, ("real", "model", "error"), height=20)
    assert labeled.shape == (4, 80, 150, 3) and labeled.dtype == np.uint8
    assert (labeled[:, 20:] == 7).all() and (labeled[:, :20] == labeled[0, :20]).all()
    dark = (labeled[0, :20] < 100).all(-1)
    columns = [dark[:, 50 * i : 50 * i + 50] for i in range(3)]
    assert all(column.sum() > 20 and not column[:, :3].any() and not column[:, -3:].any() for column in columns)


def test_no_frame_no_file(tmp_path):
    assert write_video(tmp_path / "deep" / "a.gif", []) is None and not list((tmp_path / "deep").iterdir())


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        VideoWriter(tmp_path / "a.avi")


def test_a_long_gif_is_cut_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "GIF_LIMIT", 3)
    with pytest.warns(UserWarning, match="only the first 3"):
        path = write_video(tmp_path / "b.gif", FRAMES)
    assert len(read_video(path)) == 3


def test_gif_where_moviepy_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ffmpeg_writer", None)
    with pytest.warns(UserWarning, match="pip install moviepy"):
        path = write_video(tmp_path / "a.mp4", FRAMES)
    assert path == tmp_path / "a.gif" and path.read_bytes()[:3] == b"GIF"


def test_nothing_can_be_written(tmp_path, monkeypatch):
    for module in ("moviepy.video.io.ffmpeg_writer", "PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("a.mp4", "a.gif"):
        with pytest.raises(ImportError):
            VideoWriter(tmp_path / name)


def test_gif_speed():
    from PIL import Image

    pytest.importorskip("PIL")
    import io

    assert Image.open(io.BytesIO(encode_gif(FRAMES, 10))).info["duration"] == 100
