"""Atari aggregates: the published table from per-game figures, IQM and intervals against independent computations."""

import json
from pathlib import Path

import numpy as np
import pytest

from sb3_dreamer.zoo.runs import scores as module
from sb3_dreamer.zoo.runs.scores import (
    atari_metrics,
    atari_references,
    bootstrap_interval,
    canonical_game,
    iqm,
    main,
    normalized_scores,
)

AGENTS_FILE = Path(__file__).with_name("atari_agents.json")
AGENTS = json.loads(AGENTS_FILE.read_text(encoding="utf-8"))["agents"]

# DreamerV2 (arXiv 2010.02193), Table 1: gamer median, gamer mean, record mean, clipped record mean.
TABLE_1 = {
    "iqn": (1.29, 11.27, 0.21, 0.21),
    "rainbow": (1.47, 9.95, 0.17, 0.17),
    "c51": (1.09, 8.25, 0.15, 0.15),
    "dqn": (0.65, 3.28, 0.12, 0.12),
}


@pytest.mark.parametrize("agent", TABLE_1)
def test_table_1_of_dreamer_v2(agent):
    metrics = atari_metrics(AGENTS[agent])
    assert tuple(round(value, 2) for value in metrics[:4]) == TABLE_1[agent]
    assert metrics.games == 55


def test_data_file_covers_the_55_games_with_a_source():
    content = json.loads(module.DATA.read_text(encoding="utf-8"))
    assert content["source"].startswith("https://")
    assert set(content["fields"]) == {"random", "gamer", "record"}
    references = atari_references()
    assert len(references) == 55
    assert not {"defender", "surround"} & set(references)
    assert all(row.gamer > row.random and row.record > row.random for row in references.values())


def test_reference_policies_score_zero_and_one():
    references = atari_references()
    assert atari_metrics({game: row.random for game, row in references.items()})[:4] == (0.0, 0.0, 0.0, 0.0)
    gamers = atari_metrics({game: row.gamer for game, row in references.items()})
    assert (gamers.gamer_median, gamers.gamer_mean) == (1.0, 1.0)
    records = atari_metrics({game: row.record for game, row in references.items()})
    assert (records.record_mean, records.clipped_record_mean) == (1.0, 1.0)


def test_clipping_acts_from_above_only():
    pong, boxing = atari_references()["pong"], atari_references()["boxing"]
    twice = pong.random + 2 * (pong.record - pong.random)
    below = boxing.random - (boxing.record - boxing.random)
    metrics = atari_metrics({"pong": twice, "boxing": below}, partial=True)
    assert metrics.record_mean == pytest.approx((2.0 - 1.0) / 2)
    assert metrics.clipped_record_mean == pytest.approx((1.0 - 1.0) / 2)


def test_seeds_are_averaged_within_a_game_before_the_median_and_the_clip():
    row = atari_references()["pong"]
    halves = [row.random, row.random + 3 * (row.record - row.random)]  # 0 and 3 in record units: mean 1.5, clipped 1
    assert atari_metrics({"pong": halves}, partial=True).clipped_record_mean == pytest.approx(1.0)
    assert normalized_scores({"pong": halves}, "record")["pong"] == pytest.approx([0.0, 3.0])


@pytest.mark.parametrize(
    ("name", "game"),
    [
        ("pong", "pong"),
        ("atari_montezuma_revenge", "montezuma_revenge"),
        ("atari:up_n_down", "up_n_down"),
        ("ALE/MontezumaRevenge-v5", "montezuma_revenge"),
        ("ALE/Jamesbond-v5", "james_bond"),
        ("YarsRevengeNoFrameskip-v4", "yars_revenge"),
        ("QbertDeterministic-v4", "qbert"),
    ],
)
def test_spellings_of_games(name, game):
    assert canonical_game(name) == game


def test_every_game_is_found_by_its_gymnasium_id():
    for game in atari_references():
        assert canonical_game("ALE/" + "".join(word.capitalize() for word in game.split("_")) + "-v5") == game


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="unknown Atari game 'pnog': did you mean 'pong'"):
        atari_metrics({"pnog": 1.0}, partial=True)
    with pytest.raises(ValueError, match=r"54 of the 55 games are missing: alien, .*partial=True"):
        atari_metrics({"pong": 1.0})
    with pytest.raises(ValueError, match="'pong' is given twice"):
        atari_metrics({"pong": 1.0, "ALE/Pong-v5": 2.0}, partial=True)
    for bad in (float("nan"), [], [[1.0]]):
        with pytest.raises(ValueError, match="one finite number per seed"):
            atari_metrics({"pong": bad}, partial=True)
    with pytest.raises(ValueError, match="'gamer' or 'record', got 'human'"):
        normalized_scores({"pong": 1.0}, "human")


def test_iqm_cuts_a_quarter_at_each_end():
    assert iqm(np.array([[100.0, 1.0, 2.0, -50.0]])) == pytest.approx(1.5)
    assert iqm(np.arange(12.0).reshape(3, 4)) == pytest.approx(np.arange(3.0, 9.0).mean())
    assert iqm(np.array([[5.0, 7.0, 900.0]])) == pytest.approx((5.0 + 7.0 + 900.0) / 3)  # fewer than 4: nothing to cut


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """200 sets of 8 runs on 12 tasks with a known IQM: a 90% interval holds it in 80% to 97% of them."""
    rng = np.random.default_rng(0)
    level = np.linspace(0.0, 2.0, 12)
    truth = iqm(level + rng.normal(0.0, 0.3, size=(20_000, 12)))
    hits = 0
    for seed in range(200):
        matrix = level + rng.normal(0.0, 0.3, size=(8, 12))
        low, high = bootstrap_interval(matrix, iqm, reps=300, confidence=0.9, seed=seed)
        assert low <= iqm(matrix) <= high
        hits += low <= truth <= high
    assert 160 <= hits <= 194


def test_bootstrap_is_stratified_by_task():
    """Tasks that never vary across runs leave no uncertainty, however far apart they lie."""
    matrix = np.tile([0.0, 10.0, 200.0, 3.0], (5, 1))
    assert bootstrap_interval(matrix, iqm, reps=100) == (6.5, 6.5)


def test_interval_is_reproducible_and_checks_its_arguments():
    matrix = np.random.default_rng(1).normal(size=(4, 9))
    assert bootstrap_interval(matrix, iqm, reps=50) == bootstrap_interval(matrix, iqm, reps=50)
    with pytest.raises(ValueError, match="at least 2 runs, got shape"):
        bootstrap_interval(matrix[:1])


def test_bootstrap_agrees_with_rliable():
    try:
        from rliable import library, metrics
    except (ImportError, TypeError):  # TypeError: arch < 8, which rliable 1.2 pins, fails so at import with pandas 3
        pytest.skip("rliable does not import here")

    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(5, 26)) + np.linspace(0, 4, 26)
    assert iqm(matrix) == pytest.approx(metrics.aggregate_iqm(matrix))
    _, bounds = library.get_interval_estimates(
        {"agent": matrix},
        lambda x: np.array([metrics.aggregate_iqm(x)]),
        reps=5000,
        random_state=np.random.RandomState(0),
    )
    low, high = bounds["agent"][:, 0]
    assert bootstrap_interval(matrix, iqm, reps=5000) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_command_prints_the_table(capsys, tmp_path):
    main([str(AGENTS_FILE)])
    lines = {line.split()[0]: line.split()[1:5] for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines == {agent: [f"{value:.2f}" for value in row] for agent, row in TABLE_1.items()}

    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"mine": {"pong": [20.0, 19.0, 18.0], "boxing": [90.0, 80.0, 99.0]}}))
    main([str(file), "--partial"])
    assert "[" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(file)])
    assert "53 of the 55 games are missing" in capsys.readouterr().err
