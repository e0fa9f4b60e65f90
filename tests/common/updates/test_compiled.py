"""Updates with compiled steps: equal to those without, and left alone where it cannot be."""

import copy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch as th
import torch._dynamo.utils as dynamo_utils

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.updates import compiled
from sb3_dreamer.common.updates.compiled import CompiledSteps
from sb3_dreamer.core.functional import repeated, run_steps_by
from sb3_dreamer.zoo.speed.case import Case, build
from tests.algorithms import tiny, weights

CASES = {
    "dreamerv3": Case("dreamerv3", "debug", batch_size=2, batch_length=5),
    "dreamerv3-2024": Case("dreamerv3", "debug2024", action="discrete", batch_size=2, batch_length=5),
    "dreamerv2": Case("dreamerv2", "debug", batch_size=2, batch_length=5),
    "planet": Case("planet", "debug", batch_size=2, batch_length=5),
}
UPDATES = 3


def make(name: str, backend: str | None) -> Any:
    model = build(CASES[name])
    if backend is not None:
        model._compiled = CompiledSteps(backend)
    return model


def train(model: Any, updates: int = UPDATES) -> list[dict[str, float]]:
    th.manual_seed(0)
    draw = model.replay_buffer.sample_sequences
    return [
        {name: float(value) for name, value in model.update(draw(model.batch_size, model.batch_length)).items()}
        for _ in range(updates)
    ]


def graphs() -> int:
    return int(dynamo_utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    ("name", "backend", "tolerance"),
    [
        ("dreamerv3-2024", "eager", 1e-6),
        ("dreamerv3", "eager", 1e-6),
        ("dreamerv2", "eager", 1e-6),
        ("planet", "eager", 1e-6),
        *(pytest.param(name, "inductor", 1e-4, marks=pytest.mark.slow) for name in CASES),
    ],
)
def test_compiled_steps_give_the_same_weights_metrics_and_random_numbers(
    name: str, backend: str, tolerance: float
) -> None:
    plain, other, before = make(name, None), make(name, backend), graphs()
    expected, state = train(plain), th.get_rng_state()
    found = train(other)
    assert graphs() > before and other._compiled.possible
    assert th.equal(th.get_rng_state(), state)
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=100 * tolerance, abs=100 * tolerance)
    for key, value in weights(plain).items():
        np.testing.assert_allclose(weights(other)[key], value, rtol=tolerance, atol=tolerance)
    steady = graphs()
    train(other, 1)
    assert graphs() == steady  # nothing is compiled again


def test_a_copy_and_a_loaded_model_go_on(tmp_path: Path) -> None:
    model = make("dreamerv3-2024", "eager")
    train(model, 1)
    other = copy.deepcopy(model)
    one, two = train(model, 1), train(other, 1)
    assert one[0] == pytest.approx(two[0], rel=1e-4, abs=1e-4)
    model.save(tmp_path / "model")
    assert DreamerV3.load(tmp_path / "model")._compiled is None  # it was made with compile=False


def test_without_a_compiler_updates_continue_with_one_warning(monkeypatch) -> None:
    def broken(step: Any, **options: Any) -> Any:
        def fail(*args: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand more")

        return fail

    monkeypatch.setattr(th, "compile", broken)
    plain, model = make("dreamerv3-2024", None), make("dreamerv3-2024", "inductor")
    with pytest.warns(UserWarning, match=r"cannot be compiled \(no C\+\+ compiler\).*compile=False"):
        found = train(model, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found += train(model, 1)
    assert found == train(plain, 1) + train(plain, 1)


def test_an_error_of_a_step_itself_is_raised() -> None:
    @repeated
    def step(x: th.Tensor) -> th.Tensor:
        return x @ x

    with (
        run_steps_by(CompiledSteps("eager")),
        pytest.warns(UserWarning, match="cannot be compiled"),
        pytest.raises(RuntimeError, match="mat1 and mat2"),
    ):
        step(th.zeros(2, 3))


def test_steps_run_as_they_are_outside() -> None:
    calls = []

    @repeated
    def step(x: int) -> int:
        return x + 1

    with run_steps_by(lambda function, *args: calls.append(args) or function(*args)):
        assert step(1) == 2
        with run_steps_by(None):
            assert step(2) == 3
    assert step(3) == 4 and calls == [(1,)]


@pytest.mark.parametrize("value", ["on", 1, None])
def test_unknown_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=f"compile={value!r} is unknown: use False, True or 'auto'"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", compile=value)


@pytest.mark.parametrize(("updates", "pays"), [(compiled.PAYS_FROM - 1, False), (compiled.PAYS_FROM, True)])
def test_auto_compiles_long_runs(updates: int, pays: bool) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", compile="auto")
    assert model._compiled is None
    model._prepare_compiling(updates)
    assert (model._compiled is not None) == pays


def test_a_graph_of_uncompiled_steps_is_captured_anew() -> None:
    model, forgotten = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", compile="auto"), []
    model._graphed = SimpleNamespace(forget=lambda: forgotten.append(True))
    for updates in (1, compiled.PAYS_FROM, compiled.PAYS_FROM):
        model._prepare_compiling(updates)
    assert forgotten == [True]


@pytest.mark.parametrize("value", [True, "auto"])
def test_it_is_announced_and_stored(value: Any, tmp_path: Path, capsys) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", compile=value, verbose=1)
    (row,) = [text for name, text in model.describe() if name == "compile"]
    assert "minute" in row and ("updates or more" in row) == (value == "auto")
    model._prepare_compiling(compiled.PAYS_FROM)
    assert "The first update compiles its steps" in capsys.readouterr().out
    model.save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model")
    assert loaded.compile == value and (loaded._compiled is not None) == (value is True)
