"""Files of every released format version are read, and go on."""

from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

import sb3_dreamer
from sb3_dreamer.common.files.model_file import FORMAT_VERSION
from sb3_dreamer.core.planner import CEMPlanner

ROOT = Path(__file__).parent / "fixtures"
FOLDERS = sorted(path for path in ROOT.glob("v*/*") if path.is_dir())


def test_there_are_fixtures_of_every_version() -> None:
    versions = {path.parent.name for path in FOLDERS}
    assert versions == {f"v{number}" for number in range(1, FORMAT_VERSION + 1)}, (
        "a new format version needs fixtures: python -m tests.fixtures.make"
    )
    assert {path.name for path in FOLDERS} >= {"DreamerV3"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_files_of_earlier_versions(folder, tmp_path, monkeypatch) -> None:
    # The stored actions were planned from these candidates; those of today depend on the last bits of the state.
    fixed = lambda planner, state: [th.Generator().manual_seed(planner.seed) for _ in state.deter]  # noqa: E731
    monkeypatch.setattr(CEMPlanner, "_streams", fixed)
    algorithm, env = getattr(sb3_dreamer, folder.name), make_vec_env("Pendulum-v1", 1, seed=0)
    model = algorithm.load(folder / "model.zip", env=env)
    with np.load(folder / "expected.npz") as expected:
        actions = model.predict(expected["observations"], deterministic=True)[0]
        np.testing.assert_allclose(actions, expected["actions"], rtol=1e-3, atol=1e-4)
        assert model.num_timesteps == int(expected["steps"])
    model.load_replay_buffer(folder / "replay.safetensors")
    assert model.replay_buffer.size() > 0
    model.learn(3, reset_num_timesteps=False)
    resumed = algorithm.load_checkpoint(folder / "checkpoints", env=env)
    assert resumed.replay_buffer.size() > 0
    resumed.learn(3, reset_num_timesteps=False)
    assert resumed.num_timesteps == model.num_timesteps
