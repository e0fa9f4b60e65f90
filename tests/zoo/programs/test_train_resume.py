"""``train -i RUN_FOLDER``: a run that was killed and continued is the run that was not."""

import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.resume.folder import sole_writer
from sb3_dreamer.zoo.config.yaml_files import write_yaml
from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.runs import callbacks, run_folder

ROOT = Path(__file__).resolve().parents[3]
TOTAL, DIES_AT = 200, 140
RUN = ["-n", str(TOTAL), "--seed", "3", "--save-freq", "50", "--eval-freq", "50", "--eval-episodes", "1"]
RUN += ["--log-interval", "1"]
CLOCK = ("time/fps", "time/time_elapsed", "t")
#: a process that is killed from outside, at an exact step
KILLED = f"""
import os, signal, sys
from sb3_dreamer.zoo.runs import callbacks
from sb3_dreamer.zoo.programs import cli

def die(self):
    if self.num_timesteps == {DIES_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return True

callbacks.ShowProgress._on_step = die
cli.main(sys.argv[1:])
"""


PROCESS: dict[str, Any] = {"cwd": ROOT, "env": dict(os.environ)}
PROCESS |= {"capture_output": True, "text": True, "timeout": 400}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> dict[str, Path]:
    """A run in one piece, and one that was killed and continued."""
    folder = tmp_path_factory.mktemp("resume")
    assert main(["train", *RUN, "-f", str(folder / "straight"), *small]) == 0
    words = ["train", *RUN, "-f", str(folder / "killed"), *small]
    dead = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, **PROCESS)
    assert dead.returncode == -signal.SIGKILL
    paths = {name: folder / name / "dreamerv3" / "CartPole-v1_1" for name in ("straight", "killed")}
    names = [path.name for path in (paths["killed"] / "checkpoints").glob("checkpoint_*")]
    assert len(names) == 2 and not (paths["killed"] / "CartPole-v1.zip").exists()
    assert last_episode(paths["killed"]) > max(int(name.rsplit("_", 1)[1]) for name in names), "rows are to be cut"
    assert main(["train", "-i", str(paths["killed"])]) == 0
    return paths


def last_episode(run: Path) -> int:
    return int(rows(run / "0.monitor.csv")[-1]["timesteps"])


def rows(path: Path) -> list[dict[str, str]]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in csv.DictReader(lines)]


def tensors(path: Path) -> dict[str, np.ndarray]:
    model = DreamerV3.load(path)
    found = {name: value.numpy() for name, value in model.policy.state_dict().items()}
    for name in model.optimizers:
        for index, state in getattr(model, name).state_dict()["state"].items():
            found |= {f"{name}.{index}.{key}": np.asarray(value) for key, value in state.items()}
    return found | {"counters": np.array([model.num_timesteps, model._n_updates, model._episode_num])}


@pytest.mark.parametrize("name", ["CartPole-v1.zip", "best_model.zip"])
def test_weights_and_optimizers(runs, name) -> None:
    straight, continued = (tensors(run / name) for run in runs.values())
    assert straight["counters"][1] > 0 or name == "best_model.zip"
    assert [key for key in straight if straight[key].tobytes() != continued[key].tobytes()] == []


def test_replay(runs) -> None:
    replays = []
    for run in runs.values():
        model = DreamerV3.load_checkpoint(run / "checkpoints")
        assert model.num_timesteps == TOTAL
        replays.append({name: array[:, : TOTAL + 10].copy() for name, array in model.replay_buffer.arrays.items()})
    assert [name for name in replays[0] if replays[0][name].tobytes() != replays[1][name].tobytes()] == []


@pytest.mark.parametrize("name", ["0.monitor.csv", "progress.csv", "final_evaluation.csv"])
def test_logs(runs, name) -> None:
    straight, continued = (rows(run / name) for run in runs.values())
    assert straight == continued and straight


def test_evaluations(runs) -> None:
    straight, continued = (np.load(run / "evaluations.npz") for run in runs.values())
    assert straight["timesteps"].tolist() == [50, 100, 150, 200]
    for name in ("timesteps", "results", "ep_lengths"):
        np.testing.assert_array_equal(straight[name], continued[name])


def test_the_folder_tells_of_it(runs) -> None:
    """One folder, both commands, the settings that it was started with."""
    run = runs["killed"]
    assert [path.name for path in run.parent.iterdir()] == ["CartPole-v1_1"]
    commands = (run / "CartPole-v1" / "command.txt").read_text().splitlines()
    assert len(commands) == 2 and commands[1].endswith(f"-i {run}")
    configs = [yaml.safe_load((path / "CartPole-v1" / "config.yml").read_text()) for path in runs.values()]
    assert configs[0] == configs[1] and configs[0]["seed"] == 3 and configs[0]["n_timesteps"] == TOTAL


def test_further_steps_and_a_checkpoint_by_name(runs, capsys) -> None:
    """A finished run asks for steps; with them it goes on in its folder, which then knows the new total."""
    run = runs["straight"]
    newest = sorted((run / "checkpoints").iterdir())[-1]
    assert main(["train", "-i", str(newest)]) == 2
    assert "add -n STEPS" in capsys.readouterr().err
    assert main(["train", "-i", str(newest), "-n", "30", "--final-eval-episodes", "0"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "230 agent steps, 200 of them done" in out and "of episodes), and all else, from" in out
    assert DreamerV3.load(run / "CartPole-v1.zip").num_timesteps == 230
    assert run_folder.read_config(run_folder.of_model(run / "CartPole-v1.zip"))["n_timesteps"] == 230


def test_from_the_folder_of_checkpoints(runs, monkeypatch, tmp_path: Path, capsys) -> None:
    checkpoints = shutil.copytree(runs["straight"], tmp_path / "dreamerv3" / "CartPole-v1_1") / "checkpoints"
    monkeypatch.chdir(checkpoints)
    Path("logs").write_text("a file where new runs would go")
    name = max(path.name for path in checkpoints.glob("checkpoint_*"))
    assert main(["train", "-i", name, "-n", "5", "--verbose", "0"]) == 0
    assert capsys.readouterr().out == "", "errors only"


def test_the_settings_of_the_run_count(logs: Path) -> None:
    """Also those of a session that was killed before its first checkpoint, and however the environment is written."""
    run = logs / "dreamerv3" / "CartPole-v1_1"
    config = run / "CartPole-v1" / "config.yml"
    changed = yaml.safe_load(config.read_text())
    changed["hyperparams"] |= {"train_ratio": 3.0, "stats_window_size": 50}
    write_yaml(config, changed)
    left_over = run / ".best_model.zip.0123456789ab.tmp"
    left_over.touch()
    assert main(["train", "-i", str(run), "-n", "5", "--env", "cartpole", "--final-eval-episodes", "0"]) == 0
    assert DreamerV3.load(run / "CartPole-v1.zip").train_ratio == 3.0 and not left_over.exists()
    assert yaml.safe_load(config.read_text()) == changed | {"n_timesteps": 205, "final_eval_episodes": 0}


def test_wrong_paths_say_what_there_is(logs: Path, tmp_path: Path, capsys) -> None:
    run = logs / "dreamerv3" / "CartPole-v1_1"
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    assert main(["train", "-i", str(run)]) == 2
    assert f"has no checkpoint to resume from; it has {run / 'CartPole-v1.zip'}" in capsys.readouterr().err
    assert main(["train", "-i", str(run.with_name("CartPole-v1_7"))]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert main(["train", "-i", str(tmp_path / "elsewhere")]) == 2
    assert "is not in a run folder" in capsys.readouterr().err


def test_what_a_resumed_run_does_not_take(logs: Path, capsys) -> None:
    run = logs / "dreamerv3" / "CartPole-v1_1"
    assert main(["train", "-i", str(run), "-n", "5", "--seed", "7"]) == 2
    assert "--seed 7: a run resumes with its own seed, 3" in capsys.readouterr().err
    assert main(["train", "-i", str(run), "-n", "5", "--hyperparams", "n_envs:3"]) == 2
    assert "--hyperparams n_envs: a run resumes with the n_envs of its replay" in capsys.readouterr().err
    assert main(["train", "-i", str(run), "-n", "5", "--algo", "dreamerv2"]) == 2
    assert "is an agent of dreamerv3; leave --algo out" in capsys.readouterr().err
    assert main(["train", "-i", str(run), "-n", "5", "--final-eval-episodes", "0"]) == 0
    shown = "".join(capsys.readouterr().out.replace("│", "").split())  # without the table's lines
    assert f"--envCartPole-v1-f{logs}" in shown  # where the command below the table finds the run
    (run / "CartPole-v1" / "config.yml").write_text("")
    assert main(["train", "-i", str(run), "-n", "5"]) == 2
    assert "config.yml of the run of" in capsys.readouterr().err


def test_ctrl_c_leaves_a_checkpoint_and_the_command(tmp_path: Path, small: list[str], monkeypatch, capsys) -> None:
    """The signal reaches this process; in ``test_train.py`` it reaches another one."""

    def interrupt(self: callbacks.ShowProgress) -> bool:
        if self.num_timesteps == DIES_AT:
            signal.raise_signal(signal.SIGINT)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.ShowProgress, "_on_step", interrupt)
        assert main(["train", *RUN, "-f", str(tmp_path), *small]) == 130
    out = capsys.readouterr().out
    run = tmp_path / "dreamerv3" / "CartPole-v1_1"
    assert f"Stopped at step {DIES_AT + 1}; a checkpoint is in {run}" in out
    command = shlex.split(out.strip().splitlines()[-1])
    assert str(run) == command[command.index("-i") + 1]
    assert main(command[command.index("train") :]) == 0
    assert DreamerV3.load(run / "CartPole-v1.zip").num_timesteps == TOTAL


def test_two_processes_are_one_run(tmp_path: Path, small: list[str]) -> None:
    """``torchrun`` with the training script: one folder, one voice, steps of both counted; and it goes on exactly."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "zoo/train.py"]
    result = subprocess.run([*torchrun, *RUN, "-f", str(tmp_path), *small], check=False, **PROCESS)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("final evaluation") == 1 and result.stdout.count("observation obs") == 1
    runs = [path.name for path in (tmp_path / "dreamerv3").iterdir()]
    assert runs == ["CartPole-v1_1"]
    run = tmp_path / "dreamerv3" / "CartPole-v1_1"
    model = DreamerV3.load(run / "CartPole-v1.zip")
    assert model.num_timesteps == TOTAL and model._n_updates > 0
    newest = sorted((run / "checkpoints").iterdir())[-1]
    assert (newest / "rank_1" / "replay.safetensors").exists()
    assert np.load(run / "evaluations.npz")["timesteps"].tolist() == [50, 100, 150, 200]


def test_a_run_that_still_runs_is_not_resumed(logs, capsys) -> None:
    run = logs / "dreamerv3" / "CartPole-v1_1"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with sole_writer(run):
        assert main(["train", "-i", str(run), "-n", "50", "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and f"another run is writing to '{run}'" in error, error
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
    assert main(["train", "-i", str(run), "-n", "50", "--device", "cpu", "--eval-freq", "-1"]) == 0
