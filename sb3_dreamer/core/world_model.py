"""The world model: encoder, RSSM, decoder, reward and continue heads under one loss."""

from collections.abc import Callable
from typing import Protocol

import torch as th
from torch import nn

from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.heads import BernoulliHead, ScalarHead
from sb3_dreamer.core.latents import Latent, Params
from sb3_dreamer.core.overshooting import LatentOvershooting
from sb3_dreamer.core.representation import Reconstruction, Representation
from sb3_dreamer.core.state_space import Observed, StateSpaceModel
from sb3_dreamer.core.types import LatentState, ModelOutput, SequenceBatch


def continues(is_terminal: th.Tensor) -> th.Tensor:
    """The flag that a continue head predicts: ``1 - is_terminal``."""
    return 1.0 - is_terminal.float()


class KLObjective(Protocol):
    """See :mod:`sb3_dreamer.core.objectives`."""

    @property
    def scales(self) -> dict[str, float]:
        """Loss scales by name."""
        ...

    def __call__(self, latent: Latent, post: Params, prior: Params) -> dict[str, th.Tensor]:
        """Losses by name, each ``(B, T)``."""
        ...


class WorldModel(nn.Module):
    """Predicts observations, rewards and continue flags from latent states.

    :param encoder: observations to an embedding
    :param rssm: latent dynamics
    :param decoder: features to observations, or None
    :param reward: features to the reward
    :param cont: features to the continue flag, or None for a model that knows no ends (PlaNet)
    :param objective: KL objective
    :param scales: factors of ``reward`` and ``cont`` (1 each); those of the KL come from the objective
    :param representation: what shapes the latent state in place of the reconstruction; None: the decoder does

    An algorithm sets what depends on its arguments rather than on the architecture:

    :ivar detached: heads whose gradients stop at the features: ``recon``, ``reward``, ``cont`` (ablations)
    :ivar cont_target: what the continue head is to predict, from ``is_terminal (B, T)``
    :ivar overshooting: a further loss on priors rolled several steps (PlaNet's latent overshooting)
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        rssm: StateSpaceModel,
        decoder: Decoder | None,
        reward: ScalarHead,
        cont: BernoulliHead | None,
        objective: KLObjective,
        scales: dict[str, float] | None = None,
        representation: Representation | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.rssm = rssm
        self.decoder = decoder
        self.reward_head = reward
        self.cont_head = cont
        self.objective = objective
        self.detached: frozenset[str] = frozenset()
        self.cont_target: Callable[[th.Tensor], th.Tensor] = continues
        self.overshooting: LatentOvershooting | None = None
        if representation is None:
            if decoder is None:
                raise ValueError("decoder=None: pass a decoder, or another representation objective as representation")
            representation = Reconstruction(decoder)
        self.representation = representation
        own = {"reward": 1.0} | ({"cont": 1.0} if cont is not None else {}) | representation.scales
        self.scales: dict[str, float | th.Tensor] = {**own, **objective.scales, **(scales or {})}

    def encode(self, obs: dict[str, th.Tensor]) -> th.Tensor:
        """Raw observations ``{key: (..., *shape)}`` to the embedding ``(..., E)``."""
        return self.encoder(obs)  # type: ignore[no-any-return]

    def observe(self, batch: SequenceBatch, state: LatentState | None = None) -> Observed:
        """Filter replayed sequences; see :meth:`StateSpaceModel.observe`."""
        return self.rssm.observe(self.encode(batch.obs), batch.prev_action, batch.is_first, state)

    def imagine(
        self, policy: Callable[[LatentState], th.Tensor], state: LatentState, horizon: int
    ) -> tuple[LatentState, th.Tensor]:
        """Dream from ``state``; see :meth:`StateSpaceModel.imagine`."""
        return self.rssm.imagine(policy, state, horizon)

    def decode(self, feat: th.Tensor) -> dict[str, th.Tensor]:
        """Features ``(..., F)`` to mean observations in the units of the environment.

        :raises ValueError: for a model without a decoder
        """
        if self.decoder is None:
            raise ValueError(
                "this world model has no decoder, so it cannot show observations: train with representation='decoder' "
                "to see what it predicts"
            )
        return self.decoder.observation(self.decoder(feat))

    def reward(self, feat: th.Tensor) -> th.Tensor:
        """Predicted mean reward, ``(..., F)`` to ``(...)``."""
        return self.reward_head.mean(self.reward_head(feat))

    def cont(self, feat: th.Tensor) -> th.Tensor:
        """Predicted continue flag or probability (see :class:`BernoulliHead`), ``(..., F)`` to ``(...)``."""
        if self.cont_head is None:
            return th.ones_like(feat[..., 0])
        return self.cont_head.mean(self.cont_head(feat))

    def continue_probability(self, feat: th.Tensor) -> th.Tensor:
        """Like :meth:`cont`, without the discount that the head of DreamerV3's 2024 version predicts as well."""
        return (self.cont(feat) / getattr(self.cont_target, "gamma", 1.0)).clamp(max=1.0)

    def loss(self, batch: SequenceBatch, state: LatentState | None = None) -> ModelOutput:
        """All losses of one batch of sequences (DreamerV2 Eq. 2, DreamerV3 Eq. 4 and 5), unscaled, ``(B, T)`` each."""
        batch = batch._replace(obs=self.encoder.prepare(batch.obs))
        embed = self.encode(batch.obs)
        states, post, prior = self.rssm.observe(embed, batch.prev_action, batch.is_first, state)
        feat = states.feat
        head_feat = {name: feat.detach() if name in self.detached else feat for name in ("recon", "reward", "cont")}
        losses = self.representation(head_feat["recon"], embed, batch.obs)
        losses["reward"] = self.reward_head.loss(self.reward_head(head_feat["reward"]), batch.reward)
        if self.cont_head is not None:
            target = self.cont_target(batch.is_terminal)
            losses["cont"] = self.cont_head.loss(self.cont_head(head_feat["cont"]), target)
        losses |= self.objective(self.rssm.latent, post, prior)
        if self.overshooting is not None:
            losses |= self.overshooting(self.rssm, states, post, batch.prev_action, batch.is_first)
        with th.no_grad():
            metrics = {
                "prior_ent": self.rssm.latent.entropy(prior).mean(),
                "post_ent": self.rssm.latent.entropy(post).mean(),
            }
        return ModelOutput(losses, states, metrics)

    def total(self, losses: dict[str, th.Tensor]) -> th.Tensor:
        """The scalar that is minimized: every loss, averaged over the batch, times its scale.

        :raises ValueError: if losses and scales have different names
        """
        if losses.keys() != self.scales.keys():
            raise ValueError(f"losses {sorted(losses)} and loss scales {sorted(self.scales)} have different names")
        return th.stack([self.scales[name] * loss.mean() for name, loss in losses.items()]).sum()
