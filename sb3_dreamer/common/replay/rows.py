"""The rows of a replay buffer: their layout, and their way into memory, to the disk, to files and to SB3."""

import shutil
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dreamer.common.files.json_text import ModelFileError, one_line
from sb3_dreamer.common.replay.storage import DiskRows, Layout, MemoryRows
from sb3_dreamer.common.spaces import ActionCodec, space_dict
from sb3_dreamer.core.types import ObsKey

CURSORS = {"cursor": np.int64, "filled": np.int64, "starts_episode": bool}  #: arrays of a file beside the rows


class ReplayRows(ReplayBuffer):
    """Base of :class:`sb3_dreamer.common.replay.buffer.SequenceReplayBuffer`: what it keeps, and where.

    Every file or folder is checked field by field before anything of it is used.
    """

    codec: ActionCodec
    keys: tuple[ObsKey, ...]
    rng: np.random.Generator
    storage: MemoryRows | DiskRows
    arrays: dict[str, np.ndarray]
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

    # ---- on disk -----------------------------------------------------------------------------------------------

    @property
    def on_disk(self) -> bool:
        """Whether the rows are kept in files."""
        return isinstance(self.storage, DiskRows)

    def free_space(self) -> int:
        """Bytes that the file system of ``replay_dir`` still has."""
        assert isinstance(self.storage, DiskRows)
        folder = self.storage.folder.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

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
        return {**cursors, **sizes, "random": _random_to_json(self.rng)}

    def attach(self, state: dict[str, Any] | None = None) -> int:
        """Resume with the rows that a run left in ``replay_dir``.

        The journal's ``limit`` is how many rows of an environment the last run may have written before it died. What
        lies that far behind the rows of ``state`` in the ring is no longer what it was, and is not sampled.

        :param state: the :meth:`journal` of a checkpoint; None: of the last flush
        :return: how many of the oldest rows were overwritten after ``state`` and are lost
        :raises ModelFileError: if the folder is damaged, or of another buffer
        """
        assert isinstance(self.storage, DiskRows), "the buffer has no replay_dir"
        arrays = self.storage.open(self.layout(), self.n_envs, self.ring)
        journal = self.storage.read_journal()
        state = journal if state is None else state
        cursors = {name: np.array(state[name], np.int64) for name in ("cursor", "filled", "written")}
        filled, written = cursors["filled"], cursors["written"]
        fits = state["ring"] == self.ring and state["rows"] == self.buffer_size and len(filled) == self.n_envs
        sound = (filled >= 0).all() and (filled <= np.minimum(written, self.buffer_size)).all()
        if not fits or not sound or (cursors["cursor"] != written % self.ring).any():
            raise ModelFileError(
                f"the cursors for '{self.storage.folder}' do not fit its rows: another buffer_size, or damaged"
            )
        intact = np.clip(written - (np.array(journal["limit"], np.int64) - self.ring), 0, filled)
        lost = int((filled - intact).sum())
        self.rng = _random_from_json(state["random"])
        self.cursor, self.filled, self.written = cursors["cursor"], intact, written
        self.starts_episode = np.array(state["starts_episode"], bool)
        self.arrays = arrays
        self.flush()
        return lost

    # ---- files -------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that a file must hold: the rows written so far, cursors and the state of the sampling.

        Each environment has arrays of its own, ``"<env>.<name>"``: these are contiguous, so that writing copies none.
        """
        rows = np.minimum(self.written, self.ring)
        arrays = {
            f"{env}.{name}": array[env, : rows[env]]
            for name, array in self.arrays.items()
            for env in range(self.n_envs)
        }
        cursors = {name: getattr(self, name) for name in CURSORS}
        about = {"rows": self.buffer_size, "ring": self.ring, "n_envs": self.n_envs}
        return arrays | cursors, about | {"random": _random_to_json(self.rng)}

    def from_arrays(self, arrays: dict[str, np.ndarray], metadata: dict[str, Any], name: str = "the file") -> None:
        """Take over what :meth:`to_arrays` gave; nothing changes if it does not fit.

        :param arrays: emptied as they are taken over, so that memory holds no row twice
        :param name: of the file, for messages
        :raises ModelFileError: if the rows are of other spaces, another number of environments or another size
        """
        if (metadata.get("rows"), metadata.get("n_envs")) != (self.buffer_size, self.n_envs):
            raise ModelFileError(
                f"{name} is a replay of {one_line(metadata.get('n_envs'))} environments with "
                f"{one_line(metadata.get('rows'))} rows each, this model has {self.n_envs} with {self.buffer_size}: "
                "load the model with the same buffer_size and n_envs"
            )
        if "reward" in arrays:  # format version 1: (n_envs, rows, ...)
            arrays = _by_environment(arrays, self.n_envs)
        ring = metadata.get("ring", self.buffer_size)  # the first release had no rows to spare
        self._check_arrays(arrays, ring, name)
        generator = _random_from_json(metadata.get("random"))
        filled, cursor = arrays["filled"].copy(), arrays["cursor"]
        self.release()
        self.rng, self.filled, self.starts_episode = generator, filled, arrays["starts_episode"].copy()
        same = ring == self.ring
        self.written = np.where(filled == self.buffer_size, ring + cursor, cursor) if same else filled.copy()
        self.cursor = self.written % self.ring
        if not filled.any():
            return
        self.allocate()
        for key, array in self.arrays.items():
            for env in range(self.n_envs):
                found = arrays.pop(f"{env}.{key}")
                if same:
                    array[env, : len(found)] = found
                else:
                    order = (cursor[env] - filled[env] + np.arange(filled[env])) % ring
                    array[env, : filled[env]] = found[order]

    def _check_arrays(self, arrays: dict[str, np.ndarray], ring: Any, name: str) -> None:
        if type(ring) is not int or ring < self.buffer_size:
            raise ModelFileError(f"{name} has a ring of {one_line(ring)} rows: the file is damaged")
        for key, kind in CURSORS.items():
            _check_array(arrays, key, (self.n_envs,), np.dtype(kind), name)
        filled, cursor = arrays["filled"], arrays["cursor"]
        if not (0 <= filled.min() <= filled.max() <= self.buffer_size and 0 <= cursor.min() <= cursor.max() < ring):
            raise ModelFileError(f"{name} has cursors outside the buffer: the file is damaged")
        if not filled.any():
            return
        for env in range(self.n_envs):
            reward = arrays.get(f"{env}.reward")
            rows = len(reward) if reward is not None and reward.ndim else -1
            for key, (shape, dtype) in self.layout().items():
                _check_array(arrays, f"{env}.{key}", (rows, *shape), dtype, name)
            # Rows up to the cursor are there; a ring that has begun again is there as a whole.
            if rows > ring or (rows < ring and not filled[env] <= cursor[env] <= rows):
                raise ModelFileError(f"{name} has not the rows that its cursors say: the file is damaged")

    # ---- what SB3's code reads off a replay buffer: views of shape (rows, n_envs, ...), without copies ---------

    def _view(self, name: str) -> np.ndarray:
        self.allocate()
        return self.arrays[name].swapaxes(0, 1)

    @property
    def observations(self) -> np.ndarray | dict[str, np.ndarray]:  # type: ignore[override]
        """Observations, ``(rows, n_envs, ...)``; a dict for a Dict space."""
        views = {key.name: self._view(f"obs.{key.name}") for key in self.keys}
        return views if isinstance(self.observation_space, spaces.Dict) else next(iter(views.values()))

    @property
    def actions(self) -> np.ndarray:  # type: ignore[override]
        """Actions that led to the observation of the same row, in replay form, ``(rows, n_envs, parts)``."""
        return self._view("action")

    @property
    def rewards(self) -> np.ndarray:  # type: ignore[override]
        """Rewards received with the observation of the same row, ``(rows, n_envs)``."""
        return self._view("reward")

    @property
    def dones(self) -> np.ndarray:  # type: ignore[override]
        """Last rows of episodes, ``(rows, n_envs)``."""
        return self._view("is_last")

    @property
    def timeouts(self) -> np.ndarray:  # type: ignore[override]
        """Last rows of episodes that were truncated, ``(rows, n_envs)``."""
        return self._view("is_last") & ~self._view("is_terminal")

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Not for single transitions: world models learn from sequences.

        :raises TypeError: always; use ``sample_sequences``
        """
        raise TypeError("SequenceReplayBuffer.sample() has no single transitions: use sample_sequences(batch, length)")


def _by_environment(arrays: dict[str, np.ndarray], n_envs: int) -> dict[str, np.ndarray]:
    """Arrays of format version 1 as those of today."""
    parts = {
        f"{env}.{name}": part
        for name, array in arrays.items()
        if name not in CURSORS and array.shape[:1] == (n_envs,)
        for env, part in enumerate(array)
    }
    return parts | {name: arrays[name] for name in CURSORS if name in arrays}


def _check_array(arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    found = arrays.get(key)
    if found is None or found.shape != shape or found.dtype != dtype:
        what = "is missing" if found is None else f"is {found.dtype} {found.shape}"
        raise ModelFileError(f"{name} does not fit this model: {key} {what}, expected {dtype} {shape}")


def _random_to_json(rng: np.random.Generator) -> dict[str, Any]:
    """State of a generator; its 128-bit numbers as strings."""
    state = rng.bit_generator.state
    return {**state, "state": {name: str(value) for name, value in state["state"].items()}}


def _random_from_json(state: Any) -> np.random.Generator:
    generator = np.random.default_rng()
    try:
        generator.bit_generator.state = {**state, "state": {key: int(value) for key, value in state["state"].items()}}
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"the file holds no valid state of the sampling ({one_line(error)})") from error
    return generator
