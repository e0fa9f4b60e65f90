"""Masks of allowed discrete actions: learned from the environment's own, and applied to an actor's choices.

A mask is ``(..., A)``, one entry for each entry of the one-hot action, as in sb3-contrib's ``action_masks()``. In every
part at least one choice is allowed; a mask without any stands for "not known".
"""

from collections.abc import Callable

import torch as th
import torch.nn.functional as F

from sb3_dreamer.core.action_heads import ActionStats, OneHotHead
from sb3_dreamer.core.behavior import Behavior, RandomBehavior
from sb3_dreamer.core.functional import categorical_entropy, one_hot, one_hot_argmax
from sb3_dreamer.core.heads import Head
from sb3_dreamer.core.imagination import ImaginationActorCritic
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.types import LatentState, ModelOutput, SequenceBatch
from sb3_dreamer.core.world_model import WorldModel

MASK_KEY = "__action_mask__"  #: entry of ``SequenceBatch.obs`` that holds the masks; no encoder reads it
EXCLUDED = -1e9  #: log-probability of a choice that is not allowed: finite, so that 0 times it is 0


class MaskHead(Head):
    """Predicts the mask from features: ``(..., F)`` to logits ``(..., A)``.

    :param sizes: number of choices of each part
    """

    def __init__(self, inputs: int, units: tuple[int, ...], sizes: tuple[int, ...], *, style: NormStyle):
        super().__init__(inputs, units, sum(sizes), style=style)
        self.sizes = sizes

    def loss(self, out: th.Tensor, mask: th.Tensor) -> th.Tensor:
        """Cross-entropy summed over the actions, 0 where the mask is not known: ``(..., A)`` to ``(...)``."""
        entries = F.binary_cross_entropy_with_logits(out.float(), mask.float(), reduction="none")
        return entries.sum(-1) * mask.any(-1)

    def mask(self, out: th.Tensor) -> th.Tensor:
        """The more likely mask, with the likeliest choice of each part always allowed, ``(..., A)`` bool."""
        parts = out.detach().split(self.sizes, -1)
        return th.cat([(part > 0) | one_hot_argmax(part).bool() for part in parts], -1)


class PredictedMask:
    """Reads masks off features with a head that belongs to the world model; not a module, so no second owner."""

    def __init__(self, head: MaskHead):
        self.head = head

    def __call__(self, feat: th.Tensor) -> th.Tensor:
        """``(..., F)`` to ``(..., A)`` bool."""
        return self.head.mask(self.head(feat))


class MaskedWorldModel(WorldModel):
    """A world model that also learns which actions are allowed; parameters as :class:`WorldModel`.

    :param mask_head: features to the mask
    """

    def __init__(self, *, mask_head: MaskHead, **parts: object):
        super().__init__(**parts)  # type: ignore[arg-type]
        self.mask_head = mask_head
        self.scales["mask"] = 1.0

    def loss(self, batch: SequenceBatch, state: LatentState | None = None) -> ModelOutput:
        """See :class:`WorldModel`; one loss more, ``mask``."""
        output = super().loss(batch, state)
        output.losses["mask"] = self.mask_head.loss(self.mask_head(output.post.feat), batch.obs[MASK_KEY])
        return output


class MaskedOneHotHead(OneHotHead):
    """An actor that gives no probability to choices that are not allowed. Raw outputs ``(..., 2 A)``: logits, mask.

    In a dream the mask is the world model's prediction; in an environment :meth:`with_mask` puts the real one.

    :param predict_mask: features ``(..., F)`` to a mask ``(..., A)``, usually :class:`PredictedMask`
    """

    def __init__(
        self,
        inputs: int,
        units: tuple[int, ...],
        sizes: tuple[int, ...],
        *,
        style: NormStyle,
        unimix: float,
        outscale: float,
        predict_mask: Callable[[th.Tensor], th.Tensor],
    ):
        super().__init__(inputs, units, sizes, style=style, unimix=unimix, outscale=outscale)
        self.predict_mask = predict_mask

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """Raw outputs with the predicted mask."""
        with th.no_grad():
            mask = self.predict_mask(feat)
        return self.with_mask(super().forward(feat), mask)

    def with_mask(self, out: th.Tensor, mask: th.Tensor) -> th.Tensor:
        """Raw outputs ``(..., A)`` or ``(..., 2 A)`` with ``mask (..., A)`` in place of theirs."""
        return th.cat([out[..., : sum(self.sizes)], mask.to(out.dtype)], -1)

    def parts(self, out: th.Tensor) -> list[th.Tensor]:
        """Normalized log-probabilities of each part; the uniform share goes to allowed choices only."""
        logits, masks = (half.split(self.sizes, -1) for half in out.float().chunk(2, -1))
        return [self._masked(part, mask > 0) for part, mask in zip(logits, masks, strict=True)]

    def _masked(self, logits: th.Tensor, mask: th.Tensor) -> th.Tensor:
        logs = F.log_softmax(logits.masked_fill(~mask, EXCLUDED), -1)
        if self.unimix:
            uniform = mask / mask.sum(-1, keepdim=True).clamp(min=1)
            logs = ((1.0 - self.unimix) * logs.exp() + self.unimix * uniform).clamp(min=1e-38).log()
        return logs.masked_fill(~mask, EXCLUDED)

    def mode(self, out: th.Tensor) -> th.Tensor:
        """One-hot blocks of the most likely allowed choices."""
        return th.cat([one_hot_argmax(part) for part in self.parts(out)], -1)

    def stats(self, out: th.Tensor, action: th.Tensor) -> ActionStats:
        """Summed over the parts; the entropy is that of the allowed choices.

        An action that was taken counts as allowed: rounding may have changed a mask that is predicted anew.
        """
        parts = self.parts(self.with_mask(out, th.maximum(out.chunk(2, -1)[1], action)))
        chosen = action.split(self.sizes, -1)
        log_prob = sum((part * one).sum(-1) for part, one in zip(parts, chosen, strict=True))
        return ActionStats(th.as_tensor(log_prob), th.as_tensor(sum(categorical_entropy(part) for part in parts)))


class MaskedActing(Behavior):
    """An actor that acts with the environment's mask instead of the predicted one.

    :param behavior: its actor is a :class:`MaskedOneHotHead`
    :param mask: ``(n, A)`` bool, or ``(1, A)`` for all alike
    """

    def __init__(self, behavior: ImaginationActorCritic, mask: th.Tensor):
        super().__init__()
        self.behavior = behavior
        self.mask = mask

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """See :class:`Behavior`.

        :raises ValueError: for masks of another number of environments
        """
        actor, count = self.behavior.actor, len(state.deter)
        if len(self.mask) not in (1, count):
            raise ValueError(f"{len(self.mask)} action masks were given for {count} observations: pass one for each")
        assert isinstance(actor, MaskedOneHotHead)
        out = actor.with_mask(actor(state.feat), self.mask.expand(count, -1))
        return actor.mode(out) if deterministic else actor.sample(out)


class MaskedRandom(RandomBehavior):
    """Uniform among the allowed choices; :attr:`mask` is set before each step."""

    mask: th.Tensor

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """One-hot blocks; the first allowed choice if deterministic."""
        blocks = []
        for part in self.mask.float().split(self.layout.sizes, -1):
            index = part.argmax(-1) if deterministic else th.multinomial(part, 1).squeeze(-1)
            blocks.append(one_hot(index, part.shape[-1]))
        return th.cat(blocks, -1)
