"""Files of every released format version are read, and go on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

import sb3_dreamer
from sb3_dreamer.common.files.array_file import read_arrays
from sb3_dreamer.common.files.model_file import FORMAT_VERSION
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.planner import CEMPlanner

ROOT = Path(__file__).parent / "fixtures"
FOLDERS = sorted(path.parent for path in ROOT.glob("v*/*/model.zip"))


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


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_replay_of_two_environments_of_version_1(kind, tmp_path) -> None:
    """Version 1 kept the rows of all environments in one array, and a journal without checksum."""
    folder, space = ROOT / "v1" / "two_environments", spaces.Box(-8, 8, (3,), np.float32)
    disk = {"replay_dir": tmp_path / "replay", "spare_rows": 8} if kind == "disk" else {}
    replay = SequenceReplayBuffer(40, space, spaces.Box(-2, 2, (1,), np.float32), "cpu", 2, **disk)
    if kind == "disk":
        shutil.copytree(folder / "replay_dir", tmp_path / "replay")
        assert replay.attach() == 0
    else:
        replay.from_arrays(*read_arrays(folder / "replay.safetensors"))
    assert replay.filled.tolist() == [20, 20]
    rows = (replay.cursor - 20)[:, None] + np.arange(20)
    batch = replay.gather(np.arange(2), rows % replay.ring)
    assert float(batch.reward.double().sum()) == pytest.approx(-223.164856, abs=1e-4)
