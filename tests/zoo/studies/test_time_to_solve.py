"""Time until a task is solved: when a run ends, what its record says, and errors of a program."""

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from sb3_dreamer.zoo.config.errors import RunError
from sb3_dreamer.zoo.studies import time_to_solve as study
from sb3_dreamer.zoo.studies import time_to_solve_drivers as drivers

DRIVER = """
import argparse, json, sys, time
parser = argparse.ArgumentParser()
for name in ("seed", "steps", "threads"):
    parser.add_argument(f"--{name}", type=int)
args = parser.parse_args()
print("a line that is no episode", flush=True)
for episode in range(1, 10_000):
    row = {"step": 100 * episode, "return": 500.0 if episode > 30 else 10.0, "seconds": 2.0 + episode, "first": 2.0}
    print(json.dumps(row | {"updates": episode, "update_seconds": 0.5, "parameters": 7}), flush=True)
time.sleep(600)
"""


def job(**changes) -> Namespace:
    return Namespace(**{"steps": 100_000, "minutes": 1.0, "threads": 1} | changes)


@pytest.fixture
def driver(tmp_path: Path) -> list[str]:
    (tmp_path / "driver.py").write_text(DRIVER)
    return [sys.executable, str(tmp_path / "driver.py")]


def test_a_run_ends_when_the_task_is_solved(driver) -> None:
    begin = time.monotonic()
    run = study.measure(driver, 3, job())
    assert time.monotonic() - begin < 60, "the program, which would sleep, was ended"
    assert run["solved"] and run["seed"] == 3 and run["parameters"] == 7
    # Four episodes of 500 and one of 10 are 402 on average, five are 500.
    assert run["episodes"] == 35 and run["steps"] == 3500 and run["mean_return"] == 500.0
    assert (run["seconds"], run["seconds_from_first_step"]) == (37.0, 35.0)
    assert run["nearly"] == {"step": 3400, "seconds": 36.0}, "four of 500 and one of 10 are 402"


def test_a_run_ends_unsolved_at_its_last_step(driver) -> None:
    run = study.measure(driver, 0, job(steps=3000))
    assert not run["solved"] and run["seconds"] is None and run["nearly"] is None and run["end"]["step"] == 3000
    assert len(run["curve"]["rows"]) == 30


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "raise SystemExit('no such clone')"]
    with pytest.raises(RunError, match="no such clone"):
        study.measure(words, 0, job())


def test_the_median_of_runs_of_which_most_are_not_solved_is_none() -> None:
    runs = [{"seconds": 10.0}, {"seconds": None}, {"seconds": 30.0}]
    assert study.middle(runs, "seconds") == 30.0 and study.middle(runs[:2], "seconds") is None


def test_episodes_are_printed_with_steps_and_times(capfd) -> None:
    env = drivers.make_task()
    env.reset(seed=0)
    done = False
    while not done:
        *_, terminated, truncated, _ = env.step(0)
        done = terminated or truncated
    line = json.loads(capfd.readouterr().out)
    assert line["step"] == line["return"] == env.steps and 0 < line["first"] <= line["seconds"]
    assert list(study.episodes(Namespace(stdout=["text\n", json.dumps(line), "[1]\n"]))) == [line]
