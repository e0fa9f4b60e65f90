"""Tuples that travel between the parts of a world model.

Time alignment of every sequence in this library (row t)::

    row t      obs_t    prev_action_t      reward_t              is_first  is_last  is_terminal
                        (it led to obs_t)  (received with obs_t)

    deter_t = f(deter_{t-1}, stoch_{t-1}, prev_action_t)    post_t = q(deter_t, embed_t)    prior_t = p(deter_t)
    reward_t, cont_t and obs_t are predicted from (deter_t, stoch_t)

An episode of L environment steps is L + 1 rows: the reset observation first (``is_first``, zero action, zero reward),
the true final observation last (``is_last``; ``is_terminal`` only if it terminated, not if it was truncated).

Symbols used in shapes: B batch, T time, H horizon, N = B*T imagination starts, A action, D deter, S*K stoch,
E embed, F feat.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch as th


class LatentState(NamedTuple):
    """Latent state, all that is carried from step to step.

    :param deter: recurrent state, ``(..., D)``
    :param stoch: sample of the latent, ``(..., S, K)`` (categorical) or ``(..., S)`` (Gaussian)
    """

    deter: th.Tensor
    stoch: th.Tensor

    @property
    def feat(self) -> th.Tensor:
        """Features for heads and behaviors, ``(..., F)``: deter and the flattened stoch."""
        return th.cat([self.deter, self.stoch.flatten(self.deter.ndim - 1)], -1)

    def detach(self) -> "LatentState":
        """The same state, cut from the graph."""
        return LatentState(self.deter.detach(), self.stoch.detach())

    def flatten_time(self) -> "LatentState":
        """``(B, T, ...)`` to ``(N, ...)``."""
        return LatentState(self.deter.flatten(0, 1), self.stoch.flatten(0, 1))


class SequenceBatch(NamedTuple):
    """Replayed sequences, everything ``(B, T, ...)``; see the alignment picture above.

    :param obs: observation by key, in the dtype of the environment
    :param prev_action: the executed action that led to ``obs``, ``(B, T, A)``: [-1, 1] or one-hot; 0 at ``is_first``
    :param reward: reward received on arrival, ``(B, T)`` float32
    :param is_first: first row of an episode, ``(B, T)`` bool
    :param is_last: last row of an episode, ``(B, T)`` bool
    :param is_terminal: the episode was ended by the task, not by a time limit, ``(B, T)`` bool
    """

    obs: dict[str, th.Tensor]
    prev_action: th.Tensor
    reward: th.Tensor
    is_first: th.Tensor
    is_last: th.Tensor
    is_terminal: th.Tensor

    def map(self, change: Callable[[th.Tensor], th.Tensor]) -> "SequenceBatch":
        """The batch with every tensor changed alike."""
        return SequenceBatch({name: change(value) for name, value in self.obs.items()}, *map(change, self[1:]))


class ModelOutput(NamedTuple):
    """Result of :meth:`WorldModel.loss`.

    :param losses: unscaled losses by name, each ``(B, T)``
    :param post: posterior states, ``(B, T, ...)``, attached to the graph
    :param metrics: scalars (0-d tensors), detached
    """

    losses: dict[str, th.Tensor]
    post: LatentState
    metrics: dict[str, th.Tensor]


class ImaginedTrajectory(NamedTuple):
    """A dreamed rollout: H + 1 states, H actions between them.

    ::

        state   s_0 --a_0--> s_1 --a_1--> ... s_H         s_0 is a replayed posterior, the rest come from the prior
        reward        r_1          r_2        r_H         r_{t+1} belongs to a_t
        cont    c_0         c_1               c_H         c_0 is the real flag of the replayed row, or predicted

    :param feat: ``(N, H+1, F)``
    :param action: ``(N, H, A)``
    :param log_prob: of ``action`` under the actor that took it, ``(N, H)``
    :param entropy: of the actor in states 0..H-1, ``(N, H)``
    :param reward: predicted means of r_1 .. r_H, ``(N, H)``
    :param cont: continue flags or probabilities c_0 .. c_H, ``(N, H+1)``
    """

    feat: th.Tensor
    action: th.Tensor
    log_prob: th.Tensor
    entropy: th.Tensor
    reward: th.Tensor
    cont: th.Tensor


class ObsKey(NamedTuple):
    """Kind, shape and categories of one observation key.

    :param name: key of the observation dict
    :param kind: ``image`` (C, H, W), ``vector`` (flattened floats) or ``discrete`` (category indices)
    :param shape: shape of one observation without batch axes
    :param classes: number of categories of each index of a ``discrete`` key, in row-major order; else empty
    :param starts: smallest value of each index of a ``discrete`` key; else empty
    :param white: an ``image`` is divided by it: 255 for uint8, 1 for floats that are about 0 to 1
    """

    name: str
    kind: Literal["image", "vector", "discrete"]
    shape: tuple[int, ...]
    classes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    white: float = 255.0


class ActionLayout(NamedTuple):
    """Form of an action inside the model, ``(..., A)`` floats.

    :param kind: ``continuous`` (each entry in [-1, 1]) or ``discrete`` (one one-hot block for each part)
    :param sizes: ``(A,)`` for continuous actions, the number of choices of each part for discrete ones
    """

    kind: Literal["continuous", "discrete"]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """A, the length of the action vector."""
        return sum(self.sizes)


class UpdateResult(NamedTuple):
    """What one update of an algorithm gives back.

    :param metrics: 0-d tensors by name
    :param post: posterior states of the batch, without graph, ``(B, T, ...)``
    """

    metrics: dict[str, th.Tensor]
    post: LatentState
