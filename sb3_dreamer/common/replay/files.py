"""Replay buffers in files that hold no pickle."""

import copy
import pathlib
import warnings
from typing import Any, cast

from sb3_dreamer.common.files.array_file import is_pickle_file, read_arrays, write_arrays
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.files.save_load import Path
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer


def write_replay(replay: SequenceReplayBuffer, path: Path) -> None:
    """Write a replay buffer to one safetensors file, whole or not at all.

    :param path: file name, used as it is, or binary file object
    """
    if isinstance(path, str | pathlib.Path):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays, metadata = replay.to_arrays()
    write_arrays(cast(Any, path), arrays, metadata)


def read_replay(replay: SequenceReplayBuffer, path: Path, *, trust_pickle: bool = False) -> SequenceReplayBuffer:
    """Read what :func:`write_replay` wrote into a copy of a buffer, which a file that does not fit leaves as it was.

    :param replay: buffer of the model
    :param path: file name, binary file object, or the folder that ``replay_dir`` names
    :param trust_pickle: also read a buffer that Stable-Baselines3 saved
    :return: the buffer to use from now on
    :raises ModelFileError: if the file is damaged, or its rows are of other spaces
    """
    if isinstance(path, str | pathlib.Path) and pathlib.Path(path).is_dir():
        folder = getattr(replay.storage, "folder", None)
        if folder is None or pathlib.Path(path).resolve() != folder.resolve():
            raise ModelFileError(
                f"'{path}' is a folder, and the model's replay_dir is {str(folder)!r}: load the model with "
                "replay_buffer_kwargs={'replay_dir': ...} of the same folder"
            )
        attach_replay(replay, None)
        return replay
    fresh = copy.copy(replay)
    if trust_pickle and is_pickle_file(cast(Any, path)):
        from stable_baselines3.common.save_util import load_from_pkl

        recorded = load_from_pkl(cast(Any, path))
        fresh.release()
        fresh.reset()
        fresh.add_episodes(recorded)
    else:
        arrays, metadata = read_arrays(cast(Any, path))
        fresh.from_arrays(arrays, metadata, name=str(path))
    return fresh


def attach_replay(replay: SequenceReplayBuffer, state: dict[str, Any] | None) -> None:
    """Continue with the rows in ``replay_dir``, as they were at a checkpoint.

    :param state: the checkpoint's journal; None: as they were at the last flush
    :raises ModelFileError: if the buffer is kept in memory, or the folder is damaged
    """
    if not replay.on_disk:
        raise ModelFileError(
            "the replay of this checkpoint was kept in a folder: pass its place with "
            "load_checkpoint(..., replay_buffer_kwargs={'replay_dir': ...})"
        )
    lost = replay.attach(state)
    if lost:
        warnings.warn(
            f"{lost} of the oldest rows in replay_dir were overwritten after this checkpoint and are left out: "
            "write checkpoints more often, or raise spare_rows",
            stacklevel=3,
        )
