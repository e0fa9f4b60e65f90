"""Networks of DreamerV3's 2024 version, built from a spec."""

from functools import partial
from typing import Any

import torch as th
from torch import nn

from sb3_dreamer.core.action_heads import ActionHead, BoundedNormalHead
from sb3_dreamer.core.cells import BlockGRU
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.convs2024 import BlockDecoder, PoolingEncoder
from sb3_dreamer.core.heads import BernoulliHead
from sb3_dreamer.core.layers import NormStyle, linear
from sb3_dreamer.core.objectives import DynRepKL
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.critics import make_scalar_head
from sb3_dreamer.dreamer_v3.networks import assemble, discrete_actor, make_latent
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec, DreamerV3Spec2024


def make_style(spec: DreamerV3Spec) -> NormStyle:
    """RMSNorm with epsilon 1e-4, biases kept, initialised by the fan-in."""
    return NormStyle(norm="rms", act=spec.act, eps=1e-4, bias=True, fan="in")


def head_units(spec: DreamerV3Spec) -> tuple[int, ...]:
    """The one hidden layer of reward and continue head."""
    return spec.mlp[:1]


def build_world_model(spec: DreamerV3Spec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, RSSM with a block GRU, decoder, reward and continue heads of the 2024 version."""
    assert isinstance(spec, DreamerV3Spec2024)
    style, latent = make_style(spec), make_latent(spec)
    encoder = Encoder(
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_inputs=spec.symlog_inputs,
        image_encoder=PoolingEncoder,
    )
    cell = BlockGRU(
        deter=spec.deter,
        stoch=latent.flat_size,
        action=actions.size,
        hidden=spec.hidden,
        blocks=spec.blocks,
        style=style,
    )
    rssm = RSSM(
        cell, latent, embed=encoder.out_size, hidden=spec.hidden, style=style, prior_layers=2, learned_start=False
    )
    decoder = Decoder(
        rssm.feat_size,
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_targets=spec.symlog_inputs,
        image_decoder=partial(BlockDecoder, deter=spec.deter, units=spec.units),
    )
    parts: dict[str, Any] = {
        "encoder": encoder,
        "rssm": rssm,
        "decoder": decoder,
        "reward": make_scalar_head(spec, rssm.feat_size, head_units(spec), style=style),
        "cont": BernoulliHead(rssm.feat_size, head_units(spec), style=style),
        "objective": DynRepKL(dyn=1.0, rep=0.1, free=1.0),
    }
    return assemble(spec, parts, actions, head_units(spec), style=style)


def build_behavior(
    spec: DreamerV3Spec, feat_size: int, actions: ActionLayout, world_model: WorldModel | None = None
) -> DreamerV3Behavior:
    """Actor, critic and return statistics; REINFORCE for all kinds of actions."""
    assert isinstance(spec, DreamerV3Spec2024)
    style = make_style(spec)
    critic = make_scalar_head(spec, feat_size, spec.mlp, style=style)
    actor: ActionHead
    if actions.kind == "continuous":
        actor = TwoKernelNormalHead(feat_size, spec.mlp, actions.size, style=style, outscale=0.01)
    else:
        actor = discrete_actor(
            spec, spec.mlp, feat_size, actions, world_model, style=style, unimix=spec.actor_unimix, outscale=0.01
        )
    dynamics = spec.actor_estimator and actions.kind == "discrete"
    return DreamerV3Behavior(actor, critic, actor_gradient="dynamics" if dynamics else "reinforce")


class TwoKernelNormalHead(BoundedNormalHead):
    """:class:`BoundedNormalHead` with one kernel for the mean and one for the deviation.

    The function is the same; adaptive clipping looks at each tensor by itself, and the released code has two.
    """

    def __init__(self, inputs: int, units: tuple[int, ...], size: int, *, style: NormStyle, outscale: float):
        super().__init__(inputs, units, size, style=style, outscale=outscale)
        self.out = SideBySide(*(linear(self.mlp.out_size, size, scale=outscale, fan=style.fan) for _ in range(2)))  # type: ignore[assignment]


class SideBySide(nn.Module):
    """Several maps of one input, their outputs joined on the last axis."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(..., inputs)`` to ``(..., sum of outputs)``."""
        return th.cat([layer(x) for layer in self.layers], -1)


def joint_kernels(world_model: WorldModel) -> list[tuple[th.Tensor, th.Tensor]]:
    """Kernels that we keep as two, to take a part out of the loop over time, and the released code as one."""
    rssm = world_model.rssm
    assert isinstance(rssm.cell, BlockGRU)
    return [
        (rssm.post_deter.weight, rssm.post_embed.weight),
        (rssm.cell.block_hidden.weight, rssm.cell.shared_hidden.weight),
    ]
