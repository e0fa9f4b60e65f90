"""Networks of DreamerV3, built from a spec."""

from sb3_dreamer.core.action_heads import ActionHead, BoundedNormalHead, OneHotHead
from sb3_dreamer.core.cells import InputGRU, LayerNormGRUCell
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.heads import BernoulliHead, TwoHotHead
from sb3_dreamer.core.latents import CategoricalLatent
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.objectives import DynRepKL
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec


def build_world_model(spec: DreamerV3Spec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, RSSM, decoder, reward and continue heads of the 2023 version."""
    style = NormStyle(norm="layer", act=spec.act, eps=1e-3)
    latent = CategoricalLatent(spec.stoch, spec.classes, unimix=spec.unimix)
    encoder = Encoder(keys, depth=spec.cnn_depth, units=spec.mlp, style=style, symlog_inputs=spec.symlog_inputs)
    gru = LayerNormGRUCell(spec.units, spec.deter, style=style)
    cell = InputGRU(gru, stoch=latent.flat_size, action=actions.size, hidden=spec.units, style=style)
    rssm = RSSM(cell, latent, embed=encoder.out_size, hidden=spec.units, style=style, learned_start=True)
    return WorldModel(
        encoder=encoder,
        rssm=rssm,
        decoder=Decoder(
            rssm.feat_size,
            keys,
            depth=spec.cnn_depth,
            units=spec.mlp,
            style=style,
            symlog_targets=spec.symlog_inputs,
        ),
        reward=TwoHotHead(rssm.feat_size, spec.mlp, style=style, n_bins=spec.bins, outscale=0.0),
        cont=BernoulliHead(rssm.feat_size, spec.mlp, style=style, hard=True),
        objective=DynRepKL(dyn=0.5, rep=0.1, free=1.0),
    )


def build_behavior(spec: DreamerV3Spec, feat_size: int, actions: ActionLayout) -> DreamerV3Behavior:
    """Actor, critic and return statistics: dynamics gradients for Box actions, REINFORCE for discrete ones."""
    style = NormStyle(norm="layer", act=spec.act, eps=1e-3)
    critic = TwoHotHead(feat_size, spec.mlp, style=style, n_bins=spec.bins, outscale=0.0)
    actor: ActionHead
    if actions.kind == "continuous":
        actor = BoundedNormalHead(feat_size, spec.mlp, actions.size, style=style)
        return DreamerV3Behavior(actor, critic, actor_gradient="dynamics")
    actor = OneHotHead(feat_size, spec.mlp, actions.sizes, style=style, unimix=spec.unimix)
    return DreamerV3Behavior(actor, critic, actor_gradient="reinforce")
