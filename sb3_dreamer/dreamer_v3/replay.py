"""Replay with what is known of a row only when the agent acts on it: its latent state and its action mask."""

from typing import Any

import numpy as np
import torch as th
import torch.nn.functional as F

from sb3_dreamer.common.replay.buffer import Obs, SequenceReplayBuffer
from sb3_dreamer.common.replay.storage import Layout
from sb3_dreamer.common.spec import one_of
from sb3_dreamer.core.action_masks import MASK_KEY
from sb3_dreamer.core.types import LatentState, SequenceBatch

DETER, STOCH, MASK = "context.deter", "context.stoch", "action_mask"
CONTEXT_DTYPES = ("float16", "float32")  #: of deter
START = ("__start_deter__", "__start_stoch__")  #: entries of ``SequenceBatch.obs``: the state before the first row


class AnnotatedReplayBuffer(SequenceReplayBuffer):
    """A :class:`SequenceReplayBuffer` with further columns, which :meth:`configure` chooses.

    *Context*: the latent state of each row, first as the acting agent computed it, then as the latest update did. A
    sequence is drawn with the row before it, whose latent state it continues from. deter takes 2 bytes per unit in
    float16, stoch one byte per variable (the chosen class); ``nbytes`` and the announced memory count them.

    A batch holds that state, ``(B, ...)``, beside its observations under the names ``START``.

    *Masks*: the actions allowed in each row; nothing allowed means not known (the last row of an episode).
    """

    context: tuple[int, int, int] | None = None
    context_dtype: str = "float16"
    masked = False
    drawn: tuple[np.ndarray, np.ndarray] | None = None
    pending: dict[str, np.ndarray] | None = None

    def configure(
        self, *, context: tuple[int, int, int] | None = None, dtype: str = "float16", masked: bool = False
    ) -> None:
        """Choose the columns, before the first row is stored.

        :param context: deter D, variables S and classes K of the latent state; None stores none
        :param dtype: of deter, ``float16`` or ``float32``
        :param masked: store action masks
        :raises ValueError: for another dtype, or if there are rows already
        """
        one_of("context_dtype", dtype, CONTEXT_DTYPES)
        if self.arrays:
            raise ValueError("the replay has rows already: configure it before")
        self.context, self.context_dtype, self.masked = context, dtype, masked

    def layout(self) -> Layout:
        """See :class:`SequenceReplayBuffer`; with the chosen columns."""
        layout = dict(super().layout())
        if self.context:
            for name, size, dtype in zip((DETER, STOCH), self.context[:2], self._context_dtypes(), strict=True):
                layout[name] = ((size,), np.dtype(dtype))
        if self.masked:
            layout[MASK] = ((self.codec.layout.size,), np.dtype(bool))
        return layout

    # ---- writing -----------------------------------------------------------------------------------------------

    def annotate(self, state: LatentState | None, mask: np.ndarray | None) -> None:
        """Note what the agent knew when it chose the actions that the next :meth:`add` stores.

        :param state: ``(n_envs, ...)``
        :param mask: ``(n_envs, A)`` bool
        """
        self.pending = self._columns(state) if self.context and state is not None else {}
        if self.masked and mask is not None:
            self.pending[MASK] = mask

    def _columns(self, state: LatentState) -> dict[str, np.ndarray]:
        """Latent states in the form in which they are stored: classes count from 1, so that 0 stands for not known."""
        # Converted on the device first; ``non_blocking`` makes torch copy from a GPU into pinned memory.
        deter, stoch = (getattr(th, dtype) for dtype in self._context_dtypes())
        columns = {DETER: state.deter.detach().to(deter), STOCH: (state.stoch.detach().argmax(-1) + 1).to(stoch)}
        copies = {name: column.to("cpu", non_blocking=True) for name, column in columns.items()}
        if state.deter.is_cuda:
            th.cuda.current_stream(state.deter.device).synchronize()
        return {name: copy.numpy() for name, copy in copies.items()}

    def _context_dtypes(self) -> tuple[str, str]:
        """Names of the dtypes in which deter and the classes of stoch are stored."""
        assert self.context
        return self.context_dtype, "uint8" if self.context[2] <= 255 else "int16"

    def add(
        self,
        obs: Obs,
        next_obs: Obs,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """See :class:`SequenceReplayBuffer`; annotations go to the rows of ``obs``."""
        rows = np.where(self.starts_episode, self.cursor, (self.cursor - 1) % self.ring)
        super().add(obs, next_obs, action, reward, done, infos)
        for name, value in (self.pending or {}).items():
            self.arrays[name][np.arange(self.n_envs), rows] = value
        self.pending = None

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
        """See :class:`SequenceReplayBuffer`; the new row has no annotation yet."""
        row = self.cursor[env]
        super().write_row(env, obs, action, reward, is_first=is_first, is_last=is_last, is_terminal=is_terminal)
        for name in (DETER, STOCH, MASK):
            if name in self.arrays:
                self.arrays[name][env, row] = 0  # The ring may have had another row here.

    # ---- reading -----------------------------------------------------------------------------------------------

    def rows_for(self, length: int) -> int:
        """Rows that a sequence of ``length`` rows takes, the row before it included if there is context."""
        return length + bool(self.context)

    def sample_sequences(self, batch: int, length: int) -> SequenceBatch:
        """See :class:`SequenceReplayBuffer`. With context, the row before each sequence is drawn and held back."""
        return super().sample_sequences(batch, length + bool(self.context))

    def sample_aside(
        self, rng: np.random.Generator, batch: int, length: int
    ) -> tuple[SequenceBatch, LatentState | None]:
        """See :class:`SequenceReplayBuffer`; the next :meth:`write_back` goes where it would have gone."""
        drawn = self.drawn
        try:
            return super().sample_aside(rng, batch, length)
        finally:
            self.drawn = drawn

    def batch_arrays(self) -> dict[str, np.ndarray]:
        """See :class:`SequenceReplayBuffer`; the latent states of all rows are not to be brought to the device."""
        return {name: array for name, array in self.arrays.items() if name not in (DETER, STOCH, MASK)}

    def gather(self, env: np.ndarray, rows: np.ndarray) -> SequenceBatch:
        """See :class:`SequenceReplayBuffer`; the first of the rows is context and not part of the batch."""
        self.drawn = (env, rows)
        rows = rows[:, bool(self.context) :]
        batch = super().gather(env, rows)
        state = self.start_state()
        if state is not None:
            batch = batch._replace(obs=batch.obs | dict(zip(START, state, strict=True)))
        return self._with_mask(batch, env, rows)

    @property
    def draws_ahead(self) -> bool:
        """See :class:`SequenceReplayBuffer`; not with context, since every update writes what the next may read."""
        return not self.context

    def _with_mask(self, batch: SequenceBatch, env: np.ndarray, rows: np.ndarray) -> SequenceBatch:
        if not self.masked:
            return batch
        return batch._replace(obs=batch.obs | {MASK_KEY: self._tensor(self.arrays[MASK][env[:, None], rows])})

    def start_state(self) -> LatentState | None:
        """Latent state before the first row of the sequences drawn last, ``(B, ...)``; None without context.

        Zeros where no state is known, as in a recorded episode that was added.
        """
        if not self.context or self.drawn is None:
            return None
        env, rows = self.drawn
        deter, stoch = (self._tensor(self.arrays[name][env, rows[:, 0]]) for name in (DETER, STOCH))
        one_hot = F.one_hot(stoch.long(), self.context[2] + 1)[..., 1:]
        return LatentState(deter.float(), one_hot.float())

    def write_back(self, post: LatentState) -> None:
        """Store newer latent states of the sequences drawn last, except those that are not finite.

        :param post: ``(B, T, ...)``
        """
        if not self.context or self.drawn is None:
            return
        env, rows = np.broadcast_arrays(self.drawn[0][:, None], self.drawn[1][:, 1:])
        columns = self._columns(post)
        finite = np.isfinite(columns[DETER]).all(-1)
        for name, value in columns.items():
            self.arrays[name][env[finite], rows[finite]] = value[finite]
