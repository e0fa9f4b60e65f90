"""Networks of DreamerV3's 2023 version, built from a spec."""

from dataclasses import replace
from typing import Any

from sb3_dreamer.core.action_heads import ActionHead, BoundedNormalHead, OneHotHead
from sb3_dreamer.core.action_masks import MaskedOneHotHead, MaskedWorldModel, MaskHead, PredictedMask
from sb3_dreamer.core.cells import layer_norm_gru
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.estimators import StraightThrough, make_estimator
from sb3_dreamer.core.heads import BernoulliHead
from sb3_dreamer.core.latents import CategoricalLatent
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.objectives import DynRepKL
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.critics import make_scalar_head
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec


def make_latent(spec: DreamerV3Spec) -> CategoricalLatent:
    """Categorical latents with the spec's share of the uniform distribution and its estimator."""
    estimator = make_estimator(spec.latent_estimator, spec.latent_temperature)
    if isinstance(estimator, StraightThrough):
        estimator = replace(estimator, normalized=True)
    return CategoricalLatent(spec.stoch, spec.classes, unimix=spec.unimix, estimator=estimator)


def build_world_model(spec: DreamerV3Spec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, RSSM, decoder, reward and continue heads of the 2023 version."""
    style, latent = NormStyle(norm="layer", act=spec.act, eps=1e-3), make_latent(spec)
    encoder = Encoder(keys, depth=spec.cnn_depth, units=spec.mlp, style=style, symlog_inputs=spec.symlog_inputs)
    cell = layer_norm_gru(latent, action=actions.size, hidden=spec.units, deter=spec.deter, style=style)
    rssm = RSSM(cell, latent, embed=encoder.out_size, hidden=spec.units, style=style, learned_start=True)
    decoder = Decoder(
        rssm.feat_size,
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_targets=spec.symlog_inputs,
    )
    parts: dict[str, Any] = {
        "encoder": encoder,
        "rssm": rssm,
        "decoder": decoder,
        "reward": make_scalar_head(spec, rssm.feat_size, spec.mlp, style=style),
        "cont": BernoulliHead(rssm.feat_size, spec.mlp, style=style, hard=spec.hard_continue),
        "objective": DynRepKL(dyn=0.5, rep=0.1, free=1.0),
    }
    return assemble(spec, parts, actions, spec.mlp, style=style)


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


def build_behavior(
    spec: DreamerV3Spec, feat_size: int, actions: ActionLayout, world_model: WorldModel | None = None
) -> DreamerV3Behavior:
    """Actor, critic and return statistics: dynamics gradients for Box actions, REINFORCE for discrete ones.

    :param world_model: predicts the masks of a spec with ``action_masks``
    """
    style = NormStyle(norm="layer", act=spec.act, eps=1e-3)
    critic = make_scalar_head(spec, feat_size, spec.mlp, style=style)
    actor: ActionHead
    if actions.kind == "continuous":
        actor = BoundedNormalHead(feat_size, spec.mlp, actions.size, style=style)
        return DreamerV3Behavior(actor, critic, actor_gradient="dynamics")
    actor = discrete_actor(
        spec, spec.mlp, feat_size, actions, world_model, style=style, unimix=spec.unimix, outscale=1.0
    )
    return DreamerV3Behavior(actor, critic, actor_gradient="dynamics" if spec.actor_estimator else "reinforce")


def discrete_actor(
    spec: DreamerV3Spec,
    units: tuple[int, ...],
    feat_size: int,
    actions: ActionLayout,
    world_model: WorldModel | None,
    *,
    style: NormStyle,
    unimix: float,
    outscale: float,
) -> OneHotHead:
    """One categorical for each part, masked if the world model knows masks."""
    if isinstance(world_model, MaskedWorldModel):
        predict = PredictedMask(world_model.mask_head)
        return MaskedOneHotHead(
            feat_size, units, actions.sizes, style=style, unimix=unimix, outscale=outscale, predict_mask=predict
        )
    estimator = make_estimator(spec.actor_estimator, spec.actor_temperature) if spec.actor_estimator else None
    return OneHotHead(
        feat_size, units, actions.sizes, style=style, unimix=unimix, outscale=outscale, estimator=estimator
    )
