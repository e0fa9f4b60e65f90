"""Exact resume: a run in parts is the run in one piece, bit for bit; and checkpoints are whole or not there."""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.files import json_text
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.open_loop import OpenLoopCallback
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.common.resume.folder import LOCK, checkpoints, find_checkpoint
from tests.algorithms import ALGORITHMS, equal, tiny, weights
from tests.common.resume.resuming import Killed, difference, everything, run_part

algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda cls: cls.__name__)


@algorithms
@pytest.mark.parametrize("n_envs", [1, 2])
def test_2n_steps_are_n_steps_and_n_more(algorithm, n_envs, tmp_path) -> None:
    """Weights, optimizers, replay, random states and all that was logged; the first part dies after its checkpoint."""
    name = algorithm.__name__
    straight = everything(run_part(tmp_path / "a", name, n_envs, 60), tmp_path / "a")
    with pytest.raises(Killed):
        run_part(tmp_path / "b", name, n_envs, 60, die_at=47)
    assert [path.name for path in checkpoints(tmp_path / "b" / "checkpoints")] == ["checkpoint_000001_step_30"]
    resumed = run_part(tmp_path / "b", name, n_envs, 60)
    assert resumed._n_updates > 0 and resumed.num_timesteps == 60
    assert difference(straight, everything(resumed, tmp_path / "b")) == []


def test_the_second_part_in_a_process_of_its_own(tmp_path) -> None:
    """N steps, and N more where nothing is left in memory and strings have other hashes."""
    straight = everything(run_part(tmp_path / "a", "DreamerV3", 1, 60), tmp_path / "a")
    run_part(tmp_path / "b", "DreamerV3", 1, 30)
    options = json.dumps({"algorithm": "DreamerV3", "n_envs": 1, "total": 60})
    command = [sys.executable, "-m", "tests.common.resume.resuming", str(tmp_path / "b"), options]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3])
    with np.load(tmp_path / "b" / "state.npz") as resumed:
        assert difference(straight, dict(resumed)) == []


def test_a_checkpoint_waits_for_the_end_of_an_episode(tmp_path) -> None:
    options = {"every": 20, "wait": 15}
    straight = run_part(tmp_path / "a", "DreamerV3", 1, 60, **options)
    steps = [int(path.name.rsplit("_", 1)[1]) for path in checkpoints(tmp_path / "a" / "checkpoints")]
    assert steps[-1] == 60 and 40 < steps[0] <= 55, "the steps are not those of the clock alone"
    with pytest.raises(Killed):
        run_part(tmp_path / "b", "DreamerV3", 1, 60, die_at=57, **options)
    resumed = run_part(tmp_path / "b", "DreamerV3", 1, 60, **options)
    assert difference(everything(straight, tmp_path / "a"), everything(resumed, tmp_path / "b")) == []


def test_replay_on_disk_goes_on_exactly(tmp_path) -> None:
    """The ring is full and overwrites its oldest rows after the checkpoint: the spare rows keep what it needs."""
    small = {"settings": {"buffer_size": 40}}
    runs = []
    for folder, dies in (("a", None), ("b", 52)):
        options = {**small, "replay_dir": str(tmp_path / folder / "replay")}
        if dies:
            with pytest.raises(Killed):
                run_part(tmp_path / folder, "DreamerV3", 2, 60, die_at=dies, **options)
        runs.append(everything(run_part(tmp_path / folder, "DreamerV3", 2, 60, **options), tmp_path / folder))
    assert not (tmp_path / "a" / "checkpoints" / "checkpoint_000002_step_60" / "replay.safetensors").exists()
    assert difference(*runs) == []


def test_rows_overwritten_after_a_checkpoint_are_left_out_and_said(tmp_path) -> None:
    kwargs = {"replay_dir": str(tmp_path / "replay"), "spare_rows": 5}
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1", buffer_size=30, replay_buffer_kwargs=kwargs)
    model.learn(40).save_checkpoint(tmp_path / "c")
    model.learn(12, reset_num_timesteps=False)
    with pytest.warns(UserWarning, match="oldest rows in replay_dir were overwritten"):
        env = make_vec_env("CartPole-v1")
        late = DreamerV3.load_checkpoint(tmp_path / "c", env=env, replay_buffer_kwargs=kwargs)
    assert late.num_timesteps == 40 and 0 < late.replay_buffer.filled[0] < 30
    late.learn(5, reset_num_timesteps=False)


@algorithms
def test_resume_without_replay(algorithm, tmp_path) -> None:
    """Refused, unless asked for; then collecting comes before the first update."""
    model = tiny(algorithm, "MlpPolicy", make_vec_env("CartPole-v1"), learning_starts=25).learn(40)
    model.save_checkpoint(tmp_path, replay=False)
    with pytest.raises(ModelFileError, match="allow_empty_replay=True"):
        algorithm.load_checkpoint(tmp_path, env=make_vec_env("CartPole-v1"))
    resumed = algorithm.load_checkpoint(tmp_path, env=make_vec_env("CartPole-v1"), allow_empty_replay=True)
    before = weights(resumed)
    resumed.learn(20, reset_num_timesteps=False)
    assert equal(before, weights(resumed)), "no update before replay is filled"
    resumed.learn(60, reset_num_timesteps=False)
    assert resumed.num_timesteps == 120
    if algorithm is DreamerV3:
        assert not equal(before, weights(resumed))
        # 60 steps of 4/16 updates: what was owed while replay was filled is not caught up in one burst.
        assert resumed._n_updates - model._n_updates <= 20


def test_set_env_after_loading_and_several_saves_in_one_process(tmp_path) -> None:
    def learn(model) -> dict[str, np.ndarray]:
        return weights(model.learn(25, reset_num_timesteps=False))

    model = tiny(DreamerV3, "MlpPolicy", make_vec_env("CartPole-v1", 2, seed=5)).learn(30)
    model.save_checkpoint(tmp_path)
    later = DreamerV3.load_checkpoint(tmp_path)
    later.set_env(make_vec_env("CartPole-v1", 2))
    second = DreamerV3.load_checkpoint(tmp_path, env=make_vec_env("CartPole-v1", 2))
    first = learn(later)
    assert equal(first, learn(second))
    # A fresh count forgets the checkpoint's plan.
    fresh = DreamerV3.load_checkpoint(tmp_path, env=make_vec_env("CartPole-v1", 2))
    fresh.learn(10)
    assert fresh.num_timesteps == 10 and fresh._resume is None


def test_statistics_of_vecnormalize_are_part_of_it(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", VecNormalize(make_vec_env("CartPole-v1", 1, seed=0))).learn(30)
    model.save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="with VecNormalize, the environment is without"):
        DreamerV3.load_checkpoint(tmp_path, env=make_vec_env("CartPole-v1"))
    env = VecNormalize(make_vec_env("CartPole-v1"))
    DreamerV3.load_checkpoint(tmp_path, env=env)
    assert env.obs_rms.count == model.get_vec_normalize_env().obs_rms.count
    np.testing.assert_array_equal(env.obs_rms.mean, model.get_vec_normalize_env().obs_rms.mean)


class Remembers(BaseCallback):
    """A user's callback with a memory."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def _on_step(self) -> bool:
        self.seen += 1
        return True

    def state_dict(self) -> dict:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.seen = state["seen"]


def test_callbacks_remember(tmp_path) -> None:
    """Wherever they stand: a progress bar puts them one level lower."""
    env = make_vec_env("CartPole-v1", 1, seed=0)
    tiny(DreamerV3, "MlpPolicy", env).learn(25, [ResumableCheckpoint(tmp_path, 20), Remembers()])
    memory = Remembers()
    model = DreamerV3.load_checkpoint(tmp_path, env=env)
    model.learn(15, [memory, ResumableCheckpoint(tmp_path, 20)], reset_num_timesteps=False, progress_bar=True)
    assert memory.seen == memory.n_calls == 40


def test_what_a_callback_cannot_store_is_told(tmp_path, monkeypatch) -> None:
    memory, model = Remembers(), tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    memory.seen = th.zeros(1)
    with pytest.warns(UserWarning, match="does not hold what Remembers remembers: .*Tensor"):
        model.learn(2, memory)
    monkeypatch.setattr(json_text, "MAX_JSON_BYTES", 1000)
    with pytest.warns(UserWarning, match="no checkpoint at step 2.: .* MiB of JSON"):
        model.learn(25, ResumableCheckpoint(tmp_path, 20))


# ---- whole or not there ----------------------------------------------------------------------------------------------


def test_the_last_ones_are_kept_and_left_overs_go(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(22)
    left = tmp_path / ".checkpoint_000001_step_5.0123456789ab.tmp"
    left.mkdir()
    for _ in range(4):
        model.save_checkpoint(tmp_path, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_000003_step_22", "checkpoint_000004_step_22"]
    assert len(list(tmp_path.iterdir())) == 2
    assert find_checkpoint(tmp_path).name == "checkpoint_000004_step_22"
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        DreamerV3.load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("step", ["mkdir", "write", "rename"])
def test_a_failed_write_loses_nothing_older(tmp_path, monkeypatch, step) -> None:
    """A full disk at any point: a warning, the older checkpoint stays, training goes on as it would have."""
    env = make_vec_env("CartPole-v1", 1, seed=0)
    model = tiny(DreamerV3, "MlpPolicy", env).learn(22)
    model.save_checkpoint(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr("sb3_dreamer.common.files.array_file.safetensors.numpy.save_file", full)
        else:
            patch.setattr(Path if step == "mkdir" else os, step, full)
        if step == "mkdir":
            patch.setattr(DreamerV3, "save", full)
        with pytest.warns(UserWarning, match="no checkpoint at step 30: .*No space left"):
            model.learn(8, ResumableCheckpoint(tmp_path, 20), reset_num_timesteps=False)
    (tmp_path / LOCK).unlink(missing_ok=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 1
    model.learn(5, reset_num_timesteps=False)


def test_a_disk_that_is_full_indeed(tmp_path) -> None:
    """A file system with room for one checkpoint and a half."""
    model = tiny(DreamerV3, "MlpPolicy", make_vec_env("CartPole-v1", 1, seed=0)).learn(22)
    size = sum(path.stat().st_size for path in model.save_checkpoint(tmp_path / "size").iterdir())
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={int(1.5 * size)}", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs is not permitted here; test_a_failed_write_loses_nothing_older runs")
    try:
        first = model.save_checkpoint(disk, keep=1)
        with pytest.warns(UserWarning, match="No space left"):
            model.learn(8, ResumableCheckpoint(disk, 20, keep=1), reset_num_timesteps=False)
        assert [path.name for path in disk.iterdir() if path.name != LOCK] == [first.name]
        assert DreamerV3.load_checkpoint(disk).num_timesteps == 22
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_checkpoint_names_the_one_before(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(22)
    first, second = (model.save_checkpoint(tmp_path) for _ in range(2))
    for name in ("model.zip", "training.zip", "replay.safetensors"):
        whole = (second / name).read_bytes()
        (second / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelFileError, match=f"the checkpoint before it is '.*{first.name}'"):
            DreamerV3.load_checkpoint(tmp_path)
        (second / name).unlink()
        with pytest.raises(ModelFileError, match="the checkpoint before it is"):
            DreamerV3.load_checkpoint(tmp_path)
        (second / name).write_bytes(whole)
    assert DreamerV3.load_checkpoint(first).num_timesteps == DreamerV3.load_checkpoint(second).num_timesteps == 22


def test_not_in_the_middle_of_a_rollout(tmp_path) -> None:
    class Early(BaseCallback):
        def _on_step(self) -> bool:
            self.model.save_checkpoint(tmp_path)
            return True

    class Late(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.save_checkpoint(tmp_path)  # before the updates that the rollout earns

    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    for callback in (Early(), Late()):
        with pytest.raises(RuntimeError, match="ResumableCheckpoint"):
            model.learn(5, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="wait=10 must be less than every=10"):
        ResumableCheckpoint(tmp_path, 10, wait=10)


def test_a_checkpoint_that_was_only_read_can_be_written_again(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", make_vec_env("CartPole-v1", 1, seed=5)).learn(30)
    model.save_checkpoint(tmp_path / "first")
    th.rand(3)
    DreamerV3.load_checkpoint(tmp_path / "first").save_checkpoint(tmp_path / "second")
    found = []
    for name in ("first", "second"):
        resumed = DreamerV3.load_checkpoint(tmp_path / name, env=make_vec_env("CartPole-v1"))
        found.append(weights(resumed.learn(40, reset_num_timesteps=False)))
    assert equal(*found)


def test_learning_without_an_environment_resumes(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", make_vec_env("CartPole-v1")).learn(30).learn_offline(3)
    model.save_checkpoint(tmp_path)
    model.learn_offline(3)
    later = DreamerV3.load_checkpoint(tmp_path)
    th.rand(3)
    assert equal(weights(later.learn_offline(3)), weights(model))
    with pytest.raises(ValueError, match="learn_offline takes none"):
        model.learn_offline(1, ResumableCheckpoint(tmp_path / "offline"))


def test_logs_within_an_episode_continue(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sb3_dreamer.common.algorithm.LOG_AT_LEAST", 40)
    steps = []
    for folder, stops in ((tmp_path / "whole", (160,)), (tmp_path / "parts", (60, 160))):
        for total in stops:
            run_part(folder, "DreamerV3", 1, total, every=60, env_id="Pendulum-v1")
        with (folder / "log" / "progress.csv").open() as file:
            steps.append([row["time/total_timesteps"] for row in csv.DictReader(file)])
    assert steps[0] == steps[1] and len(steps[0]) >= 3


def test_callbacks_that_hold_each_other(tmp_path) -> None:
    first, second = StopTrainingOnMaxEpisodes(1000), StopTrainingOnMaxEpisodes(1000)
    first.other, second.other = second, first
    assert tiny(DreamerV3, "MlpPolicy", "CartPole-v1").learn(5, [first, second]).num_timesteps == 5


def test_vecnormalize_follows_with_set_env(tmp_path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", VecNormalize(make_vec_env("CartPole-v1", 1, seed=0))).learn(30)
    model.save_checkpoint(tmp_path)
    later, env = DreamerV3.load_checkpoint(tmp_path), VecNormalize(make_vec_env("CartPole-v1"))
    later.set_env(env)
    assert env.obs_rms.count == model.get_vec_normalize_env().obs_rms.count
    assert later.replay_buffer.normalizer is env, "also before learning continues: dreams start from replay"


def test_predictions_of_a_resumed_run_are_those_of_one_never_stopped(tmp_path) -> None:
    def run(model, steps: int, folder: str):
        watch = OpenLoopCallback(40, horizon=3, sequences=2)
        seen, look = [], watch.look
        watch.look = lambda: seen.append((watch.num_timesteps, look()["vector_error"].tolist()))
        callbacks = CallbackList([watch, ResumableCheckpoint(tmp_path / folder, 100)])
        model.learn(steps, callback=callbacks, reset_num_timesteps=False)
        return seen

    whole = run(tiny(DreamerV3, "MlpPolicy", "CartPole-v1", seed=0), 200, "whole")
    assert [step for step, _ in whole] == [40, 80, 120, 160, 200]
    model = DreamerV3.load_checkpoint(checkpoints(tmp_path / "whole")[0], env=make_vec_env("CartPole-v1"))
    begin = model.num_timesteps
    assert run(model, 200 - begin, "again") == [entry for entry in whole if entry[0] > begin] and begin < 160
