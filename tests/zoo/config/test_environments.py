"""Environments of a run: Atari under all its names, packages that register more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, *words: str, cwd: Path) -> str:
    """Run a program in a new process, whose registry is gymnasium's own, and return what it printed."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_atari_is_known_under_all_its_names(tmp_path: Path) -> None:
    """The id of rl_zoo3 and a module's, too: actions are sampled, several copies get processes of their own."""
    pytest.importorskip("ale_py")
    code = """
import json, sys
from sb3_dreamer.wrappers.vec.make import is_slow
from sb3_dreamer.zoo.config.environments import deterministic_by_default, make_envs
rules = {name: [deterministic_by_default(name), is_slow(name, {})] for name in sys.argv[1:]}
env = make_envs("PongNoFrameskip-v4", 1, 0)
print(json.dumps([rules, env.reset().shape]))
"""
    games = ["Pong", "atari:pong", "ale_py:ALE/Pong-v5", "ALE/Pong-v5", "ALE/Pong", "PongNoFrameskip-v4"]
    others = ["CartPole-v1", "dmc_proprio:walker_walk", "Nothing-v0"]
    rules, shape = json.loads(run(code, *games, *others, cwd=tmp_path))
    assert rules == {**dict.fromkeys(games, [False, True]), **dict.fromkeys(others, [True, False])}
    assert shape == [1, 210, 160, 3]


def test_the_older_ids_need_no_package_to_be_named(tmp_path: Path) -> None:
    """Before anything else has imported ale_py."""
    pytest.importorskip("ale_py")
    code = "from sb3_dreamer.wrappers import make_env; print(make_env('BreakoutNoFrameskip-v4').reset()[0].shape)"
    assert run(code, cwd=tmp_path) == "(210, 160, 3)"
