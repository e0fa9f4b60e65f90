"""Heads for rewards and values: two-hot, and the plain regressions of the ablations."""

from sb3_dreamer.core.heads import MSEHead, ScalarHead, TwoHotHead
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec


def make_scalar_head(spec: DreamerV3Spec, inputs: int, units: tuple[int, ...], *, style: NormStyle) -> ScalarHead:
    """The form that ``spec.regression`` names (Figure D.2), with zero output at the start.

    :param inputs: width F
    :param units: widths of the hidden layers
    """
    if spec.regression == "twohot":
        bins = "symexp" if spec.family == "2024" else "symlog"
        return TwoHotHead(inputs, units, style=style, bins=bins, n_bins=spec.bins, outscale=0.0)  # type: ignore[arg-type]
    return MSEHead(inputs, units, style=style, outscale=0.0, symlog_targets=spec.regression == "symlog")
