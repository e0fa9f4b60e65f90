"""Runs are found by every name that trained them, whatever the algorithm; rl_zoo3's folders are read."""

from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.runs.agents import find_run


def make_run(root: Path, algo: str, name: str, number: int = 1) -> run_folder.RunFolder:
    run = run_folder.RunFolder(root / algo / f"{name}_{number}", name)
    run.write_config({"env": name, "hyperparams": {}, "n_timesteps": 50_000_000})
    return run


@pytest.mark.parametrize(
    ("run", "names"),
    [
        ("atari-pong", ["Pong", "pong", "atari:pong", "atari-pong"]),
        ("atari-ms_pacman", ["MsPacman", "ms_pacman", "atari:MsPacman"]),
        ("atari100k-pong", ["atari100k:pong", "Pong"]),
        ("dmc_proprio-walker_walk", ["walker_walk", "dmc_proprio:walker_walk"]),
        ("ALE-Pong-v5", ["ALE/Pong-v5", "Pong-v5"]),
        ("CartPole-v1", ["CartPole-v1"]),
        ("PixelCatch", ["PixelCatch"]),
    ],
)
@pytest.mark.parametrize("algo", ["dreamerv3", "dreamerv2"])
def test_a_run_is_found_by_every_name(algo: str, run: str, names: list[str], tmp_path: Path) -> None:
    make_run(tmp_path, algo, run)
    make_run(tmp_path, "planet", "Acrobot-v1")
    for name in names:
        args = Namespace(algo=None, env=name, folder=str(tmp_path), exp_id=0)
        assert find_run(args).name == run and args.algo == algo, name


def test_no_other_task_is_taken_for_it(tmp_path: Path) -> None:
    make_run(tmp_path, "dreamerv2", "atari-pong")
    for name in ("walker_walk", "CartPole-v1", "dmc_vision:pong", "ong"):
        with pytest.raises(UsageError, match=r"there is no run of .*: dreamerv2 has atari-pong"):
            find_run(Namespace(algo=None, env=name, folder=str(tmp_path), exp_id=0))


def test_a_piece_of_a_name_is_no_name(tmp_path: Path) -> None:
    for name in ("LunarLander-v3", "bsuite-cartpole-0", "MiniGrid-Empty-5x5-v0"):
        make_run(tmp_path, "dreamerv3", name)
    for name in ("v3", "V3", "0", "v0", "5x5-v0", "5x5v0"):
        with pytest.raises(UsageError, match="there is no run of"):
            find_run(Namespace(algo=None, env=name, folder=str(tmp_path), exp_id=0))


def test_steps_that_were_done(tmp_path: Path) -> None:
    run = make_run(tmp_path, "dreamerv2", "atari-pong")
    assert run.steps_done == 0
    (run.path / "0.monitor.csv").write_text("#{}\nr,l,t,timesteps,frames,env\n1.0,9,0.5,700,2800,0\n1.0,9,0.6,7")
    assert run.steps_done == 0  # the line was cut off while it was written
    (run.path / "0.monitor.csv").write_text("#{}\nr,l,t,timesteps,frames,env\n1.0,9,0.5,700,2800,0\n")
    assert run.steps_done == 700
    (run.path / "checkpoints/checkpoint_000001_step_883").mkdir(parents=True)
    assert run.steps_done == 883
    (run.path / "rl_model_900_steps.zip").touch()
    assert run.steps_done == 900


def test_settings_of_rl_zoo3(tmp_path: Path) -> None:
    run = run_folder.RunFolder(tmp_path / "dreamerv3/CartPole-v1_1", "CartPole-v1")
    run.settings.mkdir(parents=True)
    tag = "!!python/object/apply:collections.OrderedDict\n"
    values = [["gamma", 0.9], ["n_timesteps", 20000.0], ["normalize", False], ["policy", "MlpPolicy"]]
    run.config.write_text(tag + yaml.safe_dump([values]))
    (run.settings / "args.yml").write_text(tag + yaml.safe_dump([[["algo", "dreamerv3"], ["env", "CartPole-v1"]]]))
    config = run_folder.read_config(run)
    assert (config["env"], config["run_name"], config["n_timesteps"]) == ("CartPole-v1", "CartPole-v1", 20_000)
    assert config["hyperparams"] == {"gamma": 0.9} and config["policy"] == "MlpPolicy"
