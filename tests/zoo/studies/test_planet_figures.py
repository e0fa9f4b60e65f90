"""PlaNet's figures, drawn again from the results in the repository."""

import json
from pathlib import Path

from sb3_dreamer.zoo.studies.planet_figures import collect, main, read_records

RESULTS = Path(__file__).resolve().parents[3] / "docs/results"


def test_curves_are_drawn_from_results(tmp_path: Path) -> None:
    stored, out = RESULTS / "planet_pendulum_slow.json", tmp_path / "curves.png"
    main(["curves", str(stored), "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert json.loads(collect([stored])) == read_records([stored]) == json.loads(stored.read_text())
