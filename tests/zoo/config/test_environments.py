"""Environments of a run: Atari under all its names, packages that register more."""

import json
import os
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
    assert rules == {name: [name in others, name in games] for name in games + others}
    assert shape == [1, 210, 160, 3]


def test_the_older_ids_need_no_package_to_be_named(tmp_path: Path) -> None:
    """Before anything else has imported ale_py."""
    pytest.importorskip("ale_py")
    code = "from sb3_dreamer.wrappers import make_env; print(make_env('BreakoutNoFrameskip-v4').reset()[0].shape)"
    assert run(code, cwd=tmp_path) == "(210, 160, 3)"


OWN = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class My(CartPoleEnv):
    pass

class Wrap(gym.Wrapper):
    pass

gym.register("MyNs/My-v1", "my_envs:My", max_episode_steps=20)
"""
TINY = ["-params", "model_size:debug", "batch_size:2", "batch_length:8", "train_ratio:4", "learning_starts:20"]


def program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program as its console script does: the current folder is not on the path."""
    code = "import sys; sys.path.remove(''); from sb3_dreamer.zoo.programs.cli import main; sys.exit(main())"
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_a_module_of_the_current_folder_is_found_and_recalled(tmp_path: Path) -> None:
    """By train, its workers, and without the flag by the programs that load the agent."""
    (tmp_path / "my_envs.py").write_text(OWN)
    words = ["--env", "MyNs/My-v1", "-n", "30", "--eval-freq", "-1", "--final-eval-episodes", "1", "--device", "cpu"]
    wrapper = "env_wrapper:my_envs.Wrap"
    done = program(
        tmp_path, "train", "--gym-packages", "my_envs", "--vec-env", "subproc", *words, *TINY, "n_envs:2", wrapper
    )
    assert (done.returncode, done.stderr) == (0, "")  # no worker says that it overrides a registered id
    done = program(tmp_path, "enjoy", "--env", "MyNs/My-v1", "--no-render", "--n-episodes", "1")
    assert done.returncode == 0 and "Episode 1: return" in done.stdout, done.stderr
    model = "logs/dreamerv3/MyNs-My-v1_1/MyNs-My-v1.zip"
    done = program(tmp_path, "train", "-i", model, "-n", "10", "--eval-freq", "-1", "--final-eval-episodes", "0")
    assert done.returncode == 0, done.stderr


def test_the_module_of_an_id_is_found_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "my_envs.py").write_text(OWN)
    code = """
import sys
sys.path.remove("")
from sb3_dreamer.zoo.config.environments import make_envs
print(make_envs("my_envs:MyNs/My-v1", 1, 0, env_wrapper="my_envs.Wrap").reset().shape)
"""
    assert run(code, cwd=tmp_path) == "(1, 4)"
