"""What ``tune`` leaves behind: the study as a file, and when a trial may be stopped early."""

import json
from argparse import Namespace
from pathlib import Path

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
