"""A run trained once for all tests of the programs."""

import shutil
from pathlib import Path

import pytest

SMALL = ("model_size:debug", "batch_size:2", "batch_length:8", "train_ratio:1", "learning_starts:40")


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Flags for the smallest training: an update every 16 steps."""
    return ["--hyperparams", *SMALL, "--device", "cpu", "--final-eval-episodes", "2"]


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    from sb3_dreamer.zoo.programs.cli import main

    logs = tmp_path_factory.mktemp("zoo") / "logs"
    words = ["train", "-n", "200", "-f", str(logs), "--seed", "3", "--save-freq", "100", "--save-replay-buffer", *small]
    assert main([*words, "--eval-freq", "100", "--eval-episodes", "2"]) == 0
    return logs


@pytest.fixture
def logs(trained_once: Path, tmp_path: Path) -> Path:
    """A log folder with one run of CartPole-v1, 200 steps, for this test alone."""
    return Path(shutil.copytree(trained_once, tmp_path / "logs"))
