"""Replay on disk: the same rows and samples as in memory, and a journal that survives any moment."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_dreamer import DreamerV3
from sb3_dreamer.common import report
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from tests.algorithms import tiny
from tests.spaces_env import image

SPACE = spaces.Dict({"camera": image(3, 8, 8), "small.view/x": spaces.Box(-1, 1e6, (1,), np.float64)})


def make(size: int = 20, n_envs: int = 2, **kwargs) -> SequenceReplayBuffer:
    # An image of 8x8 pixels is too small to be modeled; here it is a vector of bytes.
    space = spaces.Dict({"camera": spaces.Box(0, 254, (3, 8, 8), np.uint8), "small.view/x": SPACE["small.view/x"]})
    return SequenceReplayBuffer(size * n_envs, space, spaces.Discrete(3), "cpu", n_envs, seed=0, **kwargs)


def fill(replay: SequenceReplayBuffer, steps: int, begin: int = 0) -> None:
    """Environment 1 ends an episode at every third step, so that the rings do not run in step."""
    for t in range(begin, begin + steps):
        obs, after = (
            {
                "camera": np.full((2, 3, 8, 8), value % 250, np.uint8),
                "small.view/x": np.array([[value], [value + 0.5]], np.float64),
            }
            for value in (t, t + 1)
        )
        replay.add(obs, after, np.array([[t % 3], [1]]), np.array([t, -t]), np.array([False, t % 3 == 2]), [{}, {}])


def same_samples(left: SequenceReplayBuffer, right: SequenceReplayBuffer) -> bool:
    ours, theirs = (replay.sample_sequences(5, 4) for replay in (left, right))
    pairs = [*zip(ours[1:], theirs[1:], strict=True), *((ours.obs[key], theirs.obs[key]) for key in ours.obs)]
    return all(th.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("steps", [7, 19, 47, 90])
def test_same_as_in_memory(tmp_path, steps) -> None:
    memory, disk = make(), make(replay_dir=tmp_path / "r", spare_rows=6)
    assert disk.ring == 23 and disk.on_disk and not (tmp_path / "r").exists(), "nothing is made before the first row"
    for replay in (memory, disk):
        fill(replay, steps)
    np.testing.assert_array_equal(memory.filled, disk.filled)
    assert all(same_samples(memory, disk) for _ in range(20))
    assert memory.to_arrays()[1]["random"] == disk.to_arrays()[1]["random"]


@pytest.mark.parametrize("steps", [9, 47])
def test_files_of_one_kind_load_into_the_other(tmp_path, steps) -> None:
    disk = make(replay_dir=tmp_path / "r", spare_rows=6)
    fill(disk, steps)
    memory = make()
    memory.from_arrays(*disk.to_arrays())
    assert all(same_samples(memory, disk) for _ in range(20))
    again = make(replay_dir=tmp_path / "again", spare_rows=10)
    again.from_arrays(*memory.to_arrays())
    assert all(same_samples(memory, again) for _ in range(20))
    for replay in (memory, disk, again):
        fill(replay, 5, steps)
    for replay in (disk, again):
        replay.rng.bit_generator.state = memory.rng.bit_generator.state
        assert all(same_samples(memory, replay) for _ in range(20))


def test_a_crash_between_two_flushes_loses_nothing_of_the_first(tmp_path) -> None:
    """However many rows follow a flush until the next one, those of the flush are still there."""
    twin, disk = make(), make(replay_dir=tmp_path / "r", spare_rows=8)
    for replay in (twin, disk):
        fill(replay, 40)
    disk.flush()
    before = (tmp_path / "r" / "journal.json").read_bytes()
    steps = 0
    while (tmp_path / "r" / "journal.json").read_bytes() == before:
        copy = tmp_path / f"crash_{steps}"
        shutil.copytree(tmp_path / "r", copy)  # what a killed process leaves
        back = make(replay_dir=copy, spare_rows=8)
        assert back.attach() == 0
        rng = twin.rng.bit_generator.state
        assert same_samples(twin, back), steps
        twin.rng.bit_generator.state = rng
        fill(disk, 1, 40 + steps)
        steps += 1
    assert steps >= 3, "the spare rows delay the next flush"
    assert make(replay_dir=tmp_path / "r", spare_rows=8).attach() == 0


def test_a_full_disk_is_an_error_before_a_row_is_written(tmp_path, monkeypatch) -> None:
    """Writing to a mapped file would kill the process."""
    replay = make(2000, replay_dir=tmp_path / "r", spare_rows=6)
    fill(replay, 1000)
    file = (tmp_path / "r" / "rows_00.bin").stat()
    assert file.st_blocks * 512 >= 2 * 1024 * 3 * 8 * 8, "two environments of so many rows"

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    fill(replay, 10, begin=1000)
    with pytest.raises(OSError, match=r"replay_dir='.*r' has no space left for further rows: free some"):
        fill(replay, 20, begin=1010)
    assert replay.filled[0] == 1024 and len(replay.sample_sequences(2, 1024).reward) == 2


def test_an_occupied_folder_is_not_overwritten(tmp_path) -> None:
    fill(make(replay_dir=tmp_path), 5)
    with pytest.raises(FileExistsError, match="earlier run"):
        fill(make(replay_dir=tmp_path), 1)
    with pytest.raises(ModelFileError, match="holds no replay"):
        make(replay_dir=tmp_path / "nothing").attach()
    with pytest.raises(ModelFileError, match="a replay of 2 environments with 40 rows"):
        make(30, replay_dir=tmp_path).attach()
    with pytest.raises(ValueError, match="spare_rows=0"):
        make(replay_dir=tmp_path, spare_rows=0)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"version": None},
        {"cursor": [0]},
        {"cursor": [5, 2**70]},
        {"cursor": [3, 3]},
        {"filled": [-1, 3]},
        {"filled": [900, 900]},
        {"ring": "x"},
        {"ring": 2**40},
        {"random": {}},
        {"random": None},
        {"layout": {}},
        {"rows": 7},
        {"limit": None},
        None,
    ],
    ids=str,
)
def test_a_damaged_journal_is_refused(tmp_path, change) -> None:
    replay = make(replay_dir=tmp_path, spare_rows=6)
    fill(replay, 9)
    replay.flush()
    journal = tmp_path / "journal.json"
    old = json.loads(journal.read_text()) | {"version": 1}  # without checksum
    journal.write_text(json.dumps({name: old[name] for name in old if name != "checksum"}))
    assert make(replay_dir=tmp_path, spare_rows=6).attach() == 0
    journal.write_text(json.dumps(old | change) if change else '{"version": 1')
    with pytest.raises(ModelFileError):
        make(replay_dir=tmp_path, spare_rows=6).attach()


def test_no_flipped_bit_of_a_journal_goes_unnoticed(tmp_path) -> None:
    replay = make(replay_dir=tmp_path, spare_rows=6)
    fill(replay, 9)
    replay.flush()
    whole = (tmp_path / "journal.json").read_bytes()
    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        (tmp_path / "journal.json").write_bytes(raw)
        with pytest.raises(ModelFileError):
            replay.storage.read_journal()


def test_missing_and_cut_files_are_refused(tmp_path) -> None:
    fill(make(replay_dir=tmp_path), 9)
    rows = tmp_path / "rows_00.bin"
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"rows_00\.bin.*has not \d+ bytes"):
        make(replay_dir=tmp_path).attach()


def test_a_model_learns_from_disk(tmp_path, monkeypatch) -> None:
    env = make_vec_env("CartPole-v1", 1, seed=0)
    disk = {"replay_buffer_kwargs": {"replay_dir": str(tmp_path / "replay")}}
    model = tiny(DreamerV3, "MlpPolicy", env, **disk).learn(30)
    size = f"{model.replay_buffer.nbytes / 2**10:,.0f} KiB"
    assert ("replay", f"1,000 steps on disk = {size} when full") in model.describe()
    model.save(tmp_path / "model")
    model.replay_buffer.flush()
    later = DreamerV3.load(tmp_path / "model", env=env, **disk)
    later.load_replay_buffer(tmp_path / "replay", truncate_last_traj=False)
    np.testing.assert_array_equal(model.replay_buffer.filled, later.replay_buffer.filled)
    assert same_samples(model.replay_buffer, later.replay_buffer)
    with pytest.raises(ModelFileError, match="replay_dir is 'None'"):
        tiny(DreamerV3, "MlpPolicy", env).load_replay_buffer(tmp_path / "replay")
    monkeypatch.setattr(SequenceReplayBuffer, "free_space", lambda self: 100)
    with pytest.raises(OSError, match="replay_dir has"):
        report.check_memory(later.replay_buffer, 10**6)


def test_a_crash_after_a_reset_brings_no_old_rows_back(tmp_path) -> None:
    replay = make(replay_dir=tmp_path, spare_rows=5)
    fill(replay, 30)
    replay.flush()
    replay.reset()
    fill(replay, 3, begin=1000)
    again = make(replay_dir=tmp_path, spare_rows=5)
    assert again.attach() == 0 and again.size() == 0
