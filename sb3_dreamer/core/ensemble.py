"""An ensemble that predicts the next latent; where it disagrees, there is something to learn (arXiv 2005.05960)."""

import torch as th
from torch import nn

from sb3_dreamer.core.heads import Head
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.types import LatentState, SequenceBatch


class Ensemble(nn.Module):
    """K heads, ``(deter_t, stoch_t, a_t)`` to ``stoch_{t+1}``, which differ by their initial weights alone.

    :param inputs: width F of the features
    :param action: width A
    :param outputs: width S·K of the flat latent
    :param units: widths of the hidden layers
    :param heads: their number
    :param style: norm, activation and initialization
    """

    def __init__(self, inputs: int, action: int, outputs: int, units: tuple[int, ...], heads: int, *, style: NormStyle):
        super().__init__()
        self.heads = nn.ModuleList(Head(inputs + action, units, outputs, style=style) for _ in range(heads))

    def forward(self, feat: th.Tensor, action: th.Tensor) -> th.Tensor:
        """Features ``(..., F)`` and the actions taken there ``(..., A)`` to K predictions ``(K, ..., S·K)``."""
        inputs = th.cat([feat, action], -1)
        return th.stack([head(inputs).float() for head in self.heads])

    def disagreement(self, feat: th.Tensor, action: th.Tensor) -> th.Tensor:
        """Standard deviation over the heads, averaged over the latent, ``(...)``: the intrinsic reward of an action.

        The paper (Eq. 4) has the variance; the authors' code of 2023 (``expl.py``) the deviation.
        """
        variance: th.Tensor = self(feat, action).var(0, correction=0)
        return variance.add(1e-12).sqrt().mean(-1)

    def loss(self, post: LatentState, batch: SequenceBatch) -> th.Tensor:
        """Squared errors summed over the latent and the heads (Eq. 3), ``(B, T-1)``; 0 where an episode begins.

        :param post: posterior states, ``(B, T, ...)``, cut from the graph here
        :param batch: its ``prev_action[:, t + 1]`` is what was done in row t
        """
        post = post.detach()
        error: th.Tensor = self(post.feat[:, :-1], batch.prev_action[:, 1:]) - post.stoch.flatten(2)[:, 1:]
        return error.square().sum(-1).sum(0) * ~batch.is_first[:, 1:]
