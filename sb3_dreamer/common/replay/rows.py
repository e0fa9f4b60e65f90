"""The rows of a replay buffer: their layout, and their way into memory, to the disk and to files."""

import shutil
from typing import Any

import numpy as np

from sb3_dreamer.common.replay import state as replay_state
from sb3_dreamer.common.replay.storage import DiskRows, Layout, MemoryRows
from sb3_dreamer.common.replay.views import ReplayViews
from sb3_dreamer.common.spaces import ActionCodec, space_dict


class ReplayRows(ReplayViews):
    """What a :class:`sb3_dreamer.common.replay.buffer.SequenceReplayBuffer` keeps, and where."""

    codec: ActionCodec
    rng: np.random.Generator
    storage: MemoryRows | DiskRows
    ring: int
    cursor: np.ndarray
    filled: np.ndarray
    written: np.ndarray
    starts_episode: np.ndarray
    limit: np.ndarray

    def layout(self) -> Layout:
        """Shape of one row and dtype of every array."""
        sub_spaces = space_dict(self.observation_space)
        layout = {f"obs.{key.name}": (key.shape, np.dtype(sub_spaces[key.name].dtype)) for key in self.keys}
        flag = ((), np.dtype(bool))
        return layout | {
            "action": ((self.codec.parts,), self.codec.replay_dtype),
            "reward": ((), np.dtype(np.float32)),
            "is_first": flag,
            "is_last": flag,
            "is_terminal": flag,
        }

    @property
    def nbytes(self) -> int:
        """Bytes that the full buffer takes, whether they are taken yet or not."""
        row = sum(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in self.layout().values())
        return row * self.ring * self.n_envs

    def allocate(self) -> None:
        """Take the memory, or make the files. The operating system commits pages as rows are written."""
        if not self.arrays:
            self.arrays = self.storage.create(self.layout(), self.n_envs, self.ring)
            self.flush()

    def release(self) -> None:
        """Let go of the memory, or of the files; what is in them stays."""
        self.arrays = {}
        if isinstance(self.storage, DiskRows):
            self.storage = DiskRows(self.storage.folder)

    @property
    def on_disk(self) -> bool:
        """Whether the rows are kept in files."""
        return isinstance(self.storage, DiskRows)

    def flush(self) -> None:
        """On disk: bring the rows there, then the journal. From then on a crash loses nothing of them."""
        if isinstance(self.storage, DiskRows):
            self.limit = self.written - self.filled + self.ring
            self.storage.flush(self.layout(), self.journal())

    def journal(self) -> dict[str, Any]:
        """Cursors and sampling as JSON, for a replay folder."""
        names = ("cursor", "filled", "written", "starts_episode", "limit")
        cursors = {name: getattr(self, name).tolist() for name in names}
        sizes = {"n_envs": self.n_envs, "ring": self.ring, "rows": self.buffer_size}
        return {**cursors, **sizes, "random": replay_state.random_to_json(self.rng)}

    def attach(self, state: dict[str, Any] | None = None) -> int:
        """Go on with the rows that a run left in ``replay_dir``.

        :param state: the :meth:`journal` of a checkpoint; None: of the last flush
        :return: how many of the oldest rows were overwritten after ``state`` and are lost
        :raises ModelFileError: if the folder is damaged, or of another buffer
        """
        assert isinstance(self.storage, DiskRows), "the buffer has no replay_dir"
        return replay_state.attach(self, self.storage, state)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that a file must hold; see :func:`sb3_dreamer.common.replay.state.to_arrays`."""
        return replay_state.to_arrays(self)

    def from_arrays(self, arrays: dict[str, np.ndarray], metadata: dict[str, Any], name: str = "the file") -> None:
        """Take over what :meth:`to_arrays` gave; see :func:`sb3_dreamer.common.replay.state.from_arrays`."""
        replay_state.from_arrays(self, arrays, metadata, name)

    def free_space(self) -> int:
        """Bytes that the file system of ``replay_dir`` still has."""
        assert isinstance(self.storage, DiskRows)
        folder = self.storage.folder.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free
