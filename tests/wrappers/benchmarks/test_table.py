"""The table of suites is complete and the one in docs/ is current; suites are measured."""

import re
from pathlib import Path

from sb3_dreamer.wrappers import PRESETS, suite_table
from sb3_dreamer.wrappers.benchmarks import table

DOCS = Path(__file__).parents[3] / "docs" / "suites.md"


def test_every_preset_has_a_row_and_every_task_a_place():
    table = suite_table(tasks=True)
    for suite, presets in PRESETS.items():
        for preset in presets:
            assert sum(line.startswith(f"| {suite} ") and f"| {preset} " in line for line in table.splitlines()) == 1
    assert "kung_fu_master" in table and "umbrella_length" in table and "walker_walk" in table
    assert "kung_fu_master" not in suite_table()


def test_the_documented_table_is_the_printed_one(run_script):
    assert suite_table() in DOCS.read_text(encoding="utf-8")
    done = run_script(
        "import runpy, sys; sys.argv = ['x']; runpy.run_module('sb3_dreamer.wrappers', run_name='__main__')"
    )
    assert done.stdout.strip() == suite_table(), done.stderr


def test_a_random_episode_is_measured(monkeypatch):
    done = table.measure("CartPole-v1", max_steps=500)
    assert done.constructs == "yes" and done.frames_per_second > 0
    assert re.fullmatch(r"(\d+) steps, return \1\.0, terminated", done.episode)
    assert table.measure("CartPole-v1", max_steps=2).episode == "2 steps, return 2.0, cut"
    nothing = table.measure("Nothing-v0")
    assert nothing.constructs.startswith("NameNotFound: ") and nothing.episode == "-"
    monkeypatch.setattr(table, "EXAMPLES", ("CartPole-v1", "dmlab:rooms_watermaze"))
    lines = table.measure_table().splitlines()
    assert len(lines) == 4 and "| not installed | - | - |" in lines[3]
