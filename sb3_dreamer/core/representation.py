"""What shapes the latent state besides rewards, ends and the KL: reconstruction, or an objective without a decoder.

An objective is called with the features of the posterior, the embedding that they were made from, and the observations,
and returns losses by name, each ``(B, T)``. Those without a decoder compare the features with the embedding.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_dreamer.core.codecs import Decoder
from sb3_dreamer.core.layers import linear


class Representation(Protocol):
    """Methods that a world model calls on its representation objective."""

    @property
    def scales(self) -> dict[str, float]:
        """Loss scales by name."""
        ...

    def __call__(self, feat: th.Tensor, embed: th.Tensor, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Losses by name from features ``(B, T, F)``, embeddings ``(B, T, E)`` and prepared observations."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """Every observation is decoded again; not a module, since the decoder belongs to the world model.

    :param decoder: features to observations
    """

    decoder: Decoder

    @property
    def scales(self) -> dict[str, float]:
        """See :class:`Representation`."""
        return self.decoder.scales

    def __call__(self, feat: th.Tensor, embed: th.Tensor, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """See :class:`Representation`."""
        return self.decoder.losses(self.decoder(feat), obs)


class _Projected(nn.Module):
    """A linear map of the features to the width of the embedding, which is a target: no gradient enters it here.

    The encoder learns through the posterior, as it does from rewards and the KL.

    :param feat: width F
    :param embed: width E
    """

    def __init__(self, feat: int, embed: int):
        super().__init__()
        self.projector = linear(feat, embed, bias=False)

    def pair(self, feat: th.Tensor, embed: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Projected features and embeddings of all rows, ``(N, E)`` each, float32."""
        return self.projector(feat.flatten(0, 1)).float(), embed.detach().flatten(0, 1).float()


class BarlowTwins(_Projected):
    """Redundancy reduction (Barlow Twins, arXiv 2103.03230) between features and embeddings, as in R2-Dreamer.

    ``Σ_i (C_ii - 1)² + λ Σ_{i≠j} C_ij²``, C the correlations of the entries of both over the rows of the batch. It is
    one number for the whole batch. NM512/r2dreamer has λ = 5e-4 and the scale 0.05.
    """

    redundancy = 5e-4
    scales = {"barlow": 0.05}  # noqa: RUF012

    def forward(self, feat: th.Tensor, embed: th.Tensor, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """See :class:`Representation`."""
        ours, theirs = ((x - x.mean(0)) / (x.std(0) + 1e-8) for x in self.pair(feat, embed))
        correlation = ours.T @ theirs / len(ours)
        diagonal = correlation.diagonal()
        others = correlation.square().sum() - diagonal.square().sum()
        loss = (diagonal - 1.0).square().sum() + self.redundancy * others
        return {"barlow": loss.expand(feat.shape[:2])}


class Contrastive(_Projected):
    """InfoNCE (arXiv 1807.03748): which embedding of the batch do these features belong to?

    ``-ln softmax_j(W f_i · e_j / √E)`` at j = i, over all rows of the batch. NM512/r2dreamer has the same objective
    without the division, which keeps the first logits small.
    """

    scales = {"contrastive": 1.0}  # noqa: RUF012

    def forward(self, feat: th.Tensor, embed: th.Tensor, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """See :class:`Representation`."""
        ours, theirs = self.pair(feat, embed)
        logits = ours @ theirs.T / math.sqrt(theirs.shape[-1])
        loss = F.cross_entropy(logits, th.arange(len(logits), device=logits.device), reduction="none")
        return {"contrastive": loss.unflatten(0, feat.shape[:2])}


WITHOUT_DECODER: dict[str, type[BarlowTwins | Contrastive]] = {"barlow": BarlowTwins, "contrastive": Contrastive}
