"""The studies of variants run, with a table of what their result files hold."""

import json

import pytest

from sb3_dreamer.zoo.studies import variants


@pytest.mark.parametrize("name", variants.STUDIES)
def test_a_study_runs_and_makes_its_table(name, tmp_path, monkeypatch, capsys) -> None:
    study = variants.STUDIES[name]
    short = {"--steps": "60", "--eval-every": "60", "--eval-episodes": "1", "--final-episodes": "1"}
    check = (*study.check, *(word for pair in short.items() for word in pair))  # the last ones count
    params = study.params | {"model_size": "debug", "batch_size": 2, "train_ratio": 8, "learning_starts": 40}
    monkeypatch.setitem(variants.STUDIES, name, study._replace(check=check, params=params, network={}))
    variants.main([name, "--seeds", "5", "--out", str(tmp_path), "--media", str(tmp_path)])
    lines = capsys.readouterr().out.strip().splitlines()[-len(study.variants) :]
    for variant, line in zip(study.variants, lines, strict=True):
        results = json.loads((tmp_path / f"{name}_{variant}.json").read_text())
        assert results["settings"]["params"]["policy_kwargs"] == study.variants[variant].get("policy_kwargs", {})
        run = results["runs"]["5"]
        assert run["updates"] > 0
        won = sum(value >= study.success for _, value in run["episodes"])
        assert line.startswith(f"| {variant} |") and f"| {won} of {len(run['episodes'])} |" in line
    assert (tmp_path / f"{name}.png").exists()
