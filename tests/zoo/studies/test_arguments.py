"""What studies refuse is one line, before their work begins."""

import importlib
import sys

import pytest

from sb3_dreamer.zoo.config.errors import RunError, UsageError
from sb3_dreamer.zoo.programs.cli import run_study

WRONG = {
    "dream_policy": ["--out", "nowhere/x.json"],
    "idle_share": ["--out", "nowhere/x.json"],
    "memory_run": ["--plot", "nowhere/x.png"],
    "open_loop_video": ["--gif", "nowhere/x.gif"],
    "planet_budgets": ["run", "--out", "nowhere/x.json"],
    "planet_figures": ["collect", "run", "--out", "nowhere/x.json"],
    "planning_baselines": ["speed", "--out", "nowhere/x.json"],
    "replay_disk_run": ["--out", "nowhere/x.json"],
    "time_to_solve": ["--out", "nowhere/x.json"],
}


@pytest.mark.parametrize(("name", "words"), WRONG.items(), ids=WRONG)
def test_a_file_that_cannot_be_written_is_refused(name: str, words: list[str], tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SystemExit, UsageError)) as refused:
        importlib.import_module(f"sb3_dreamer.zoo.studies.{name}").main(words)
    assert "there is no folder nowhere" in str(refused.value) + capsys.readouterr().err


def test_a_figure_needs_a_file(capsys) -> None:
    from sb3_dreamer.zoo.studies import planet_figures

    with pytest.raises(SystemExit):
        planet_figures.main(["collect", "run"])
    assert "collect writes a file: pass --out FILE" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(UsageError("no such run"), 2), (RunError("it failed"), 1)])
def test_what_a_study_refuses_is_one_line(error: Exception, status: int, monkeypatch, capsys) -> None:
    def study() -> int:
        raise error

    monkeypatch.setattr(sys, "argv", ["zoo/studies/sizes.py"])
    assert run_study(study) == status
    assert capsys.readouterr().err == f"sizes: error: {error}\n"
