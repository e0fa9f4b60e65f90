"""The study of DMC proprio: resumable runs, and scores beside published ones."""

import gzip
import json
from pathlib import Path

import pytest

from sb3_dreamer.zoo.studies import dmc_proprio as study

pytest.importorskip("dm_control")


def lines(*episodes: tuple[int, float, int]) -> str:
    return "".join(json.dumps({"frames": f, "return": r, "updates": u}) + "\n" for f, r, u in episodes)


def test_run_is_resumed_and_keeps_its_protocol(tmp_path: Path, capsys) -> None:
    command = ["run", "--task", "cartpole_balance", "--n-envs", "2", "--buffer-size", "4000", "--out", str(tmp_path)]
    command += ["--size", "1m", "--train-ratio", "1"]
    assert study.main([*command, "--frames", "2000"]) == 0
    folder = tmp_path / "cartpole_balance_0"
    first = study.read_episodes(folder / "episodes.jsonl")
    assert [episode["frames"] for episode in first] == [2000, 2000] and all(e["return"] > 0 for e in first)
    assert study.main([*command, "--frames", "4000"]) == 0
    assert "resumes at 1,000 agent steps" in capsys.readouterr().out
    assert [e["frames"] for e in study.read_episodes(folder / "episodes.jsonl")] == [2000, 2000, 4000, 4000]
    with pytest.raises(ValueError, match=r"'train_ratio': 1,.* not .*'train_ratio': 32"):
        study.main([*command, "--train-ratio", "32"])


def test_what_was_trained_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text(lines((4000, 1.0, 10), (8000, 2.0, 20), (12000, 3.0, 30), (8000, 5.0, 21), (12000, 6.0, 31)))
    episodes = study.read_episodes(path)
    assert [episode["return"] for episode in episodes] == [1.0, 2.0, 5.0, 6.0]
    assert study.score_at(episodes, 10_000) == pytest.approx((1 + 2 + 5) / 3)
    assert study.score_at(episodes, 20_000) == 6.0 and study.score_at(episodes, 30_000) is None


def test_scores_stand_beside_the_published_ones(tmp_path: Path, capsys) -> None:
    runs = tmp_path / "runs"
    (runs / "cartpole_balance_3").mkdir(parents=True)
    every = [(frames, frames / 100, frames // 4) for frames in range(4000, 52_000, 4000)]
    (runs / "cartpole_balance_3" / "episodes.jsonl").write_text(lines(*every))
    (runs / "cartpole_balance_3" / "protocol.json").write_text('{"n_envs": 4}')
    xs = [10_000.0 * k for k in range(1, 10)]
    curves = [
        {"task": "dmc_cartpole_balance", "seed": str(seed), "xs": xs, "ys": [seed + x / 100 for x in xs]}
        for seed in (0, 10)
    ]
    scores = tmp_path / "scores.json.gz"
    with gzip.open(scores, "wt") as file:
        json.dump(curves, file)
    picture, result = tmp_path / "a" / "plot.png", tmp_path / "b" / "result.json"
    words = ["--out", str(runs), "--scores", str(scores), "--picture", str(picture), "--json", str(result)]
    assert study.main(["plot", *words]) == 0
    out = capsys.readouterr().out
    assert "| cartpole_balance | 3 | 20,000 | 160 | 205 | 200 to 210 |" in out  # episodes at 12,000, 16,000, 20,000
    assert "| cartpole_balance | 3 | 50,000 | 460 | 505 | 500 to 510 |" in out  # 44,000 and 48,000
    stored = json.loads(result.read_text())
    assert [row["score"] for row in stored["scores"]] == [160, 460]
    assert stored["commands"] == [
        f"python -m {study.__spec__.name} run --task cartpole_balance --seed 3 --size 1m --n-envs 4"
    ]
    assert "torch" in stored["system"]["packages"] and picture.stat().st_size > 5000
    with pytest.raises(ValueError, match="holds no runs"):
        study.main(["plot", *words[2:], "--out", str(tmp_path / "none")])
