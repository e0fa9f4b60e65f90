"""The agents that come with the package, and what is refused of those from strangers."""

import ast
import fnmatch
import json
import re
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest

from sb3_dreamer.zoo.config.algorithms import ALGORITHMS
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.yaml_files import write_yaml
from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.runs import run_folder, sharing
from sb3_dreamer.zoo.runs.agents import SHIPPED, find_run
from sb3_dreamer.zoo.runs.run_folder import RunFolder
from sb3_dreamer.zoo.studies.agents import RECIPES

ROOT = Path(__file__).resolve().parents[3]
RUNS = [(algo, run) for algo in ALGORITHMS for run in run_folder.all_runs(SHIPPED, algo)]


def test_there_is_an_agent_for_every_recipe() -> None:
    assert {f"{algo}/{run.name}" for algo, run in RUNS} == {recipe.name for recipe in RECIPES}


@pytest.mark.parametrize(("algo", "run"), RUNS, ids=[f"{algo}/{run.name}" for algo, run in RUNS])
def test_a_shipped_agent_is_small_whole_and_says_where_it_is_from(algo: str, run: RunFolder) -> None:
    assert {path for path in run.path.rglob("*") if path.is_file()} == set(sharing.files(run).values())
    names = zipfile.ZipFile(run.model).namelist()
    assert "policy.safetensors" in names and not [name for name in names if "optim" in name or "replay" in name]
    assert run.model.stat().st_size < 1_000_000
    scores, config = sharing.read_scores(run), run_folder.read_config(run)
    assert scores["n"] >= 100 and scores["evaluation_seed"] not in (config["seed"], config["seed"] + 100_000)
    assert scores["mean"] == pytest.approx(sum(scores["returns"]) / scores["n"])
    assert config["algo"] == algo and f"--algo {algo} --env {run.name}" in run.command.read_text()
    texts = [path.read_text() for path in run.path.rglob("*") if path.suffix in (".yml", ".json", ".txt")]
    assert not any("/home/" in text or "/root" in text or "/tmp" in text or "/work" in text for text in texts)


@pytest.mark.parametrize("flag", ["-f '/home/me/my runs'", "--log-folder=/home/me/runs", "--log-folder runs"])
def test_a_shared_command_has_no_folder(flag: str) -> None:
    command = "sb3-dreamer train --env CartPole-v1{} -n 200 --eval-freq -1 -params batch_size:8 gamma:-1 --seed 0"
    assert sharing.without_folder(command.format(f" {flag}")) == command.format("")
    assert sharing.without_folder(command.format("")) == command.format("")


def test_the_agents_are_installed() -> None:
    """Every file of an agent matches a pattern of the package data."""
    line = re.search(r'^"sb3_dreamer.zoo" = (\[.*\])$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    patterns = ast.literal_eval(line[1])
    inside = [path.relative_to(ROOT / "zoo") for _, run in RUNS for path in sharing.files(run).values()]
    for path in inside:
        fits = [p for p in patterns if p.count("/") == len(path.parts) - 1 and fnmatch.fnmatch(path.as_posix(), p)]
        assert fits, path


def test_an_agent_is_shown_where_there_is_no_run(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["enjoy", "--no-render", "--env", "MountainCar-v0", "--n-episodes", "3", "--load-best"]) == 0
    out = capsys.readouterr().out
    assert out.count("No run of your own in logs: this dreamerv3 agent comes with sb3-dreamer (mean return") == 1
    assert float(re.search(r"Mean return (-[\d.]+)", out)[1]) > -150  # random actions: -200
    assert main(["enjoy", "--no-render", "-f", "logs"]) == 2
    assert "there is no run of 'CartPole-v1' in logs" in capsys.readouterr().err
    assert main(["enjoy", "--no-render", "--exp-id", "1"]) == 2
    assert main(["enjoy", "--no-render", "--env", "CartPol-v1"]) == 2
    assert "did you mean 'CartPole-v1'" in capsys.readouterr().err
    capsys.readouterr()
    own = RunFolder(tmp_path / "logs/dreamerv2/CartPole-v1_1", "CartPole-v1")
    own.write_config({"env": "CartPole-v1"})
    args = Namespace(algo=None, env="CartPole-v1", folder=None, exp_id=0)
    assert find_run(args).path == Path("logs/dreamerv2/CartPole-v1_1")  # A run of one's own comes first.
    assert capsys.readouterr().out == ""


def test_nothing_is_written_into_the_package(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["record_video", "-n", "2", "--gif"]) == 0
    (video,) = (tmp_path / "videos").glob("CartPole-v1-*.gif")
    assert f"Video: {video.relative_to(tmp_path)}" in capsys.readouterr().out


def test_list_shows_the_agents(capsys) -> None:
    assert main(["list", "--agents"]) == 0
    out = capsys.readouterr().out
    for algo, run in RUNS:
        scores = sharing.read_scores(run)
        row = next(line for line in out.splitlines() if algo in line and run.name in line)
        assert f"{scores['mean']:.1f} +- {scores['std']:.1f}" in row and str(scores["n"]) in row and "kB" in row


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"env": "antigravity:CartPole-v1"}, "names 'antigravity', which would be imported: pass --gym-packages anti"),
        ({"env_wrapper": "os.system"}, "names 'os.system', which would be imported"),
        ({"env_wrapper": [{"turtle.Wrapper": {}}]}, "names 'turtle.Wrapper', which would be imported"),
        ({"env_wrapper": [{"gymnasium.wrappers.RecordVideo": {"video_folder": "/"}}]}, "which writes files"),
        ({"env_wrapper": ["sb3_dreamer.wrappers.EpisodeRecorder"]}, "which writes files"),
        ({"hyperparams": {"replay_buffer_kwargs": {"replay_dir": "/"}}}, "the folder '/' to write replay to"),
    ],
)
def test_hostile_settings_are_refused(config: dict, message: str, tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yml", {"env": "CartPole-v1", **config})
    with pytest.raises(UsageError, match=message) as refused:
        sharing.check_config(tmp_path / "config.yml")
    assert "\n" not in str(refused.value)


def test_settings_of_ours_and_trusted_packages_are_taken(tmp_path: Path) -> None:
    for _, run in RUNS:
        sharing.check_config(run.config)
    write_yaml(tmp_path / "config.yml", {"env": "mine:Task-v0", "env_wrapper": "mine.wrappers.Scale"})
    sharing.check_config(tmp_path / "config.yml", ["mine"])
    write_yaml(tmp_path / "config.yml", {"env": "atari:pong"})
    sharing.check_config(tmp_path / "config.yml")


def test_scores_that_are_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "CartPole-v1")
    for text in ("", "[]", "{}", json.dumps({"mean": "x", "std": 1.0, "returns": []})):
        run.scores.write_text(text)
        with pytest.raises(UsageError, match="holds no scores"):
            sharing.read_scores(run)


def test_the_gallery_has_every_agent_with_its_score_and_command() -> None:
    page = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    for algo, run in RUNS:
        scores = sharing.read_scores(run)
        gif = f"media/gallery/{algo}/{run.name}-{scores['trained_steps']}-steps-seed0.gif"
        assert gif in page and (ROOT / "docs" / gif).stat().st_size <= 150_000
        section = page.partition(gif)[2].partition("\n## ")[0]
        assert f"| {scores['mean']:.1f} ± {scores['std']:.1f};" in section
        assert f"| {scores['trained_steps']:,} |" in section and run.command.read_text().strip() in section
