"""Heads that read a number off a latent state: reward, continue, value. (Actors: :mod:`action_heads`.)

A head maps features to raw outputs (``forward``), and turns raw outputs into a loss, a mean or a sample, so that one
forward pass serves all of them.
"""

from typing import Literal

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_dreamer.core.functional import (
    repeated,
    symexp,
    symexp_bins,
    symlog,
    symlog_bins,
    symmetric_mean,
    two_hot_loss,
)
from sb3_dreamer.core.layers import MLP, NormStyle, linear


class Head(nn.Module):
    """An MLP and a linear map: ``(..., F)`` to raw outputs ``(..., outputs)``.

    :param inputs: width F of the features
    :param units: widths of the hidden layers
    :param outputs: width of the raw output
    :param outscale: scale of the last layer's initialization; 0 starts with zero output
    """

    def __init__(self, inputs: int, units: tuple[int, ...], outputs: int, *, style: NormStyle, outscale: float = 1.0):
        super().__init__()
        self.mlp = MLP(inputs, units, style=style)
        self.out = linear(self.mlp.out_size, outputs, scale=outscale, fan=style.fan)

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """Raw outputs ``(..., outputs)``."""
        return self.out(self.mlp(feat))  # type: ignore[no-any-return]


class ScalarHead(Head):
    """A head that predicts one number. Raw outputs ``(..., outputs)``; losses and means ``(...)``."""

    def loss(self, out: th.Tensor, *targets: th.Tensor) -> th.Tensor:
        """Negative log-likelihood of a target ``(...)``, or the sum of those of several targets."""
        raise NotImplementedError

    def mean(self, out: th.Tensor) -> th.Tensor:
        """Prediction ``(...)``."""
        raise NotImplementedError


class TwoHotHead(ScalarHead):
    """Two-hot regression on 255 bins, zero at the start (DreamerV3, Eq. 8 to 10).

    :param bins: ``symlog``: bins evenly spaced in symlog space, the mean is taken there and then expanded (2023);
        ``symexp``: exponentially spaced bins, the mean is taken in real space (2024)
    """

    bins: th.Tensor

    def __init__(
        self,
        inputs: int,
        units: tuple[int, ...],
        *,
        style: NormStyle,
        bins: Literal["symlog", "symexp"] = "symlog",
        n_bins: int = 255,
    ):
        super().__init__(inputs, units, n_bins, style=style, outscale=0.0)
        if bins not in ("symlog", "symexp"):
            raise ValueError(f"bins={bins!r} is unknown: use 'symlog' or 'symexp'")
        if n_bins % 2 == 0 or n_bins < 3:
            raise ValueError(f"n_bins={n_bins} must be odd and at least 3: the middle bin stands for 0")
        self.in_symlog_space = bins == "symlog"
        positions = symlog_bins(n_bins) if self.in_symlog_space else symexp_bins(n_bins)
        self.register_buffer("bins", positions, persistent=False)

    def loss(self, out: th.Tensor, *targets: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        target = targets[0] if len(targets) == 1 else th.stack(targets, -1)
        return two_hot_loss(out, symlog(target) if self.in_symlog_space else target, self.bins)

    def mean(self, out: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        mean = mean_of_bins(out, self.bins)
        return symexp(mean) if self.in_symlog_space else mean


@repeated
def mean_of_bins(logits: th.Tensor, bins: th.Tensor) -> th.Tensor:
    """Mean of the bins' positions ``(K,)`` under the distribution with these logits, ``(..., K)`` to ``(...)``."""
    return symmetric_mean(F.softmax(logits.float(), -1), bins)


class MSEHead(ScalarHead):
    """Normal with unit variance, without the constant: ``0.5 (mean - target)²`` (PlaNet, DreamerV2).

    :param symlog_targets: regress ``symlog(target)`` (an ablation of DreamerV3, Figure D.2)
    """

    def __init__(
        self,
        inputs: int,
        units: tuple[int, ...],
        *,
        style: NormStyle,
        outscale: float = 1.0,
        symlog_targets: bool = False,
    ):
        super().__init__(inputs, units, 1, style=style, outscale=outscale)
        self.symlog_targets = symlog_targets

    def loss(self, out: th.Tensor, *targets: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        mean = out.squeeze(-1).float()
        losses = [0.5 * (mean - (symlog(target) if self.symlog_targets else target)).square() for target in targets]
        return losses[0] if len(losses) == 1 else th.stack(losses).sum(0)

    def mean(self, out: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        mean = out.squeeze(-1).float()
        return symexp(mean) if self.symlog_targets else mean


class BernoulliHead(ScalarHead):
    """Probability of a flag, with soft targets allowed: continue (DreamerV3) and discount (DreamerV2).

    :param hard: predict the more likely flag, 0 or 1 (DreamerV3 2023 multiplies the discount with it), instead of
        its probability (DreamerV2, DreamerV3 2024)
    """

    def __init__(self, inputs: int, units: tuple[int, ...], *, style: NormStyle, hard: bool = False):
        super().__init__(inputs, units, 1, style=style)
        self.hard = hard

    def loss(self, out: th.Tensor, *targets: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        logit = out.squeeze(-1).float()
        losses = [F.binary_cross_entropy_with_logits(logit, target, reduction="none") for target in targets]
        return losses[0] if len(losses) == 1 else th.stack(losses).sum(0)

    def mean(self, out: th.Tensor) -> th.Tensor:
        """The probability, or the more likely flag if ``hard``."""
        logit = out.squeeze(-1).float()
        return (logit > 0).float() if self.hard else th.sigmoid(logit)
