"""Sequence replay: one ring of rows for each environment, sampled in stretches that may span episodes."""

import os
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dreamer.common.replay import episodes
from sb3_dreamer.common.replay.rows import ReplayRows
from sb3_dreamer.common.replay.storage import DiskRows, MemoryRows
from sb3_dreamer.common.spaces import ActionCodec, as_dict, observation_keys
from sb3_dreamer.core.types import SequenceBatch

Obs = np.ndarray | dict[str, np.ndarray]
SPARE_ROWS = 50_000  #: rows on disk beyond buffer_size, which protect what a checkpoint needs from being overwritten


class SequenceReplayBuffer(ReplayRows):
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
        self.cursor = np.zeros(n_envs, np.int64)  # next row to write, for each environment
        self.filled = np.zeros(n_envs, np.int64)  # rows that are sampled: the last ones before the cursor
        self.written = np.zeros(n_envs, np.int64)  # rows ever written
        self.starts_episode = np.ones(n_envs, bool)  # the next add begins an episode
        self.normalizer: VecNormalize | None = None  #: normalizes what is sampled, with its present statistics
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
        if self.on_disk and self.written[env] >= self.limit[env]:
            self.flush()
        row = self.cursor[env]
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
        self.cursor[:] = 0
        self.filled[:] = 0
        self.written[:] = 0
        self.starts_episode[:] = True

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
        choices = np.maximum(self.filled - length + 1, 0)
        if not choices.any():
            raise ValueError(
                f"replay holds no stretch of {length} rows yet (longest: {self.filled.max()}): "
                "collect more steps or lower batch_length"
            )
        pick = self.rng.integers(choices.sum(), size=batch)
        ends = np.cumsum(choices)
        env = np.searchsorted(ends, pick, side="right")
        first = (self.cursor - self.filled)[env] + pick - (ends - choices)[env]
        return self.gather(env, (first[:, None] + np.arange(length)) % self.ring)

    def gather(self, env: np.ndarray, rows: np.ndarray) -> SequenceBatch:
        """The given rows ``(B, T)`` of the given environments ``(B,)`` as tensors on the device."""
        drawn = {name: array[env[:, None], rows] for name, array in self.arrays.items()}
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
