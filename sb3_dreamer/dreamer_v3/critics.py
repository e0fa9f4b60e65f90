"""Heads for rewards and values: two-hot, and the plain regressions of the ablations."""

import torch as th

from sb3_dreamer.core.heads import MSEHead, TwoHotHead
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec


class RegressionHead(MSEHead):
    """:class:`MSEHead` with the methods by which the behaviour reads a :class:`TwoHotHead` (Figure D.2).

    What a two-hot head calls log-probabilities is here the raw output itself.
    """

    def log_probs(self, out: th.Tensor) -> th.Tensor:
        """The raw output ``(..., 1)``."""
        return out

    def loss_from_log_probs(self, log_probs: th.Tensor, target: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        return self.loss(log_probs, target)

    def mean_from_log_probs(self, log_probs: th.Tensor) -> th.Tensor:
        """See :class:`ScalarHead`."""
        return self.mean(log_probs)


ValueHead = TwoHotHead | RegressionHead


def make_scalar_head(spec: DreamerV3Spec, inputs: int, units: tuple[int, ...], *, style: NormStyle) -> ValueHead:
    """The form that ``spec.regression`` names, with zero output at the start.

    :param inputs: width F
    :param units: widths of the hidden layers
    """
    if spec.regression == "twohot":
        bins = "symexp" if spec.family == "2024" else "symlog"
        return TwoHotHead(inputs, units, style=style, bins=bins, n_bins=spec.bins, outscale=0.0)  # type: ignore[arg-type]
    return RegressionHead(inputs, units, style=style, outscale=0.0, symlog_targets=spec.regression == "symlog")
