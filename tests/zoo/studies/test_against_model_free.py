"""World models beside model-free agents: commands, scores at equal environment steps, picture and file."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from sb3_dreamer.zoo.studies import against_model_free as study


def write_run(run: study.Run, returns: list[float], frames: bool) -> None:
    folder = run.folder / run.agent / "Task_1"
    folder.mkdir(parents=True)
    head = "r,l,t" + (",timesteps,frames,env" if frames else "")
    rows = [f"{r},1000,{60 * i}" + (f",{500 * i},{1000 * i},0" if frames else "") for i, r in enumerate(returns, 1)]
    (folder / "0.monitor.csv").write_text("\n".join(['#{"t_start": 0.0, "env_id": "Task"}', head, *rows]) + "\n")
    (run.folder / "done").write_text('{"clock": [0, 600, 1800, 3000], "processor": [0, 600, 600, 1200]}')


def test_commands_train_agents_with_settings_for_the_task(tmp_path: Path, capsys) -> None:
    pytest.importorskip("rl_zoo3")
    words = ["run", "--dry-run", "--seeds", "3", "--tasks", "Pendulum-v1", "PixelCatch", "--out", str(tmp_path)]
    assert study.main([*words, "--steps", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    agents = [(line.partition("--env ")[2].split()[0], line.partition("--algo ")[2].split()[0]) for line in lines]
    pendulum = ["dreamerv3", "dreamerv2", "planet", "sac", "ppo", "ppo_lstm"]
    assert agents[:6] == [("Pendulum-v1", agent) for agent in pendulum] and ("PixelCatch-v0", "dqn") in agents
    assert all("--seed 3" in line and "-n 50" in line and "--eval-freq -1" in line for line in lines)
    words = ["run", "--dry-run", "--seeds", "3", "--tasks", "Acrobot-v1", "--agents", "ppo", "dqn"]
    assert study.main([*words, "--out", str(tmp_path)]) == 0
    ppo, dqn = capsys.readouterr().out.splitlines()
    assert "-n 200000" in ppo, "ten times the steps of the comparison, fewer than rl_zoo3's million"
    assert "-n 100000" in dqn, "as many as rl_zoo3's entry says"


def test_tasks_that_need_a_memory_are_made_by_both_programs(tmp_path: Path, capsys) -> None:
    pytest.importorskip("rl_zoo3")
    words = ["run", "--dry-run", "--seeds", "0", "--tasks", "memory", "--agents", "dreamerv3", "dqn", "ppo_lstm"]
    assert study.main([*words, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("--env ")[2] for line in lines if "ppo_lstm" in line] == [
        "CartPoleNoVel-v1",
        "RepeatPrevious-v0 --gym-packages sb3_dreamer.wrappers.benchmarks.repeat_previous",
        "bsuite/memory_len-v0 --gym-packages shimmy --env-kwargs memory_length:10",
    ]
    ours = [line.partition("--env ")[2].split()[0] for line in lines if "dreamerv3" in line]
    assert ours == list(study.MEMORY) and len(lines) == 6, "DQN has no settings for them"
    settings = yaml.safe_load((tmp_path / "ppo_lstm.yml").read_text())
    assert settings["CartPoleNoVel-v1"]["normalize"] and not settings["RepeatPrevious-v0"]["normalize"]


def test_scores_are_compared_at_equal_environment_steps(tmp_path: Path, capsys) -> None:
    for seed in (0, 1):
        ours = study.Run(tmp_path, "CartPole-v1", "dreamerv3", seed)
        theirs = study.Run(tmp_path, "CartPole-v1", "ppo", seed)
        write_run(ours, [22.0] * 10 + [500.0] * 20, frames=True)  # the mark is at 20,000 steps: 20 episodes
        write_run(theirs, [22.0] * (40 + seed), frames=False)
    found = ours.result()
    assert found.score == pytest.approx((10 * 22 + 10 * 500) / 20) and theirs.result().score == pytest.approx(22.0)
    assert found.curve("minutes").x.tolist() == [*map(float, range(1, 11)), *[10.0] * 20], (
        "after ten minutes it was stopped for twenty"
    )
    assert found.reached == [27_000.0, 10.0], "3 of 22 and 17 of 500 are 428; 0.8 of the way from 22 to 500 are 404"
    assert theirs.result().reached is None
    picture, results = tmp_path / "a" / "b.png", tmp_path / "c" / "d.json"
    words = ["plot", "--out", str(tmp_path), "--picture", str(picture), "--results", str(results)]
    assert study.main(words) == 0
    found = json.loads(results.read_text())
    kept = found["runs"]
    assert found["iqm"]["dreamerv3"]["iqm"] == 0.5 and found["iqm"]["ppo"]["interval"] == [0.0, 0.0]
    assert found["scores"]["CartPole-v1 ppo"] == [22.0, 22.0] and picture.stat().st_size > 5000
    assert (tmp_path / "a" / "b_minutes.png").stat().st_size > 5000
    assert "dreamerv3  IQM 0.50" in capsys.readouterr().out
    shutil.rmtree(ours.folder)  # its curve is in the file
    assert study.main(words) == 0
    again = json.loads(results.read_text())
    assert (again["runs"], again["scores"]) == (kept, found["scores"])
    with pytest.raises(SystemExit, match="no finished run"):
        study.main(["plot", "--out", str(tmp_path / "none"), "--results", str(tmp_path / "none.json")])


def test_a_run_ends_when_its_time_is_up_and_is_kept_unless_it_failed(tmp_path: Path, monkeypatch, capsys) -> None:
    programs = {"ppo": "print('begun', flush=True); [None for _ in iter(int, 1)]", "dqn": "raise SystemExit(3)"}
    monkeypatch.setattr(study.Run, "command", lambda self, steps: [sys.executable, "-c", programs[self.agent]])
    words = ["run", "--tasks", "CartPole-v1", "--agents", "ppo", "dqn", "--seeds", "0", "--out", str(tmp_path)]
    assert study.main([*words, "--minutes", "0.02"]) == 1, "one has failed"
    assert study.Run(tmp_path, "CartPole-v1", "ppo", 0).done and not study.Run(tmp_path, "CartPole-v1", "dqn", 0).done
    times = json.loads((tmp_path / "CartPole-v1-ppo-seed0" / "done").read_text())
    assert times["processor"] == sorted(times["processor"]) and len(times["processor"]) == len(times["clock"])
    assert 1.2 <= times["processor"][-1] < 6, "it was ended by the processor's time, soon after"
    assert (tmp_path / "CartPole-v1-ppo-seed0" / "log.txt").read_text() == "begun\n"
    assert set(capsys.readouterr().out.splitlines()) == {
        "finished CartPole-v1-ppo-seed0",
        "failed   CartPole-v1-dqn-seed0",
    }


def test_ticks_are_short() -> None:
    assert [study.short(x) for x in (0.1, 1.0, 100.0, 1e3, 2e4, 1e6)] == ["0.1", "1", "100", "1k", "20k", "1M"]
