"""Networks of DreamerV3's two released families, built from a spec."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch as th
from torch import nn

from sb3_dreamer.common.policy import Networks
from sb3_dreamer.core.action_heads import ActionHead, BoundedNormalHead, OneHotHead
from sb3_dreamer.core.action_masks import MaskedOneHotHead, MaskedWorldModel, MaskHead, PredictedMask
from sb3_dreamer.core.cells import BlockGRU, layer_norm_gru
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.ensemble import Ensemble
from sb3_dreamer.core.estimators import StraightThrough, make_estimator
from sb3_dreamer.core.heads import BernoulliHead, MSEHead, ScalarHead, TwoHotHead
from sb3_dreamer.core.images.convs2024 import BlockDecoder, PoolingEncoder
from sb3_dreamer.core.latents import CategoricalLatent
from sb3_dreamer.core.layers import NormStyle, linear
from sb3_dreamer.core.objectives import DynRepKL
from sb3_dreamer.core.representation import WITHOUT_DECODER, Representation
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.explorer import Explorer
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec, DreamerV3Spec2024


def build_networks(spec: DreamerV3Spec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> Networks:
    """World model and behavior of the family that the spec belongs to.

    :raises ValueError: for action masks with continuous actions
    """
    if isinstance(spec, DreamerV3Spec2024):
        world_model = world_model_2024(spec, keys, actions)
        return Networks(world_model, behavior_2024(spec, world_model, actions))
    world_model = world_model_2023(spec, keys, actions)
    return Networks(world_model, behavior_2023(spec, world_model, actions))


def build_explorer(spec: DreamerV3Spec, world_model: WorldModel, actions: ActionLayout) -> Explorer:
    """A second actor-critic of the family, and the ensemble that gives its rewards."""
    if isinstance(spec, DreamerV3Spec2024):
        behavior, style = behavior_2024(spec, world_model, actions), style_2024(spec)
    else:
        behavior, style = behavior_2023(spec, world_model, actions), style_2023(spec)
    rssm = world_model.rssm
    ensemble = Ensemble(rssm.feat_size, actions.size, rssm.latent.flat_size, spec.mlp, heads=spec.ensemble, style=style)
    return Explorer(behavior, ensemble)


# ---- 2023 (arXiv 2301.04104v1) -------------------------------------------------------------------------------------


def world_model_2023(spec: DreamerV3Spec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, RSSM, decoder, reward and continue heads."""
    style, latent = style_2023(spec), make_latent(spec)
    encoder = Encoder(keys, depth=spec.cnn_depth, units=spec.codec_mlp, style=style, symlog_inputs=spec.symlog_inputs)
    cell = layer_norm_gru(latent, action=actions.size, hidden=spec.units, deter=spec.deter, style=style)
    rssm = RSSM(cell, latent, embed=encoder.out_size, hidden=spec.units, style=style, learned_start=True)
    make_decoder = partial(
        Decoder,
        rssm.feat_size,
        keys,
        depth=spec.cnn_depth,
        units=spec.codec_mlp,
        style=style,
        symlog_targets=spec.symlog_inputs,
    )
    parts: dict[str, Any] = {
        "encoder": encoder,
        "rssm": rssm,
        **make_representation(spec, rssm.feat_size, encoder.out_size, make_decoder),
        "reward": make_scalar_head(spec, rssm.feat_size, spec.mlp, style=style),
        "cont": BernoulliHead(rssm.feat_size, spec.mlp, style=style, hard=spec.hard_continue),
        "objective": DynRepKL(dyn=0.5, rep=0.1, free=1.0),
    }
    return assemble(spec, parts, actions, spec.mlp, style=style)


def behavior_2023(spec: DreamerV3Spec, world_model: WorldModel, actions: ActionLayout) -> DreamerV3Behavior:
    """Actor, critic and return statistics: dynamics gradients for Box actions, REINFORCE for discrete ones."""
    feat_size = world_model.rssm.feat_size
    style = style_2023(spec)
    critic = make_scalar_head(spec, feat_size, spec.mlp, style=style)
    actor: ActionHead
    if actions.kind == "continuous":
        actor = BoundedNormalHead(feat_size, spec.mlp, actions.size, style=style)
        return DreamerV3Behavior(actor, critic, actor_gradient="dynamics")
    actor = discrete_actor(spec, world_model, actions, style=style, unimix=spec.unimix, outscale=1.0)
    return DreamerV3Behavior(actor, critic, actor_gradient="dynamics" if spec.actor_estimator else "reinforce")


def style_2023(spec: DreamerV3Spec) -> NormStyle:
    """LayerNorm with epsilon 1e-3, initialized by the average of both fans."""
    return NormStyle(norm="layer", act=spec.act, eps=1e-3)


# ---- 2024 (the authors' December 2024 code) ------------------------------------------------------------------------


def world_model_2024(spec: DreamerV3Spec2024, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, RSSM with a block GRU, decoder, reward and continue heads."""
    style, latent = style_2024(spec), make_latent(spec)
    head_units = spec.mlp[:1]
    encoder = Encoder(
        keys,
        depth=spec.cnn_depth,
        units=spec.codec_mlp,
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
    make_decoder = partial(
        Decoder,
        rssm.feat_size,
        keys,
        depth=spec.cnn_depth,
        units=spec.codec_mlp,
        style=style,
        symlog_targets=spec.symlog_inputs,
        image_decoder=partial(BlockDecoder, deter=spec.deter, units=spec.units),
    )
    parts: dict[str, Any] = {
        "encoder": encoder,
        "rssm": rssm,
        **make_representation(spec, rssm.feat_size, encoder.out_size, make_decoder),
        "reward": make_scalar_head(spec, rssm.feat_size, head_units, style=style),
        "cont": BernoulliHead(rssm.feat_size, head_units, style=style),
        "objective": DynRepKL(dyn=1.0, rep=0.1, free=1.0),
    }
    return assemble(spec, parts, actions, head_units, style=style)


def behavior_2024(spec: DreamerV3Spec2024, world_model: WorldModel, actions: ActionLayout) -> DreamerV3Behavior:
    """Actor, critic and return statistics; REINFORCE for all kinds of actions."""
    feat_size = world_model.rssm.feat_size
    style = style_2024(spec)
    critic = make_scalar_head(spec, feat_size, spec.mlp, style=style)
    actor: ActionHead
    if actions.kind == "continuous":
        actor = TwoKernelNormalHead(feat_size, spec.mlp, actions.size, style=style, outscale=0.01)
    else:
        actor = discrete_actor(spec, world_model, actions, style=style, unimix=spec.actor_unimix, outscale=0.01)
    dynamics = spec.actor_estimator and actions.kind == "discrete"
    return DreamerV3Behavior(actor, critic, actor_gradient="dynamics" if dynamics else "reinforce")


def style_2024(spec: DreamerV3Spec) -> NormStyle:
    """RMSNorm with epsilon 1e-4, biases kept, initialized by the fan-in."""
    return NormStyle(norm="rms", act=spec.act, eps=1e-4, bias=True, fan="in")


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
    assert isinstance(rssm, RSSM) and isinstance(rssm.cell, BlockGRU)
    return [
        (rssm.post_deter.weight, rssm.post_embed.weight),
        (rssm.cell.block_hidden.weight, rssm.cell.shared_hidden.weight),
    ]


# ---- parts of both -------------------------------------------------------------------------------------------------


def make_latent(spec: DreamerV3Spec) -> CategoricalLatent:
    """Categorical latents with the spec's share of the uniform distribution and its estimator."""
    estimator = make_estimator(spec.latent_estimator, spec.latent_temperature)
    if isinstance(estimator, StraightThrough):
        estimator = replace(estimator, normalized=True)
    return CategoricalLatent(spec.stoch, spec.classes, unimix=spec.unimix, estimator=estimator)


def make_scalar_head(spec: DreamerV3Spec, inputs: int, units: tuple[int, ...], *, style: NormStyle) -> ScalarHead:
    """Head for rewards or values in the form that ``spec.regression`` names (Figure D.2), zero at the start.

    :param inputs: width F
    :param units: widths of the hidden layers
    """
    if spec.regression == "twohot":
        bins = "symexp" if spec.family == "2024" else "symlog"
        return TwoHotHead(inputs, units, style=style, bins=bins, n_bins=spec.bins)  # type: ignore[arg-type]
    return MSEHead(inputs, units, style=style, outscale=0.0, symlog_targets=spec.regression == "symlog")


def make_representation(
    spec: DreamerV3Spec, feat: int, embed: int, make_decoder: Callable[[], Decoder]
) -> dict[str, Decoder | Representation | None]:
    """The decoder, or the objective in its place that the spec names, as arguments of the world model.

    :param feat: width F
    :param embed: width E
    """
    if spec.representation == "decoder":
        return {"decoder": make_decoder()}
    return {"decoder": None, "representation": WITHOUT_DECODER[spec.representation](feat, embed)}


def assemble(
    spec: DreamerV3Spec, parts: dict[str, Any], actions: ActionLayout, units: tuple[int, ...], *, style: NormStyle
) -> WorldModel:
    """The world model from its parts, with a head for action masks if the spec asks for one.

    :raises ValueError: for masks of continuous actions
    """
    if not spec.action_masks:
        return WorldModel(**parts)
    if actions.kind != "discrete":
        raise ValueError("action_masks=True needs Discrete, MultiDiscrete or MultiBinary actions: set it to False")
    feat = parts["rssm"].feat_size
    return MaskedWorldModel(mask_head=MaskHead(feat, units, actions.sizes, style=style), **parts)


def discrete_actor(
    spec: DreamerV3Spec,
    world_model: WorldModel,
    actions: ActionLayout,
    *,
    style: NormStyle,
    unimix: float,
    outscale: float,
) -> OneHotHead:
    """One categorical for each part, masked if the world model knows masks."""
    feat_size, units = world_model.rssm.feat_size, spec.mlp
    if isinstance(world_model, MaskedWorldModel):
        predict = PredictedMask(world_model.mask_head)
        return MaskedOneHotHead(
            feat_size, units, actions.sizes, style=style, unimix=unimix, outscale=outscale, predict_mask=predict
        )
    estimator = make_estimator(spec.actor_estimator, spec.actor_temperature) if spec.actor_estimator else None
    return OneHotHead(
        feat_size, units, actions.sizes, style=style, unimix=unimix, outscale=outscale, estimator=estimator
    )
