"""The study of agents that learned in dreams, at its smallest."""

import json
from pathlib import Path

import pytest

from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.studies.dream_policy import main

FEW = ["--algo", "dreamerv3", "--steps", "1", "--dreams", "256", "--episodes", "2", "--seeds", "4", "--device", "cpu"]


def test_it_measures_chance_actor_and_ppo_in_the_real_task(logs: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "returns.json"
    assert main([*FEW, "-f", str(logs), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert list(found["returns"]) == ["random actions", "the model's own actor", "PPO from dreams, seed 4"]
    assert all(len(returns) == 2 and min(returns) >= 8 for returns in found["returns"].values())
    assert found["real_steps"] == 200 and "over 2 real episodes, 2,048 dreamed steps" in capsys.readouterr().out


def test_it_needs_the_replay(logs: Path) -> None:
    run_folder.find(logs, "dreamerv3", "CartPole-v1", 1).replay.unlink()
    with pytest.raises(UsageError, match="no replay buffer: train it with --save-replay-buffer"):
        main([*FEW, "-f", str(logs)])
