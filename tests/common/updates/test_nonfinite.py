"""Updates that are not finite end the run of every algorithm, and the report says what is left of the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_dreamer import DreamerV3, PlaNet
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.common.resume.folder import checkpoints
from sb3_dreamer.common.updates.nonfinite import NonFiniteError
from tests.algorithms import VARIANTS, tiny, weights


def poison(model: Any, from_update: int) -> None:
    """Put one NaN into the rewards of all batches from an update on."""
    original, drawn = model.replay_buffer.sample_sequences, [0]

    def sample(*args: int) -> Any:
        batch = original(*args)
        drawn[0] += 1
        if drawn[0] >= from_update:
            batch.reward[0, 2] = float("nan")
        return batch

    model.replay_buffer.sample_sequences = sample


@pytest.mark.parametrize("algorithm", VARIANTS)
def test_several_in_a_row_end_the_run(algorithm, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1")
    poison(model, from_update=4)
    with pytest.raises(NonFiniteError, match=r"3 updates in a row were not finite .*: batch reward") as stop:
        model.learn(400)
    assert model._n_updates == 6, "three good ones, three skipped"
    assert "model.zip, whose weights are those after their last good update" in str(stop.value)
    loaded = algorithm.load(stop.value.folder / "model.zip")
    assert all(np.isfinite(value).all() for value in weights(loaded).values())


@pytest.mark.parametrize("algorithm", VARIANTS)
def test_a_finite_update_that_was_too_large(algorithm, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny(algorithm, "MlpPolicy", "CartPole-v1", learning_rate=1e300)
    with pytest.raises(NonFiniteError, match=r"the model is lost: weight .* others hold NaN or infinity") as stop:
        model.learn(400)
    broken = [name for name, value in weights(model).items() if not np.isfinite(value).all()]
    assert f"weight {broken[0]} and {len(broken) - 1} others" in str(stop.value)
    assert str(stop.value).endswith("Lower the learning rate, and start again")
    assert sorted(path.name for path in stop.value.folder.iterdir()) == ["batch.npz", "report.txt"]
    assert "the model is lost" in (stop.value.folder / "report.txt").read_text()


def test_the_newest_checkpoint_is_named_and_can_be_loaded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny(PlaNet, "MlpPolicy", "CartPole-v1", max_skipped_updates=20)
    model.learn(100, callback=ResumableCheckpoint(tmp_path / "run", 40, keep=1))
    [good] = checkpoints(tmp_path / "run")
    model.lr_schedules["model_optim"] = lambda progress: 1e300
    with (
        pytest.warns(UserWarning, match=r"no checkpoint at step .*: weight .* NaN or infinity"),
        pytest.raises(NonFiniteError) as stop,
    ):
        checkpoint = ResumableCheckpoint(tmp_path / "run", 40, keep=1)
        model.learn(600, callback=checkpoint, reset_num_timesteps=False)
    newest = checkpoints(tmp_path / "run")[-1]
    assert newest.name >= good.name and f"resume from '{newest}'" in str(stop.value)
    assert PlaNet.load_checkpoint(newest, env=model.env).num_timesteps < model.num_timesteps


def test_the_batch_that_was_skipped_is_reported(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", max_skipped_updates=2, gradient_steps=10, train_freq=8)
    original, drawn = model.replay_buffer.sample_sequences, [0]

    def sample(*args: int) -> Any:
        batch = original(*args)
        drawn[0] += 1
        if drawn[0] in (3, 4):
            batch.reward[0, 2] = float("nan")
        return batch

    model.replay_buffer.sample_sequences = sample
    with pytest.raises(NonFiniteError, match="2 updates in a row") as stop:
        model.learn(400)
    assert drawn[0] == 4, "at once, not after the updates that follow"
    assert np.isnan(np.load(stop.value.folder / "batch.npz")["reward"]).any()
