"""rl_zoo3's own programs with our class, registered as docs/zoo.md says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs/zoo.md").read_text(encoding="utf-8").partition("## rl-zoo3 itself")[2]
SCRIPT, CONFIG = (DOCS.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("python", "yaml"))


def run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = folder / f"rl_{program}.py"
    path.write_text(SCRIPT.replace("train", program))
    (folder / "own.yml").write_text(CONFIG)
    command = [sys.executable, path.name, "--algo", "dreamerv3", "--env", "CartPole-v1", *words]
    environ = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_train_and_enjoy(tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    words = ["model_size:'debug'", "batch_size:2", "batch_length:8", "train_ratio:1", "learning_starts:40"]
    flags = ["-f", "logs", "--device", "cpu", "--eval-freq", "60", "--eval-episodes", "1"]
    trained = run(tmp_path, "train", "--conf-file", "own.yml", "-n", "120", *flags, "--hyperparams", *words)
    assert trained.returncode == 0, trained.stderr
    folder = tmp_path / "logs/dreamerv3/CartPole-v1_1"
    assert (folder / "CartPole-v1.zip").exists() and (folder / "best_model.zip").exists()
    played = run(tmp_path, "enjoy", "-f", "logs", "-n", "510", "--no-render", "--device", "cpu")
    assert played.returncode == 0, played.stderr
    assert "Episode Reward" in played.stdout
