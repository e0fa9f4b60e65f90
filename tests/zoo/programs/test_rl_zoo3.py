"""rl_zoo3's own programs with our class, registered as docs/zoo.md says."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs/zoo.md").read_text(encoding="utf-8").partition("## rl-zoo3 itself")[2]
SCRIPT, CONFIG = (DOCS.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("python", "yaml"))
#: runs the scripts one after the other; the imports of rl_zoo3 take longer than both
BOTH = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
"""


def words(program: str, *flags: str) -> list[str]:
    return [f"rl_{program}.py", "--algo", "dreamerv3", "--env", "CartPole-v1", "-f", "logs", "--device", "cpu", *flags]


@pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="rl_zoo3 is not installed")
def test_train_and_enjoy(tmp_path: Path) -> None:
    for program in ("train", "enjoy"):
        (tmp_path / f"rl_{program}.py").write_text(SCRIPT.replace("train", program))
    (tmp_path / "own.yml").write_text(CONFIG)
    tiny = ["model_size:'debug'", "batch_size:2", "batch_length:8", "train_ratio:1", "learning_starts:40"]
    flags = ["--conf-file", "own.yml", "-n", "120", "--eval-freq", "60", "--eval-episodes", "1"]
    both = [words("train", *flags, "--hyperparams", *tiny), words("enjoy", "-n", "510", "--no-render")]
    environ = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    command = [sys.executable, "-c", BOTH, json.dumps(both)]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "logs/dreamerv3/CartPole-v1_1"
    assert (folder / "CartPole-v1.zip").exists() and (folder / "best_model.zip").exists()
    assert "Episode Reward" in done.stdout
