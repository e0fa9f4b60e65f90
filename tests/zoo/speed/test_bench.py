"""The program ``bench`` on the smallest models, and what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch as th

from sb3_dreamer.dreamer_v3.spec import SIZES_2024
from sb3_dreamer.zoo.config.errors import RunError
from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.speed import drivers, learning
from sb3_dreamer.zoo.speed.case import Case, Result, build, run_case
from sb3_dreamer.zoo.speed.floor import count_flops, least_bytes
from sb3_dreamer.zoo.speed.measure import measure
from sb3_dreamer.zoo.speed.rivals import read_rival, run_driver

TINY = ["--batch-size", "2", "--batch-length", "8", "--updates", "2", "--warmup", "1", "--threads", "1"]
WRONG = {
    "program": (["tabel"], "did you mean 'table'"),
    "algorithm": (["--algo", "dreamer3"], "did you mean 'dreamerv3'"),
    "size": (["--algo", "dreamerv3", "--sizes", "XSS"], "did you mean 'XS'"),
    "size of another algorithm": (["--algo", "dreamerv3", "planet", "--sizes", "XL"], "planet has none of the sizes"),
    "observation": (["--obs", "image"], "did you mean 'images'"),
    "action": (["--action", "boxes"], "did you mean 'box'"),
    "part": (["--parts", "flor"], "did you mean 'floor'"),
    "flag": (["--thread", "1"], "did you mean '--threads'"),
    "number": (["--updates", "0"], "must be at least 1"),
    "ratio": (["--train-ratio", "0"], "'0' is not a number above 0"),
    "ratio that is no number": (["--train-ratio", "x"], "'x' is not a number above 0"),
    "results": (["--out", "nowhere/x.json"], "--out 'nowhere/x.json': there is no folder nowhere"),
    "picture": (["scaling", "--plot", "nowhere/x.png"], "--plot 'nowhere/x.png': there is no folder nowhere"),
    "picture without scaling": (["learn", "--plot", "x.png"], "--plot FILE belongs to: sb3-dreamer bench scaling"),
    "two rivals of one name": (["rivals", "--rival", "a=b", "--rival", "a=c"], "two rivals have the same name"),
    "device": (["--device", "gpu"], "--device 'gpu' cannot be used"),
    "hyperparameter": (["--algo", "dreamerv3", "--hyperparams", "horizn:3"], "did you mean 'horizon'"),
    "hyperparameter with a flag": (["--algo", "dreamerv3", "--hyperparams", "batch_size:3"], "use --batch-size"),
    "rivals without rival": (["rivals"], "--rival NAME=COMMAND"),
    "rival without rivals": (["--rival", "a=b"], "--rival NAME=COMMAND"),
    "rival without a name": (["rivals", "--sizes", "debug", "--rival", "python x.py"], "write NAME=COMMAND"),
    "two sizes": (["learn", "--algo", "planet", "--sizes", "debug", "small"], "learn takes one case"),
    "two cases": (["profile", "--obs", "vectors", "images"], "profile takes one case"),
    "two algorithms": (["scaling", "--algo", "planet", "dreamerv2"], "one algorithm"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_one_line(words: list[str], message: str, capsys) -> None:
    assert main(["bench", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and message in captured.err and captured.out == ""


@pytest.mark.skipif(th.cuda.is_available(), reason="there is one")
def test_a_gpu_is_not_measured_on_a_cpu(capsys) -> None:
    assert main(["bench", "gpu"]) == 2
    assert "--device 'cuda' cannot be used" in capsys.readouterr().err


def measured_here(case: Case, measure: Callable[[Case], Result]) -> Result:
    """What ``run_case`` does, in this process and on little replay."""
    return {"case": asdict(case), **json.loads(json.dumps(measure(replace(case, replay_rows=1000))))}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new processes; ``test_table_measures_every_part`` starts one."""
    for module in ("breakdown", "rivals", "scaling"):
        monkeypatch.setattr(f"sb3_dreamer.zoo.speed.{module}.run_case", measured_here)


def test_table_measures_every_part(tmp_path: Path, capsys) -> None:
    out = tmp_path / "speed.json"
    words = ["bench", "--algo", "dreamerv3", "--sizes", "debug", "--obs", "images", "--action", "discrete", *TINY]
    assert main([*words, "--train-ratio", "4", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["command"].startswith("sb3-dreamer bench --algo dreamerv3") and found["threads"] == 1
    assert found["machine"]["ram_gib"] > 0 and "torch" in found["system"]["packages"]
    (result,) = found["results"]
    assert result["threads"] == 1 and (result["batch_size"], result["batch_length"]) == (2, 8)
    assert len(result["update"]["all"]) == 2 and 0 < result["update"]["min"] <= result["update"]["median"]
    assert result["learn"]["updates"] == 4 and result["learn"]["steps"] == 16  # 16 steps · ratio 4 / (2 · 8)
    assert set(result["predict"]) == {"1", "16"} and result["sampling"]["median"] > 0
    assert result["rss_mib"] > result["rss_before_mib"] > 0
    floor = result["floor"]
    assert floor["seconds"] == max(floor["compute_seconds"], floor["memory_seconds"])
    assert floor["compute_seconds"] == pytest.approx(floor["gflop"] / max(floor["gflop_per_second"].values()), rel=1e-4)
    assert 0 < result["floor_fraction"] < 1  # faster than the floor: the floor is wrong
    screen = capsys.readouterr().out
    assert "dreamerv3 debug images discrete" in screen and "of floor" in screen


def test_a_process_that_fails_is_told_by_its_last_line() -> None:
    with pytest.raises(RunError, match=r"^planet debug vectors: .*learning_rate=-1\.0 must be"):
        run_case(Case("planet", "debug", hyperparams={"learning_rate": -1.0}), measure)


def test_a_failing_case_leaves_the_others(tmp_path: Path, monkeypatch, capsys) -> None:
    def planet_fails(case: Case, measure: Callable[[Case], Result]) -> Result:
        if case.algo == "planet":
            raise RunError("it is broken")
        return measured_here(case, measure)

    monkeypatch.setattr("sb3_dreamer.zoo.speed.case.run_case", planet_fails)
    out = tmp_path / "speed.json"
    words = ["--algo", "planet", "dreamerv2", "--sizes", "debug", *TINY, "--parts", "--out", str(out)]
    assert main(["bench", *words]) == 1
    found = json.loads(out.read_text())
    assert found["failures"] == {"planet debug vectors": "it is broken"} and "it is broken" in capsys.readouterr().out
    assert [result["case"]["algo"] for result in found["results"]] == ["dreamerv2"]


def test_profile_names_the_largest_costs(tmp_path: Path, here: None, capsys) -> None:
    out = tmp_path / "profile.json"
    assert main(["bench", "profile", "--sizes", "debug", *TINY, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    (result,) = found["results"]
    assert len(result["operators"]) == 10 and len(found["largest_parts"]) == 3
    names = set(result["parts"])
    assert {"world model: recurrent loop", "dreams", "backward: model", "optimizer: model"} <= names
    assert result["parts"].get("other", 0) < 0.5 * sum(result["parts"].values())
    assert "three largest costs" in capsys.readouterr().out


def test_scaling_writes_numbers_and_a_picture(tmp_path: Path, here: None, monkeypatch) -> None:
    monkeypatch.setattr("sb3_dreamer.zoo.speed.scaling.FACTORS", (0.5, 1.0))
    out, picture = tmp_path / "scaling.json", tmp_path / "scaling.png"
    words = ["scaling", "--algo", "planet", "--sizes", "debug", "--updates", "1", "--warmup", "1", "--threads", "1"]
    size = ["--batch-size", "2", "--batch-length", "4"]
    assert main(["bench", *words, *size, "--out", str(out), "--plot", str(picture)]) == 0
    found = json.loads(out.read_text())["scaling"]
    assert [run["batch_size"] for run in found["batch_size"]] == [1, 2]
    assert [run["batch_length"] for run in found["batch_length"]] == [2, 4]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_rivals_run_in_turns(tmp_path: Path, here: None, capsys) -> None:
    out, log = tmp_path / "rivals.json", tmp_path / "log"
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import json, os; case = json.loads(os.environ['SB3_DREAMER_CASE']); assert case['batch_length'] == 8\n"
        f"open({str(log)!r}, 'a').write(os.environ['OMP_NUM_THREADS'])\n"
        "print('compiling'); print('fast 1m-vectors compiled median 0.50 s min 0.25 s params 3')\n"
    )
    words = ["rivals", "--sizes", "debug", *TINY, "--rounds", "2", "--out", str(out)]
    assert main(["bench", *words, "--rival", f"other={sys.executable} {driver}"]) == 0
    found = json.loads(out.read_text())
    other, ours = found["rivals"]["other"], found["ours"]
    assert log.read_text() == "11" and other["mode"] == "fast 1m-vectors compiled"
    assert other["ratio_min"] == pytest.approx(0.25 / ours["min"], rel=1e-4)
    assert other["versions"]["torch"] == version("torch") and len(ours["runs"]) == 2
    assert "times ours" in capsys.readouterr().out


OURS = {"case": asdict(Case("dreamerv3", "1m")), "device": "cpu", "batch_size": 16, "batch_length": 64}


@pytest.mark.parametrize(
    ("code", "message", "timeout"),
    [
        ("print('hello')", "no line", 60),
        ("raise SystemExit('broken')", "broken", 60),
        ("import time; time.sleep(90)", "after", 1),
    ],
)
def test_driver_that_fails(code: str, message: str, timeout: float) -> None:
    name, words = read_rival(f'other={sys.executable} -c "{code}"')
    with pytest.raises(RunError, match=message):
        run_driver(name, words, OURS, timeout=timeout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sheeprl", "--size", "1m"], "sheeprl has no size '1m': use XS"),
        (["dreamerv3-jax", "nowhere"], "needs the folder of its clone, not 'nowhere'"),
    ],
)
def test_driver_refuses_what_it_cannot_time(words: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, drivers.__file__, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("name", drivers.SIZES)
def test_drivers_time_the_sizes_that_we_time(name: str) -> None:
    spec, size = SIZES_2024[name], drivers.SIZES[name]
    assert size == (spec.deter, spec.units, spec.classes, spec.cnn_depth, spec.stoch, spec.bins, spec.layers)
    assert spec.hidden == size.units


def test_counted_work() -> None:
    layer = th.nn.Linear(8, 4, bias=False)
    data = th.randn(5, 8)
    flops, dtypes = count_flops(lambda: th.autograd.grad(layer(data).sum(), [layer.weight]))
    assert flops == 2 * (2 * 5 * 8 * 4) and dtypes == ["float32"]  # forward, and the gradient of the weight

    model = build(Case("planet", "debug", batch_size=2, batch_length=4, replay_rows=1000))
    model._update(model.replay_buffer.sample_sequences(2, 4))
    size = 4 * sum(p.numel() for p in model.policy.world_model.parameters())
    assert 10 * size <= least_bytes(model) < 10.1 * size  # 6 of parameters and gradients, 2 x 2 of Adam, its counters


@pytest.mark.parametrize(("algo", "ratio"), [("dreamerv3", 0.0), ("dreamerv3", 4.0), ("planet", 0.0)])
def test_learning_is_timed_from_the_first_update_on(algo: str, ratio: float) -> None:
    values = {} if algo == "dreamerv3" else {"planning_candidates": 4, "planning_elites": 2, "planning_iterations": 1}
    case = Case(algo, "debug", batch_size=2, batch_length=8, updates=2, train_ratio=ratio, n_envs=3, hyperparams=values)
    result = learning.measure(replace(case, replay_rows=1000))
    shares = result["shares"]
    assert sum(shares.values()) == pytest.approx(1.0) and result["steps_per_second"] > 0
    assert {"acting", "environments", "storing", "updates"} <= set(shares) and ("sampling" in shares) == (ratio > 0)
    assert result["updates"] == (15 if ratio else 0)  # 20 rounds of 3 environments · ratio 4 / (2 · 8)
    assert (shares["updates"] > 0) == (ratio > 0)


def test_learn_shows_every_ratio_and_number_of_environments(tmp_path: Path, capsys, monkeypatch) -> None:
    shares = {"updates": 0.75, "acting": 0.25}

    def run_case(case: Case, measure: Callable[[Case], Result]) -> Result:
        size = {"batch_size": 2, "batch_length": 8, "device": "cpu"}
        return {"case": asdict(case), "steps_per_second": 1234.5, "shares": shares, **size}

    monkeypatch.setattr("sb3_dreamer.zoo.speed.case.run_case", run_case)
    out = tmp_path / "learn.json"
    assert main(["bench", "learn", "--algo", "dreamerv3", "--sizes", "debug", *TINY, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.count("1,230") == 9 and text.count("75%") == 9
    points = [(r["case"]["train_ratio"], r["case"]["n_envs"]) for r in json.loads(out.read_text())["results"]]
    assert points == [(ratio, n) for ratio in (0, 16, 64) for n in (1, 4, 16)]
