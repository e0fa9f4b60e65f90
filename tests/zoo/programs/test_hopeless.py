"""A run that this machine cannot do is told so before its first step."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.report import trial_seconds
from sb3_dreamer.zoo.config.plan import Plan
from sb3_dreamer.zoo.programs import tables
from tests.algorithms import VARIANTS, equal, tiny, weights
from tests.spaces_env import SpacesEnv


def plan(steps: int, algo: str = "dreamerv3", **kwargs: Any) -> Plan:
    return Plan(algo=algo, env="x", run_name="x", source="", n_timesteps=steps, seed=0, hyperparams={}, **kwargs)


@pytest.mark.parametrize("algorithm", VARIANTS)
def test_measuring_changes_nothing(algorithm) -> None:
    plain, measured = (tiny(algorithm, "MlpPolicy", "CartPole-v1") for _ in range(2))
    before = weights(measured), th.get_rng_state(), np.random.get_state()[1].copy()
    assert measured.update_seconds() > 0
    assert equal(before[0], weights(measured)) and th.equal(before[1], th.get_rng_state())
    assert np.array_equal(before[2], np.random.get_state()[1]) and measured.replay_buffer.size() == 0
    for model in (plain, measured):
        model.set_random_seed(7)
        model.learn(60)
    assert equal(weights(plain), weights(measured)) and plain._n_updates == measured._n_updates > 0


def test_measuring_with_images_and_categories() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (64, 64, 3), np.uint8),
            "room": spaces.Discrete(4, start=1),
            "speed": spaces.Box(-1.0, 1.0, (2,), np.float32),
        }
    )
    model = tiny(DreamerV3, "MultiInputPolicy", SpacesEnv(space, spaces.MultiDiscrete([3, 2])))
    assert model.update_seconds() > 0


def test_a_hopeless_run(monkeypatch) -> None:
    small = {"deter": 16, "codec_units": (16,), "mlp_units": (16,), "stoch": 4, "classes": 4}
    sized = {"model_size": "S", "policy_kwargs": small}
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", learning_starts=1000, **sized)  # an update every 4 steps
    monkeypatch.setattr(type(model), "update_seconds", lambda self: 10.0)
    [(name, text)] = tables.hopeless_rows(plan(1_001_000), model)
    assert name == "time" and "250,000 updates of 10.0 s take roughly 28.9 days" in text
    assert "model_size:100k" in text and "train_ratio:1)" in text and "-n 36000 takes about a day" in text
    assert "model_size" not in tables.hopeless_rows(plan(1_001_000, trained_agent="run"), model)[0][1]
    by_steps = tiny(
        DreamerV3, "MlpPolicy", "CartPole-v1", learning_starts=1000, gradient_steps=1, train_freq=8, **sized
    )
    [(_, text)] = tables.hopeless_rows(plan(2_001_000), by_steps)
    assert "250,000 updates of 10.0 s" in text and "train_freq:N, a larger N" in text
    model.policy.size_name = "100k"
    assert "model_size" not in tables.hopeless_rows(plan(1_001_000), model)[0][1]


def test_no_word_and_no_measurement_for_other_runs(monkeypatch) -> None:
    for cls, algo in ((DreamerV3, "dreamerv3"), (DreamerV2, "dreamerv2"), (PlaNet, "planet")):
        model = tiny(cls, "MlpPolicy", "CartPole-v1")
        assert tables.hopeless_rows(plan(100_000, algo), _unmeasurable(model)) == []
    fast = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    monkeypatch.setattr(type(fast), "update_seconds", lambda self: 0.01)
    assert tables.hopeless_rows(plan(10_000_000), fast) == []


def _unmeasurable(model: Any) -> Any:
    def fail() -> float:
        raise AssertionError("a small run is not measured")

    model.update_seconds = fail
    return model


@pytest.mark.parametrize(("row_seconds", "most"), [(1e-4, 1.0), (0.05, 4.0), (1.0, 8.0)])
def test_an_update_is_estimated_from_smaller_ones(row_seconds: float, most: float, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("sb3_dreamer.common.report.time.perf_counter", lambda: clock[0])

    def update(rows: Any) -> None:
        clock[0] += row_seconds * rows

    assert trial_seconds(update, lambda batch, length: batch * length, 16, 64) == pytest.approx(row_seconds * 1024)
    assert clock[0] <= most
