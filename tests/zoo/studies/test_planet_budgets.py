"""Searches with equal numbers of dreamed sequences."""

import json
from pathlib import Path

import pytest

from sb3_dreamer import PlaNet
from sb3_dreamer.zoo.studies import planet_budgets


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    PlaNet("MlpPolicy", "Pendulum-v1", model_size="debug", seed=0).save(folder / "model.zip")
    return folder


def test_both_searches_dream_equally_many_sequences(run: Path) -> None:
    model = PlaNet.load(run / "model.zip")
    for budget in (40, 100, 400):
        made = planet_budgets.planners(model, budget)
        assert {planner.iterations * planner.candidates for planner in made.values()} == {budget}  # type: ignore[attr-defined]
        assert made["random_shooting"].elites == 1 < made["cem"].elites  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="budget 39 must be at least 40"):
        planet_budgets.planners(model, 39)


def test_returns_of_every_search_are_written(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(planet_budgets.ENVS, "short", ("Pendulum-v1", {"max_episode_steps": 3}))
    out = tmp_path / "budgets.json"
    assert (
        planet_budgets.main([str(run), "--env", "short", "--budgets", "40", "--episodes", "2", "--out", str(out)]) == 0
    )
    rows = json.loads(out.read_text())["rows"]
    assert [row["search"] for row in rows] == ["cem", "random_shooting"]
    assert all(len(row["returns"]) == 2 and max(row["returns"]) <= 0 for row in rows)
