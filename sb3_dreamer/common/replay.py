"""Sequence replay: one ring of rows for each environment, sampled in stretches that may span episodes."""

import math
import mmap
import sys
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dreamer.common.json_codec import ModelFileError
from sb3_dreamer.common.spaces import ActionCodec, as_dict, observation_keys, space_dict
from sb3_dreamer.core.types import SequenceBatch

Obs = np.ndarray | dict[str, np.ndarray]


def lazy_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros whose memory the operating system takes page by page, when it is first written.

    ``np.zeros`` does so too, but Linux refuses it as soon as the whole is more than the machine has, even for a run
    that fills a thousandth of it. Whether a run fits is judged by :func:`sb3_dreamer.common.report.check_memory`.
    """
    count = math.prod(shape)
    if sys.platform != "linux" or count == 0:
        return np.zeros(shape, dtype)
    no_reserve = 0x4000  # MAP_NORESERVE; the mmap module names it from Python 3.13 on
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    return np.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=flags), dtype, count).reshape(shape)


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
    :param optimize_memory_usage: accepted for SB3's sake; observations are never stored twice
    :param handle_timeout_termination: accepted for SB3's sake; truncated and terminated are always told apart
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
        self.arrays: dict[str, np.ndarray] = {}
        self.cursor = np.zeros(n_envs, np.int64)  # next row to write, for each environment
        self.filled = np.zeros(n_envs, np.int64)  # rows that hold data, for each environment
        self.starts_episode = np.ones(n_envs, bool)  # the next add begins an episode

    # ---- memory ------------------------------------------------------------------------------------------------

    def _layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
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
        row = sum(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in self._layout().values())
        return row * self.buffer_size * self.n_envs

    def allocate(self) -> None:
        """Take the memory. The operating system commits pages as rows are written."""
        if not self.arrays:
            self.arrays = {
                name: lazy_zeros((self.n_envs, self.buffer_size, *shape), dtype)
                for name, (shape, dtype) in self._layout().items()
            }

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
        before, after = as_dict(obs), as_dict(next_obs)
        actions = np.asarray(action).reshape(self.n_envs, -1)
        for env in range(self.n_envs):
            if self.starts_episode[env]:
                zero = np.zeros(self.codec.parts, self.codec.replay_dtype)
                self._write(env, before, zero, 0.0, is_first=True)
            ended = bool(done[env])
            truncated = bool(infos[env].get("TimeLimit.truncated", False))
            self._write(env, after, actions[env], reward[env], is_last=ended, is_terminal=ended and not truncated)
            self.starts_episode[env] = ended

    def _write(
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
        row = self.cursor[env]
        for key in self.keys:
            self.arrays[f"obs.{key.name}"][env, row] = np.reshape(obs[key.name][env], key.shape)
        values = {"action": action, "reward": reward, "is_first": is_first}
        for name, value in (values | {"is_last": is_last, "is_terminal": is_terminal}).items():
            self.arrays[name][env, row] = value
        self.cursor[env] = (row + 1) % self.buffer_size
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
        self.cursor[:] = 0
        self.filled[:] = 0
        self.starts_episode[:] = True

    # ---- reading -----------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Rows stored, over all environments."""
        return int(self.filled.sum())

    def ready(self, length: int) -> bool:
        """Whether a sequence of ``length`` rows can be drawn."""
        return bool((self.filled >= length).any())

    def sample_sequences(self, batch: int, length: int) -> SequenceBatch:
        """Draw sequences uniformly from all stretches of consecutive rows.

        :param batch: B
        :param length: T
        :raises ValueError: if no environment has ``length`` rows yet
        """
        choices = np.maximum(self.filled - length + 1, 0)
        if not choices.any():
            raise ValueError(
                f"replay holds no stretch of {length} rows yet (longest: {self.filled.max()}): "
                "collect more steps or lower batch_length"
            )
        pick = self.rng.integers(choices.sum(), size=batch)
        ends = np.cumsum(choices)
        env = np.searchsorted(ends, pick, side="right")
        # Rows are counted from the oldest one, which stands at the cursor once the ring is full.
        oldest = np.where(self.filled == self.buffer_size, self.cursor, 0)
        first = oldest[env] + pick - (ends - choices)[env]
        return self.gather(env, (first[:, None] + np.arange(length)) % self.buffer_size)

    def gather(self, env: np.ndarray, rows: np.ndarray) -> SequenceBatch:
        """The given rows ``(B, T)`` of the given environments ``(B,)`` as tensors on the device."""
        parts = {name: self._tensor(array[env[:, None], rows]) for name, array in self.arrays.items()}
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

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return th.from_numpy(array).to(self.device, non_blocking=True)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Not for single transitions: world models learn from sequences.

        :raises TypeError: always; use :meth:`sample_sequences`
        """
        raise TypeError("SequenceReplayBuffer.sample() has no single transitions: use sample_sequences(batch, length)")

    # ---- files -------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that a file must hold: the rows written so far, cursors and the state of the sampling."""
        rows = int(self.filled.max())
        arrays = {name: array[:, :rows] for name, array in self.arrays.items()}
        cursors = {"cursor": self.cursor, "filled": self.filled, "starts_episode": self.starts_episode}
        random = self.rng.bit_generator.state
        words = {name: str(value) for name, value in random["state"].items()}  # 128-bit numbers: not for JSON
        return arrays | cursors, {"rows": self.buffer_size, "n_envs": self.n_envs, "random": {**random, "state": words}}

    def from_arrays(self, arrays: dict[str, np.ndarray], metadata: dict[str, Any], name: str = "the file") -> None:
        """Take over what :meth:`to_arrays` gave; nothing changes if it does not fit.

        :param name: of the file, for messages
        :raises ModelFileError: if the rows are of other spaces, another number of environments or another size
        """
        if (metadata.get("rows"), metadata.get("n_envs")) != (self.buffer_size, self.n_envs):
            raise ModelFileError(
                f"{name} is a replay of {metadata.get('n_envs')} environments with {metadata.get('rows')} rows each, "
                f"this model has {self.n_envs} with {self.buffer_size}: "
                "load the model with the same buffer_size and n_envs"
            )
        filled = np.asarray(arrays.get("filled", []))
        rows = int(filled.max()) if filled.shape == (self.n_envs,) else -1
        expected = {key: ((self.n_envs, rows, *shape), dtype) for key, (shape, dtype) in self._layout().items()}
        cursors = {"cursor": np.int64, "filled": np.int64, "starts_episode": bool}
        expected |= {key: ((self.n_envs,), np.dtype(dtype)) for key, dtype in cursors.items()}
        if rows == 0:
            expected = {key: value for key, value in expected.items() if key in cursors}
        for key, (shape, dtype) in expected.items():
            found = arrays.get(key)
            if found is None or found.shape != shape or found.dtype != dtype:
                what = "is missing" if found is None else f"is {found.dtype} {found.shape}"
                raise ModelFileError(f"{name} does not fit this model: {key} {what}, expected {dtype} {shape}")
        if not (
            filled.min() >= 0
            and rows <= self.buffer_size
            and 0 <= arrays["cursor"].min() <= arrays["cursor"].max() < self.buffer_size
        ):
            raise ModelFileError(f"{name} has cursors outside the buffer: the file is damaged")
        generator = np.random.default_rng()
        random = metadata["random"]
        words = {key: int(value) for key, value in random["state"].items()}
        generator.bit_generator.state = {**random, "state": words}
        self.arrays = {}
        self.cursor, self.filled, self.starts_episode = (arrays[key].copy() for key in cursors)
        self.rng = generator
        if rows:
            self.allocate()
            for key, array in self.arrays.items():
                array[:, :rows] = arrays[key]

    # ---- SB3's views: (rows, n_envs, ...) -------------------------------------------------------------------------

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
