"""Every error of the command line is one line on stderr, with the exit status that says whose fault it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_dreamer.zoo.programs.cli import main

ROOT = Path(__file__).resolve().parents[3]
CASES = {
    "unknown program": (["trian"], "did you mean 'train'"),
    "unknown flag": (["train", "--evn", "CartPole-v1"], "did you mean '--env'"),
    "empty word": (["train", ""], "unknown argument ''"),
    "unknown algorithm": (["train", "--algo", "dreamer3"], "did you mean 'dreamerv3'"),
    "unknown environment": (["train", "--env", "CartPol-v1"], "did you mean 'CartPole-v1'"),
    "environment like no other": (["train", "--env", "nope"], "unknown environment 'nope': sb3-dreamer list shows the"),
    "unknown suite": (["train", "--env", "atary:pong"], "did you mean 'atari'"),
    "unknown size": (["train", "-params", "model_size:XSS"], "did you mean 'XS'"),
    "unknown hyperparameter": (["train", "-params", "train_ration:3"], "train_ration=3 (did you mean 'train_ratio'?)"),
    "another library's name": (["train", "-params", "lr:1e-3"], "lr=0.001 is not supported: write learning_rate"),
    "fewer than no trials": (["tune", "--n-trials", "-3"], "'-3' must be at least 0"),
    "value of another type": (["train", "-params", "horizon:soon"], "horizon='soon' must be a whole number"),
    "code": (["train", "-params", "gamma:exit(3)"], "cannot read 'exit(3)'"),
    "no pair": (["train", "-params", "gamma=3"], "write key:value"),
    "unknown policy": (["train", "-params", "policy:MlpPolic"], "did you mean 'MlpPolicy'"),
    "wrong policy": (["train", "-params", "policy:CnnPolicy"], "use MlpPolicy for vectors"),
    "own flag": (["train", "-params", "device:cpu"], "use --device"),
    "no model": (["train", "-i", "nothing.zip"], "there is no file nothing.zip"),
    "no config": (["train", "--config", "nothing.yml"], "there is no file nothing.yml"),
    "python config": (["train", "-conf", "own.py"], "never run"),
    "no steps": (["train", "-n", "0"], "must be at least 1"),
    "no number": (["train", "-n", "ten"], "'ten' is not a whole number"),
    "unknown device": (["train", "--device", "gpu"], "--device 'gpu' cannot be used"),
    "kind of device": (["train", "--device", "tpu"], "use auto, cpu, cuda or cuda:1"),
    "hyperparameter as a flag": (["train", "--n-envs", "8"], "--n-envs is a hyperparameter: write -params n_envs:8"),
    "evaluations": (["train", "--eval-freq", "0"], "'0' must be at least 1, or -1 for none"),
    "checkpoints": (["train", "--save-freq", "-5"], "'-5' must be at least 1, or -1 for none"),
    "log rows": (["train", "--log-interval", "0"], "'0' must be at least 1, or -1 for the default"),
    "threads": (["train", "--num-threads", "0"], "'0' must be at least 1, or -1 for the default"),
    "log folder": (["train", "-f", __file__], "is a file"),
    "unknown choice": (["train", "--vec-env", "subprocess"], "did you mean 'subproc'"),
    "missing package": (["train", "--gym-packages", "no_such_package"], "cannot be imported"),
    "unknown wrapper": (["train", "-params", "env_wrapper:gymnasium.wrappers.Clip"], "there is no such class"),
    "wrong setting": (["train", "--env-kwargs", "lenght:3"], "lenght"),
    "unknown game in a worker process": (
        ["train", "--env", "atari:pnog", "-params", "n_envs:2", "policy:CnnPolicy"],
        "there is no Atari game 'pnog' (did you mean 'pong'?)",
    ),
    "search flag of rl_zoo3": (["train", "-optimize"], "see sb3-dreamer tune --help"),
    "search flag with a value": (["train", "--storage=x"], "see sb3-dreamer tune --help"),
    "no run": (["enjoy", "-f", "nowhere"], "there is no run of 'CartPole-v1'"),
    "no name": (["train", "--env", ""], "the environment's name is empty"),
    "no folder": (["train", "-f", ""], "the name of the folder is empty"),
    "no folder of runs": (["enjoy", "-f", ""], "the name of the folder is empty"),
    "no folder to plot": (["plot", "-f", ""], "the name of the folder is empty"),
    "no folder to list": (["list", "--runs", "-f", ""], "the name of the folder is empty"),
    "no folder for a download": (["load_from_hub", "-orga", "x", "-f", ""], "the name of the folder is empty"),
    "seed": (["train", "--seed", "1e30"], "'1e30' must be from 0 to 4294967295"),
    "seed below -1": (["enjoy", "--seed", "-5"], "'-5' must be from 0 to 4294967295, or -1 to draw one"),
    "seed that is too large": (["tune", "--seed", "1e30"], "'1e30' must be from 0 to 4294967295, or -1 to draw one"),
    "two files": (["train", "--config", "a.yml", "-conf", "b.yml"], "pass one of them"),
    "folder for a config": (["train", "--config", "."], "--config . is a folder"),
    "train_freq": (["train", "-params", "train_freq:0"], "train_freq=0 must be an integer from 1 up (steps)"),
    "names": (["train", "-params", "policy_kwargs:{1: 2}"], "must be a dict from argument names"),
    "replay": (["train", "-params", "replay_buffer_kwargs:dict(foo=1)"], "replay_buffer_kwargs has 'foo'"),
    "seed of a job": (["suite", "classic", "--", "--seed", "3"], "use --seeds before --"),
    "environment of a search": (["tune", "--env", "Nope-v1"], "unknown environment 'Nope-v1'"),
    "unknown enjoy flag": (["enjoy", "--deterministc"], "did you mean '--deterministic'"),
}


@pytest.mark.parametrize(("words", "message"), CASES.values(), ids=CASES)
def test_error_is_one_line(words: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("\n") and captured.err.count("\n") == 1
    assert message in captured.err and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize(
    ("module", "env", "message"),
    [
        ("ale_py", "ALE/Pong-v5", 'pip install "sb3-dreamer[atari]"'),
        ("shimmy", "dm_control/walker-walk-v0", 'pip install "sb3-dreamer[dmc]"'),
    ],
)
def test_missing_suite_says_what_to_install(module: str, env: str, message: str, monkeypatch, capsys, tmp_path) -> None:
    import gymnasium as gym

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in gym.registry if name.startswith(env.split("/", maxsplit=1)[0])]:
        monkeypatch.delitem(gym.registry, name)
    assert main(["train", "--env", env]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_missing_box2d_says_what_to_install(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    assert main(["train", "--env", "LunarLander-v3"]) == 2
    err = capsys.readouterr().err
    assert 'pip install "sb3-dreamer[box2d]"' in err and err.count("\n") == 1


def test_broken_model_files(logs: Path, tmp_path: Path, capsys) -> None:
    run = logs / "dreamerv3/CartPole-v1_1"
    model = run / "CartPole-v1.zip"
    model.write_bytes(model.read_bytes()[:3000])
    for words in (["train", "-n", "10", "-f", str(logs), "-i", str(model)], ["enjoy", "-f", str(logs), "--no-render"]):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "CartPole-v1.zip" in err and err.count("\n") == 1
    assert not (logs / "dreamerv3/CartPole-v1_2").exists()


def test_model_for_other_spaces(logs: Path, capsys) -> None:
    model = str(logs / "dreamerv3/CartPole-v1_1/CartPole-v1.zip")
    assert main(["train", "-n", "10", "-f", str(logs), "-i", model, "--env", "Acrobot-v1"]) == 2
    err = capsys.readouterr().err
    assert "space" in err and err.count("\n") == 1


@pytest.mark.parametrize("gone", [False, True])
def test_failure_while_running_is_status_1_and_keeps_the_model(gone, tmp_path: Path, small: list[str], capsys) -> None:
    """A traceback that cannot be written does not hide the cause."""
    import gymnasium as gym
    import numpy as np
    from gymnasium.envs.classic_control import CartPoleEnv

    class Broken(CartPoleEnv):
        steps = 0

        def step(self, action):
            self.steps += 1
            if gone and self.steps == 70:
                shutil.rmtree(tmp_path / "dreamerv3")
            obs, *rest = super().step(action)
            return (obs * np.nan if self.steps == 70 else obs, *rest)

    gym.register("Broken-v0", Broken, max_episode_steps=30)
    try:
        flags = ["--eval-freq", "-1", "-f", str(tmp_path)]
        assert main(["train", "--env", "Broken-v0", "-n", "200", *flags, *small]) == 1
    finally:
        gym.registry.pop("Broken-v0")
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is nan at step 7" in err and "error.txt" in err and ("could not be written" in err) == gone
    folder = tmp_path / "dreamerv3/Broken-v0_1"
    assert list(folder.glob("rl_model_*_steps.zip")) and (gone or "Traceback" in (folder / "error.txt").read_text())


def test_a_failure_in_a_worker_is_one_sentence(tmp_path: Path, small: list[str], capsys) -> None:
    import gymnasium as gym

    failing = "tests.wrappers.vec.failing_envs:Failing"
    gym.register("Failing-v0", failing, kwargs={"how": "raise", "at": 50}, max_episode_steps=30)
    try:
        flags = ["--eval-freq", "-1", "-f", str(tmp_path), "--vec-env", "subproc"]
        assert main(["train", "--env", "Failing-v0", "-n", "200", *flags, *small, "-params", "n_envs:2"]) == 1
    finally:
        gym.registry.pop("Failing-v0")
    err = capsys.readouterr().err
    error = "error: environment 0 failed in its worker: RuntimeError: the pole broke (the model at step "
    assert error in err and "raceback there" not in err and "failing_envs.py" not in err
    assert "failing_envs.py" in (tmp_path / "dreamerv3/Failing-v0_1/error.txt").read_text()


@pytest.mark.parametrize("program", ["train", "enjoy"])
def test_scripts_and_modules_are_the_same_program(program: str) -> None:
    words = [[f"zoo/{program}.py"], ["-m", f"sb3_dreamer.zoo.{program}"], ["-m", "sb3_dreamer.zoo", program]]
    results = [
        subprocess.run([sys.executable, *start, "--evn"], cwd=ROOT, capture_output=True, text=True, check=False)
        for start in words
    ]
    assert {result.returncode for result in results} == {2}
    assert len({result.stderr for result in results}) == 1 and results[0].stderr.count("\n") == 1


def test_warnings_are_one_line() -> None:
    code = """
import warnings
from sb3_dreamer.zoo.programs import cli, list
list.main = lambda words: warnings.warn("two\\nlines")
cli.main(["list"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "sb3-dreamer list: warning: two lines\n"


def test_a_warning_of_gymnasium_has_no_colors_and_is_shown_once() -> None:
    code = """
from sb3_dreamer.zoo.programs import cli, list

def warn(words):
    import gymnasium as gym
    import warnings
    for number in (1, 1, 2):
        with warnings.catch_warnings():  # after which Python shows again what it had shown
            gym.logger.warn(f"environment {number} is out of date")

list.main = warn
cli.main(["list"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"sb3-dreamer list: warning: environment {n} is out of date" for n in (1, 2)]


def test_examples_of_the_help_stand_on_lines_of_their_own(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert "  train --algo dreamerv3 --env CartPole-v1" in lines
    assert "  train --env atari:pong -n 1e5 -params model_size:XS train_ratio:64" in lines


def test_no_name_in_the_zoo_shadows_a_package(tmp_path: Path) -> None:
    """Python puts a script's folder on its path: ``import train`` anywhere would find ``zoo/train.py``."""
    names = {path.stem for path in (ROOT / "zoo").iterdir() if not path.name.startswith("__")}
    code = f"import importlib.util as u; print([n for n in {sorted(names)} if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_scripts_are_four_lines() -> None:
    for path in (ROOT / "zoo").glob("*.py"):
        code = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith('"""')]
        assert len(code) <= 4, path
