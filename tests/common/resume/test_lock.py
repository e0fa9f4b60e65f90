"""One process at a time writes to the folder of a run."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.common.resume.folder import LOCK, FolderInUseError, sole_writer
from tests.algorithms import tiny

#: a process that has the folder until it is killed, as a run has it
RUN = """
import sys, time
from sb3_dreamer.common.resume.folder import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""
#: the same with the lock alone, which starts at once
LOCKER = f"""
import sys, time
from pathlib import Path
from filelock import FileLock
FileLock(Path(sys.argv[1]) / {LOCK!r}, timeout=0).acquire()
print("held", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def another_process(folder: Path, code: str) -> Iterator[subprocess.Popen]:
    """A process that writes to the folder; killed at the end of the block, or earlier by the test."""
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("checkpoint"))


def test_another_process_writes_there(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    with another_process(folder, RUN) as process:
        with pytest.raises(FolderInUseError, match=r"another run is writing to .*checkpoints.*: wait until it ends"):
            model.learn(20, callback=ResumableCheckpoint(folder, 10))
        assert model.num_timesteps == 0 and names(folder) == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        model.learn(20, callback=ResumableCheckpoint(folder, 10))
    assert names(folder), "a killed process leaves the folder free"


class Raises(BaseCallback):
    def _on_step(self) -> bool:
        if self.n_calls > 5:
            raise KeyError("a fault of the user's")
        return True


def test_the_folder_is_free_however_learn_ends(tmp_path: Path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    checkpoint = ResumableCheckpoint(tmp_path, 10)
    with pytest.raises(KeyError):
        model.learn(20, callback=[checkpoint, Raises()])
    for callback in (checkpoint, ResumableCheckpoint(tmp_path, 10)):
        with another_process(tmp_path, LOCKER):
            pass
        model.learn(20, callback=callback, reset_num_timesteps=False)
        assert model.num_timesteps == checkpoint.last_step or callback is not checkpoint


def test_two_models_of_one_process(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(FolderInUseError), sole_writer(tmp_path):
        pass


def test_where_nothing_can_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be locked"), sole_writer(tmp_path / "file" / "checkpoints"):
        pass
