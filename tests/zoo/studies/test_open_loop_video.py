"""Videos of what a model expects: written for images, refused before training elsewhere."""

import json
from pathlib import Path

import pytest

from sb3_dreamer.zoo.studies.open_loop_video import main

TINY = ["--size", "debug", "--frames-per-step", "1", "--params", "learning_starts:20", "batch_size:2", "batch_length:8"]


@pytest.mark.slow
def test_video_and_numbers_are_written(tmp_path: Path) -> None:
    env = "sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0"
    video = tmp_path / "video.gif"
    assert main(["--env", env, "--frames", "60", "--gif", str(video), *TINY]) == 0
    found = json.loads(video.with_suffix(".json").read_text())
    assert found["updates"] > 0 and len(found["errors"]["image_error"]) == len(found["errors"]["image_error_copy"])
    assert video.read_bytes().startswith(b"GIF8")


def test_an_environment_without_images_is_refused_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sb3_dreamer.DreamerV3.learn", lambda *_, **__: pytest.fail("trains"))
    with pytest.raises(ValueError, match="CartPole-v1 has no image to show"):
        main(["--env", "CartPole-v1", "--frames", "60", "--gif", str(tmp_path / "video.gif"), *TINY])
