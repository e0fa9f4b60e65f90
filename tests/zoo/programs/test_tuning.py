"""What ``tune`` leaves behind: the study as a file, and when a trial may be stopped early."""

import json
import shlex
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sb3_dreamer.zoo.programs.cli import main

optuna = pytest.importorskip("optuna")
FIXED = ["model_size:debug", "batch_size:2", "batch_length:8", "train_ratio:1", "learning_starts:40"]


def words(tmp_path: Path, *more: str) -> list[str]:
    space = tmp_path / "space.yml"
    space.write_text("horizon: [5, 15]\n")
    few = ["-n", "60", "--n-evaluations", "2", "--eval-episodes", "1", "--device", "cpu", "--seed", "7"]
    return ["tune", "-f", str(tmp_path), *few, "--space", str(space), "-params", *FIXED, *more]


def test_a_study_is_exported_with_seeds_steps_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    assert main(words(tmp_path, "--n-trials", "2")) == 0
    assert not path.exists()
    assert main(words(tmp_path, "--n-trials", "0", "--export", str(path))) == 0
    study = json.loads(path.read_text())
    assert [trial["seed"] for trial in study["trials"]] == [7, 8] and study["env"] == "CartPole-v1"
    for trial in study["trials"]:
        assert trial["state"] == "complete" and trial["n_timesteps"] == 60 and trial["params"]["horizon"] in (5, 15)
        assert list(trial["evaluations"]) == ["30", "60"] and trial["evaluations"]["60"] == trial["value"]
    best = study["trials"][study["best_trial"]]
    assert best["value"] == max(trial["value"] for trial in study["trials"])
    (command,) = study["commands"]  # of the command that ran trials, not of the one that only wrote the file
    assert "--n-trials 2" in command and str(tmp_path / "tune.db") not in command and "torch" in study["versions"]


def test_export_needs_its_folder_before_any_trial(tmp_path: Path, capsys) -> None:
    assert main(words(tmp_path, "--export", str(tmp_path / "nowhere/x.json"))) == 2
    assert "there is no folder" in capsys.readouterr().err and not list(tmp_path.rglob("*.db"))


def test_no_trial_is_stopped_in_the_first_third_or_at_the_end(monkeypatch) -> None:
    """Optuna's pruners count in reported steps, so the number of evaluations cannot be told to them."""
    from sb3_dreamer.zoo.config import environments
    from sb3_dreamer.zoo.programs.tune import Reports

    monkeypatch.setattr("stable_baselines3.common.evaluation.evaluate_policy", lambda *args, **kwargs: ([1.0], [1]))
    monkeypatch.setattr(environments, "deterministic_by_default", lambda env: True)

    class Hopeless:
        def report(self, value: float, step: int) -> None: ...

        def should_prune(self) -> bool:
            return True

    plan = Namespace(n_timesteps=60, env="CartPole-v1")
    reports = Reports(Hopeless(), None, plan, Namespace(n_evaluations=6, eval_episodes=1))
    going_on = [reports({"self": Namespace(num_timesteps=step)}, {}) for step in range(10, 61, 10)]
    assert going_on == [True, True, False, False, False, True]


def study_of(tmp_path: Path) -> "optuna.Study":
    return optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'dreamerv3/tune.db'}")


def test_no_trial_is_drawn_twice(tmp_path: Path, capsys) -> None:
    """Not when the study is resumed, and not by processes at once, whose trials are printed; each has its own seed."""
    wide = tmp_path / "wide.yml"
    wide.write_text("learning_rate: {low: 1e-5, high: 1e-2}\n")
    more = ["--sampler", "random", "--space", str(wide), "--n-trials"]
    assert main(words(tmp_path, *more, "1")) == 0
    assert main(words(tmp_path, *more, "2", "--n-jobs", "2")) == 0
    trials = study_of(tmp_path).trials
    assert len({trial.params["learning_rate"] for trial in trials}) == 3
    assert sorted(trial.user_attrs["seed"] for trial in trials) == [7, 8, 9]
    other = tmp_path / "other"
    other.mkdir()
    assert main(words(other, *more, "3")) == 0
    rates = [[trial.params["learning_rate"] for trial in study_of(folder).trials] for folder in (tmp_path, other)]
    assert rates[0] == rates[1], "a trial's values depend on its number alone"


def test_commands_that_start_at_once_make_the_study_one_after_the_other(tmp_path: Path, monkeypatch, capsys) -> None:
    """Optuna makes the tables of a new file in several steps, and fails where another process makes them, too."""
    make, running, most = optuna.create_study, [], []

    def slow(**kwargs: Any) -> Any:
        running.append(kwargs)
        most.append(len(running))
        time.sleep(0.2)
        try:
            return make(**kwargs)
        finally:
            running.pop()

    monkeypatch.setattr(optuna, "create_study", slow)
    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(main, [words(tmp_path, "--n-trials", "0")] * 3))
    captured = capsys.readouterr()
    assert captured.err.count("has no completed trial yet") == 3 and statuses == [1, 1, 1]
    assert most == [1, 1, 1]


def test_a_storage_that_cannot_be_used(tmp_path: Path, capsys) -> None:
    for storage, message in (
        (f"sqlite:///{tmp_path}/nowhere/x.db", "there is no folder"),
        ("nonsense", "--storage 'nonsense' cannot be used"),
    ):
        assert main(words(tmp_path, "--n-trials", "0", "--storage", storage)) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("jobs", "trials", "shares"),
    [(6, 5, [1] * 5), (4, 7, [2, 2, 2, 1]), (2, 4, [2, 2]), (1, 3, [3]), (3, 0, [0])],
)
def test_trials_are_spread_over_processes(jobs: int, trials: int, shares: list[int], monkeypatch) -> None:
    from sb3_dreamer.zoo.programs import tune

    parser, commands = tune.make_parser(), []
    monkeypatch.setattr(tune.subprocess, "Popen", lambda command: commands.append(parser.parse_args(command[4:])))
    args = parser.parse_args(["--n-jobs", str(jobs), "--n-trials", str(trials)])
    workers = tune.start_workers(parser, args)
    assert [args.n_trials, *(worker.n_trials for worker in commands)] == shares
    assert len(workers) == len(shares) - 1 and all(worker.worker and worker.n_jobs == 1 for worker in commands)


def test_best_is_the_command_of_its_trial(tmp_path: Path, capsys) -> None:
    """The steps and fixed values of the study, whatever this call has; other ones are another study."""
    assert main(words(tmp_path, "--n-trials", "1")) == 0
    capsys.readouterr()
    plain = ["tune", "-f", str(tmp_path), "--device", "cpu"]
    assert main([*plain, "--n-trials", "0"]) == 0
    command = capsys.readouterr().out.strip().splitlines()[-1]
    assert " -n 60 " in command and all(value.split(":")[0] in command for value in FIXED)
    assert main(words(tmp_path, "-n", "80", "--n-trials", "1")) == 2
    assert "has --n-timesteps 60, not 80" in capsys.readouterr().err
    assert main(words(tmp_path, "train_ratio:2", "--n-trials", "1")) == 2
    assert "has --hyperparams" in capsys.readouterr().err
    assert main(words(tmp_path, "--n-trials", "3", "--max-total-trials", "1")) == 0
    assert "has 1 trial already" in capsys.readouterr().out and len(study_of(tmp_path).trials) == 1


def test_stopped_before_a_trial_is_complete(tmp_path: Path, monkeypatch, capsys) -> None:
    assert main(words(tmp_path, "--n-trials", "0")) == 1
    assert "has no completed trial yet" in capsys.readouterr().err

    def interrupt(self, trial) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_dreamer.zoo.programs.tune.Objective.__call__", interrupt)
    assert main(words(tmp_path, "--n-trials", "2")) == 130
    captured = capsys.readouterr()
    assert "Stopped" in captured.out and captured.err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: {low: a, high: 1}", "low of learning_rate='a' must be a number"),
        ("learning_rate: {low: -1, high: 1, log: true}", "low must be above 0"),
        ("learning_rate: {low: 1, high: .inf}", "both finite"),
        ("learning_rate: {low: 1e-4, high: 1e-3, log: 1e-3}", "log must be true or false"),
        ("horizon: {low: 5, high: 9.5}", "high of horizon=9.5 must be a whole number"),
        ("model_size: {low: XS, high: XXS}", "a range is for numbers"),
        ("- horizon", "must hold a mapping (name: value), not list"),
        ("", "names no hyperparameter"),
        ("critic_target: [fast, slo]", "critic_target='slo' is unknown (did you mean 'slow'?)"),
        ("train_ratio: [1, 2]", "--hyperparams fixes all that is searched: train_ratio"),
    ],
)
def test_spaces_are_checked(text: str, message: str, tmp_path: Path, capsys) -> None:
    space = tmp_path / "own.yml"
    space.write_text(text)
    assert main(words(tmp_path, "--space", str(space))) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not list(tmp_path.rglob("*.db"))


def test_another_space_is_another_study_and_mappings_are_choices(tmp_path: Path, capsys, recwarn) -> None:
    space = tmp_path / "own.yml"
    space.write_text("policy_kwargs: [{units: 8}]\nhorizon: [5]\n")
    assert main(words(tmp_path, "--space", str(space), "--n-trials", "1")) == 0
    assert "policy_kwargs:{'units': 8}" in shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert not [str(warning.message) for warning in recwarn if "categorical" in str(warning.message)]
    space.write_text("horizon: [5, 6]\n")
    assert main(words(tmp_path, "--space", str(space), "--n-trials", "1")) == 2
    err = capsys.readouterr().err
    assert "searched horizon in [5], not in [5, 6]: pass another --study-name" in err
    space.write_text("horizon: {low: 5, high: 9}\n")
    assert main(words(tmp_path, "--space", str(space), "--n-trials", "1")) == 2
    assert "searched horizon in [5], not in {'low': 5, 'high': 9, 'log': False}: pass" in capsys.readouterr().err
