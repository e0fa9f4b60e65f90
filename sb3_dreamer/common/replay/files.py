"""SB3's methods for the replay buffer's file, on files that hold no pickle."""

import copy
import io
import pathlib
import warnings
from typing import TYPE_CHECKING, Any, cast

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dreamer.common.files.array_file import is_pickle_file, read_arrays, write_arrays
from sb3_dreamer.common.files.json_text import ModelFileError

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm

Path = str | pathlib.Path | io.BufferedIOBase


class ReplayFileMethods(BaseAlgorithm):
    """``save_replay_buffer`` and ``load_replay_buffer`` of a :class:`WorldModelAlgorithm`."""

    def save_replay_buffer(self, path: Path) -> None:
        """Write the replay buffer to one safetensors file, whole or not at all.

        :param path: file name, used as it is, or binary file object
        """
        replay = cast("WorldModelAlgorithm", self).replay_buffer
        assert replay is not None, "The replay buffer is not defined"
        if isinstance(path, str | pathlib.Path):
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        arrays, metadata = replay.to_arrays()
        write_arrays(cast(Any, path), arrays, metadata)

    def load_replay_buffer(self, path: Path, truncate_last_traj: bool = True, trust_pickle: bool = False) -> None:
        """Read what :meth:`save_replay_buffer` wrote, or go on with a ``replay_dir``.

        :param path: file name, binary file object, or the folder that ``replay_dir`` names
        :param truncate_last_traj: the running episodes of the file do not go on: mark them as truncated
        :param trust_pickle: also read a buffer that Stable-Baselines3 saved. Such a file is a pickle, which can run any
            code when it is loaded: only for files that you wrote yourself
        :raises ModelFileError: if the file is damaged, or its rows are of other spaces
        """
        algorithm = cast("WorldModelAlgorithm", self)
        if algorithm.replay_buffer is None:
            algorithm._make_replay_buffer()
        # A copy is filled, so that a file that does not fit leaves the present buffer as it was.
        fresh = copy.copy(algorithm.replay_buffer)
        if isinstance(path, str | pathlib.Path) and pathlib.Path(path).is_dir():
            folder = getattr(fresh.storage, "folder", None)
            if folder is None or pathlib.Path(path).resolve() != folder.resolve():
                raise ModelFileError(
                    f"'{path}' is a folder, and the model's replay_dir is {str(folder)!r}: load the model with "
                    "replay_buffer_kwargs={'replay_dir': ...} of the same folder"
                )
            self._attach_replay(None)
            fresh = algorithm.replay_buffer
        elif trust_pickle and is_pickle_file(cast(Any, path)):
            from stable_baselines3.common.save_util import load_from_pkl

            fresh.release()
            fresh.reset()
            fresh.add_episodes(load_from_pkl(cast(Any, path)))
        else:
            arrays, metadata = read_arrays(cast(Any, path))
            fresh.from_arrays(arrays, metadata, name=str(path))
        if truncate_last_traj and self._last_obs is None:
            fresh.cut()
        fresh.device = self.device
        algorithm.replay_buffer = fresh

    def _attach_replay(self, state: dict[str, Any] | None) -> None:
        """Go on with the rows in ``replay_dir``, as they were at a checkpoint or at the last flush."""
        replay = cast("WorldModelAlgorithm", self).replay_buffer
        if not replay.on_disk:
            raise ModelFileError("the checkpoint's replay is in a folder: load it with replay_buffer_kwargs as it had")
        lost = replay.attach(state)
        if lost:
            warnings.warn(
                f"{lost} of the oldest rows in replay_dir were overwritten after this checkpoint and are left out: "
                "write checkpoints more often, or raise spare_rows",
                stacklevel=3,
            )
