"""The table of docs/costs.md: what is in the files of results, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from sb3_dreamer.zoo.config.errors import RunError
from sb3_dreamer.zoo.speed.case import Case
from sb3_dreamer.zoo.studies import costs

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_shows_what_was_measured() -> None:
    cpu, gpu = (costs.read(DOCS / f"results/costs_{device}.json") for device in ("cpu", "cuda"))
    table = costs.table(cpu, gpu)
    assert len(table.splitlines()) > 10 and table in (DOCS / "costs.md").read_text(encoding="utf-8")


def fake(case: Case, measure: Any) -> dict[str, Any]:
    """An update of 0.36 s, a failure for images of DreamerV2."""
    if (case.algo, case.obs) == ("dreamerv2", "images"):
        raise RunError(f"{case.name}: too large")
    gpu = {"vram_mib": 2048.0} if case.device == "cuda" else {}
    named = {"algo": case.algo, "size": case.size, "obs": case.obs}
    times = {"update": {"min": 0.36}, "predict": {"1": {"min": 0.036}}}
    return {"case": named, "batch_size": 16, "batch_length": 64, "parameters": 5e6, "rss_mib": 512.0, **times, **gpu}


def test_every_case_is_written_and_devices_share_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(costs, "run_case", fake)
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n| {costs.HEAD[0]} | old |\n|---|---|\n| x | y |\n\nText | with a bar\n")
    where = ["--results", str(tmp_path), "--page", str(page)]
    assert costs.main(where) == 1  # one algorithm failed
    assert "Failed: dreamerv2 XXS images: too large" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "costs_cpu.json").read_text())["results"]) == 16
    assert costs.main([*where, "--device", "cuda"]) == 1
    out = capsys.readouterr().out
    assert page.read_text() == f"# Page\n\n{out}\nText | with a bar\n"
    rows = out.splitlines()[2:]
    both = (
        "| dreamerv3 XXS | vectors | 5 M | 0.36 s | 2.8 | 0.5 GiB | 6 h | 360 ms | 2.0 GiB |"  # (0.18 + 0.036) s a step
    )
    assert both in rows
    assert "| dreamerv3 XL | images | 5 M |  |  |  |  | 360 ms | 2.0 GiB |" in rows
    assert costs.main([*where, "--tables"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == rows
