"""Sequence replay: one ring of rows for each environment, sampled in stretches that may span episodes."""

import os
import shutil
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dreamer.common.files.json_text import ModelFileError, one_line
from sb3_dreamer.common.replay import episodes
from sb3_dreamer.common.replay.storage import RESERVED, DiskRows, Layout, MemoryRows
from sb3_dreamer.common.spaces import ActionCodec, as_dict, observation_keys, space_dict
from sb3_dreamer.core.types import LatentState, SequenceBatch

Obs = np.ndarray | dict[str, np.ndarray]
CURSORS = {"cursor": np.int64, "filled": np.int64, "starts_episode": bool}  #: arrays of a file beside the rows
SPARE_ROWS = 50_000  #: rows on disk beyond buffer_size, which protect what a checkpoint needs from being overwritten


class SequenceReplayBuffer(ReplayBuffer):
    """Stores every observation once, in its own dtype, and samples sequences ``(B, T, ...)``.

    An episode of L steps takes L + 1 rows: its first observation, then one row for each step with the observation,
    the action that led to it and the reward received with it (see :mod:`sb3_dreamer.core.types`). Memory is taken on
    the first :meth:`add`, not before; :attr:`nbytes` tells how much it will be.

    :param buffer_size: rows in all; each environment gets ``buffer_size // n_envs``
    :param observation_space: as the VecEnv gives it (images channel-first)
    :param action_space: Box, Discrete, MultiDiscrete or MultiBinary
    :param device: where sampled tensors go
    :param n_envs: number of environments
    :param ignore_keys: keys of a Dict observation that are not stored
    :param seed: of the sampling; the buffer has a random generator of its own
    :param replay_dir: folder for the rows instead of memory (see :class:`DiskRows`); the run can be larger than memory
    :param spare_rows: rows on disk beyond ``buffer_size``: as many can be written after a checkpoint before anything
        that the checkpoint needs is overwritten. None: 50,000, at most ``buffer_size``
    :param optimize_memory_usage: accepted for compatibility with SB3; observations are never stored twice
    :param handle_timeout_termination: accepted for compatibility with SB3; truncated and terminated always
        differ
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        *,
        ignore_keys: tuple[str, ...] = (),
        seed: int | None = None,
        replay_dir: str | os.PathLike[str] | None = None,
        spare_rows: int | None = None,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ):
        # SB3's ReplayBuffer allocates in its constructor; its base class does the rest of what we need.
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs)
        if buffer_size < n_envs:
            raise ValueError(f"buffer_size={buffer_size} is less than one row for each of {n_envs} environments")
        self.buffer_size = buffer_size // n_envs
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.codec = ActionCodec(action_space)
        self.keys = observation_keys(observation_space, ignore_keys)
        self.rng = np.random.default_rng(seed)
        spare = min(SPARE_ROWS, buffer_size) if spare_rows is None else spare_rows
        if spare < 1:
            raise ValueError(f"spare_rows={spare_rows} must be at least 1")
        self.storage = MemoryRows() if replay_dir is None else DiskRows(replay_dir)
        self.ring = self.buffer_size + (0 if replay_dir is None else -(-spare // n_envs))  #: rows that are kept
        self.arrays: dict[str, np.ndarray] = {}
        self.normalizer: VecNormalize | None = None  #: normalizes what is sampled, with its present statistics
        self._begin()

    def _begin(self) -> None:
        """Have no rows. The cursors are new arrays: a copy of the buffer may still use the former ones."""
        self.cursor = np.zeros(self.n_envs, np.int64)  # next row to write, for each environment
        self.filled = np.zeros(self.n_envs, np.int64)  # rows that are sampled: the last ones before the cursor
        self.written = np.zeros(self.n_envs, np.int64)  # rows ever written
        self.starts_episode = np.ones(self.n_envs, bool)  # the next add begins an episode
        self.limit = self.written + self.ring  # on disk: what ``written`` may reach before the next flush

    # ---- writing -----------------------------------------------------------------------------------------------

    def add(
        self,
        obs: Obs,
        next_obs: Obs,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of every environment, in SB3's terms.

        :param obs: observations before the step, ``(n_envs, ...)``; stored only where an episode begins
        :param next_obs: observations after it; the true final ones where ``done``
        :param action: executed actions in replay form (see :class:`ActionCodec`), ``(n_envs, parts)``
        :param reward: ``(n_envs,)``
        :param done: ``(n_envs,)`` bool
        :param infos: ``TimeLimit.truncated`` marks an episode that was cut, not ended
        """
        self.allocate()
        actions = np.asarray(action).reshape(self.n_envs, -1)
        for env in range(self.n_envs):
            before, after = ({key: value[env] for key, value in as_dict(part).items()} for part in (obs, next_obs))
            if self.starts_episode[env]:
                zero = np.zeros(self.codec.parts, self.codec.replay_dtype)
                self.write_row(env, before, zero, 0.0, is_first=True)
            ended = bool(done[env])
            truncated = bool(infos[env].get("TimeLimit.truncated", False))
            self.write_row(env, after, actions[env], reward[env], is_last=ended, is_terminal=ended and not truncated)
            self.starts_episode[env] = ended

    def write_row(
        self,
        env: int,
        obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: float,
        *,
        is_first: bool = False,
        is_last: bool = False,
        is_terminal: bool = False,
    ) -> None:
        """Write the next row of one environment; see :class:`SequenceBatch` for what belongs in a row."""
        row = self.cursor[env]
        if isinstance(self.storage, DiskRows):
            if self.written[env] >= self.limit[env]:
                self.flush()
            if row % RESERVED == 0:
                self.storage.reserve(env, int(row))
        for key in self.keys:
            self.arrays[f"obs.{key.name}"][env, row] = np.reshape(obs[key.name], key.shape)
        values = {"action": action, "reward": reward, "is_first": is_first}
        for name, value in (values | {"is_last": is_last, "is_terminal": is_terminal}).items():
            self.arrays[name][env, row] = value
        self.written[env] += 1
        self.cursor[env] = (row + 1) % self.ring
        self.filled[env] = min(self.filled[env] + 1, self.buffer_size)

    def cut(self) -> None:
        """End the running episodes as truncated: the environments were reset from outside."""
        for env in np.flatnonzero(~self.starts_episode):
            if self.filled[env]:
                self.arrays["is_last"][env, self.cursor[env] - 1] = True
        self.starts_episode[:] = True

    def reset(self) -> None:
        """Forget all rows; the memory stays."""
        super().reset()
        self._begin()
        if self.arrays:
            self.flush()

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def draws_ahead(self) -> bool:
        """Whether a batch may be drawn, in another thread, before the update with the one before it is over."""
        return True

    def size(self) -> int:
        """Rows stored, over all environments."""
        return int(self.filled.sum())

    def rows_for(self, length: int) -> int:
        """Rows that a sequence of ``length`` rows takes."""
        return length

    def ready(self, length: int) -> bool:
        """Whether a sequence of ``length`` rows can be drawn."""
        return bool((self.filled >= self.rows_for(length)).any())

    def sample_sequences(self, batch: int, length: int) -> SequenceBatch:
        """Draw sequences uniformly from all stretches of consecutive rows.

        :param batch: B
        :param length: T
        :raises ValueError: if no environment has ``length`` rows yet
        """
        if not (self.filled >= length).any():
            raise ValueError(
                f"replay holds no stretch of {length} rows yet (longest: {self.filled.max()}): "
                "collect more steps or lower batch_length"
            )
        return self._draw(batch, length, self.filled)

    def _draw(self, batch: int, length: int, newest: np.ndarray) -> SequenceBatch:
        """Draw sequences uniformly from the newest rows of each environment.

        :param newest: how many rows of each are drawn from, ``(n_envs,)``
        """
        choices = np.maximum(newest - length + 1, 0)
        pick = self.rng.integers(choices.sum(), size=batch)
        ends = np.cumsum(choices)
        env = np.searchsorted(ends, pick, side="right")
        first = (self.cursor - newest)[env] + pick - (ends - choices)[env]
        return self.gather(env, (first[:, None] + np.arange(length)) % self.ring)

    def sample_aside(
        self, rng: np.random.Generator, batch: int, length: int
    ) -> tuple[SequenceBatch, LatentState | None]:
        """Draw like :meth:`sample_sequences` with another generator, so that a training draws what it would have drawn.

        :return: the sequences, and the latent state before them ``(B, ...)`` where replay stores it
        """
        own, self.rng = self.rng, rng
        try:
            return self.sample_sequences(batch, length), self.start_state()
        finally:
            self.rng = own

    def start_state(self) -> LatentState | None:
        """Latent state before the first row of the sequences drawn last; None: replay stores none."""
        return None

    def batch_arrays(self) -> dict[str, np.ndarray]:
        """The arrays whose rows belong in a batch."""
        return self.arrays

    def gather(self, env: np.ndarray, rows: np.ndarray) -> SequenceBatch:
        """The given rows ``(B, T)`` of the given environments ``(B,)`` as tensors on the device."""
        drawn = {name: array[env[:, None], rows] for name, array in self.batch_arrays().items()}
        parts = {name: self._tensor(array) for name, array in self._normalized(drawn).items()}
        action = self.codec.to_model(parts["action"])
        return SequenceBatch(
            obs={key.name: parts[f"obs.{key.name}"] for key in self.keys},
            # The one-hot form of a zero index is not zero: no action led to a first row.
            prev_action=action.masked_fill(parts["is_first"].unsqueeze(-1), 0.0),
            reward=parts["reward"],
            is_first=parts["is_first"],
            is_last=parts["is_last"],
            is_terminal=parts["is_terminal"],
        )

    def _normalized(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows as the agent sees them: replay holds raw values, which VecNormalize scales when they are sampled."""
        env = self.normalizer
        if env is None:
            return rows
        changed = {}
        if env.norm_obs:
            for key in self.keys:
                rms = env.obs_rms.get(key.name) if isinstance(env.obs_rms, dict) else env.obs_rms
                if rms is not None:
                    changed[f"obs.{key.name}"] = env._normalize_obs(rows[f"obs.{key.name}"], rms).astype(np.float32)
        return rows | changed | {"reward": env.normalize_reward(rows["reward"]).astype(np.float32)}

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        tensor = th.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()  # Without it, the host waits for the copy.
        return tensor.to(self.device, non_blocking=True)

    def add_episodes(self, source: Any) -> int:
        """Add recorded episodes; see :func:`sb3_dreamer.common.replay.episodes.read_episodes` for what may be given.

        :return: number of episodes
        :raises ValueError: if an episode does not fit the spaces, or while an episode is running
        """
        return episodes.add_episodes(self, source)

    # ---- where the rows are kept -----------------------------------------------------------------------------------

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
                f"the cursors for '{self.storage.folder}' do not fit its rows: load the model with the buffer_size and "
                "the number of environments that wrote them; if it has these, the folder is damaged"
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
        rows, n_envs = metadata.get("rows"), metadata.get("n_envs")
        if (rows, n_envs) != (self.buffer_size, self.n_envs):
            size, envs = "...", "..."
            if isinstance(rows, int) and isinstance(n_envs, int) and 0 < rows < 2**40 and 0 < n_envs < 2**20:
                size, envs = str(rows * n_envs), str(n_envs)
            raise ModelFileError(
                f"{name} is a replay of {one_line(n_envs)} environment(s) with {one_line(rows)} rows each, this model "
                f"has {self.n_envs} with {self.buffer_size}: load the model with env=make_vec_env(..., n_envs={envs}) "
                f"and buffer_size={size}"
            )
        if "reward" in arrays:  # format version 1: (n_envs, rows, ...)
            arrays = _by_environment(arrays, self.n_envs)
        ring = metadata.get("ring", self.buffer_size)  # the first release had no rows to spare
        self._check_arrays(arrays, ring, name)
        generator = _random_from_json(metadata.get("random"))
        filled, cursor = arrays["filled"].copy(), arrays["cursor"]
        self.release()
        self._begin()
        same = ring == self.ring
        if filled.any():
            self.allocate()
        if isinstance(self.storage, DiskRows):
            for env in range(self.n_envs):
                self.storage.reserve(env, 0, len(arrays.get(f"{env}.reward", ())))
        for key, array in self.arrays.items():
            for env in range(self.n_envs):
                found = arrays.pop(f"{env}.{key}")
                if same:
                    array[env, : len(found)] = found
                else:
                    order = (cursor[env] - filled[env] + np.arange(filled[env])) % ring
                    array[env, : filled[env]] = found[order]
        self.rng, self.filled, self.starts_episode = generator, filled, arrays["starts_episode"].copy()
        self.written = np.where(filled == self.buffer_size, ring + cursor, cursor) if same else filled.copy()
        self.cursor = self.written % self.ring
        if self.arrays:
            self.flush()

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
