"""Networks of DreamerV2, built from a spec."""

import torch as th

from sb3_dreamer.core.action_heads import ActionHead, OneHotHead, TanhNormalHead, TruncatedNormalHead
from sb3_dreamer.core.cells import GRUCell, InputGRU, layer_norm_gru
from sb3_dreamer.core.codecs import Decoder, Encoder, recon_name
from sb3_dreamer.core.estimators import make_estimator
from sb3_dreamer.core.heads import BernoulliHead, MSEHead
from sb3_dreamer.core.images.valid_convs import ValidImageDecoder, ValidImageEncoder
from sb3_dreamer.core.latents import CategoricalLatent, GaussianLatent, Latent
from sb3_dreamer.core.layers import NormKind, NormStyle
from sb3_dreamer.core.objectives import BalancedKL
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v2.behavior import DreamerV2Behavior
from sb3_dreamer.dreamer_v2.spec import DreamerV2Spec


class DiscountHead(BernoulliHead):
    """Predicts the discount of a step from the soft target ``gamma (1 - terminal)`` (Section 2.1).

    :meth:`mean` gives the prediction divided by gamma, so that losses multiply every continue flag with gamma alike.

    :ivar gamma: discount of a step inside an episode; the policy sets it
    """

    gamma = 0.995

    def loss(self, out: th.Tensor, *targets: th.Tensor) -> th.Tensor:
        """Cross-entropy with ``gamma · target``; ``target (...)`` is the continue flag."""
        return super().loss(out, *(self.gamma * target for target in targets))

    def mean(self, out: th.Tensor) -> th.Tensor:
        """Predicted discount divided by gamma, ``(...)``."""
        return super().mean(out) / self.gamma


def make_style(spec: DreamerV2Spec) -> NormStyle:
    """ELU without norms, or with a LayerNorm in each hidden layer; biases are kept."""
    norm: NormKind = "layer" if spec.norm == "layer" and spec.layer_norm else "none"
    return NormStyle(norm=norm, act=spec.act, eps=1e-3, bias=True)


def make_latent(spec: DreamerV2Spec) -> CategoricalLatent | GaussianLatent:
    """Categorical latents with the named estimator, or the Gaussians of the ablation."""
    if spec.latent == "categorical":
        return CategoricalLatent(spec.stoch, spec.classes, unimix=0.0, estimator=make_estimator(spec.latent_estimator))
    return GaussianLatent(spec.stoch, min_std=0.1, std_act=spec.latent_std)  # type: ignore[arg-type]


def make_cell(spec: DreamerV2Spec, latent: Latent, action: int, *, style: NormStyle) -> InputGRU:
    """The recurrent path: a GRU with one LayerNorm, or PlaNet's plain one, which Dreamer (V1) has.

    :param action: width A
    """
    if spec.gru == "plain":
        cell = GRUCell(spec.hidden, spec.deter, style=style)
        return InputGRU(cell, stoch=latent.flat_size, action=action, hidden=spec.hidden, style=style)
    gru_style = NormStyle(norm="layer" if spec.layer_norm else "none", act=spec.act, eps=1e-3, bias=True)
    return layer_norm_gru(latent, action=action, hidden=spec.hidden, deter=spec.deter, style=style, gru_style=gru_style)


def build_world_model(spec: DreamerV2Spec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, RSSM, decoder, reward and discount heads.

    Kernels start from a truncated normal with the variance of the released code's Glorot uniform.
    """
    style, latent = make_style(spec), make_latent(spec)
    encoder = Encoder(
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_inputs=False,
        image_encoder=ValidImageEncoder,
    )
    cell = make_cell(spec, latent, actions.size, style=style)
    rssm = RSSM(cell, latent, embed=encoder.out_size, hidden=spec.hidden, style=style, learned_start=False)
    decoder = Decoder(
        rssm.feat_size,
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_targets=False,
        image_decoder=ValidImageDecoder,
    )
    # The decoder's squared errors become log-likelihoods of unit normals; categories are log-likelihoods already.
    halves = {recon_name(key): 0.5 for key in keys if key.kind != "discrete"}
    return WorldModel(
        encoder=encoder,
        rssm=rssm,
        decoder=decoder,
        reward=MSEHead(rssm.feat_size, spec.mlp, style=style),
        cont=DiscountHead(rssm.feat_size, spec.mlp, style=style) if spec.discount_head else None,
        objective=BalancedKL(),
        scales=halves,
    )


def build_behavior(spec: DreamerV2Spec, feat_size: int, actions: ActionLayout) -> DreamerV2Behavior:
    """Actor, critic and slow critic; REINFORCE for discrete actions, dynamics gradients for Box actions."""
    style = make_style(spec)
    critic = MSEHead(feat_size, spec.mlp, style=style)
    actor: ActionHead
    if actions.kind == "continuous":
        if spec.actor_dist == "tanh_normal":
            actor = TanhNormalHead(feat_size, spec.mlp, actions.size, style=style)
        else:
            exact = spec.box_gradient == "exact"
            actor = TruncatedNormalHead(feat_size, spec.mlp, actions.size, style=style, exact=exact)
        return DreamerV2Behavior(actor, critic, actor_gradient="dynamics")
    estimator = make_estimator(spec.actor_estimator)
    actor = OneHotHead(feat_size, spec.mlp, actions.sizes, style=style, unimix=0.0, estimator=estimator)
    return DreamerV2Behavior(actor, critic, actor_gradient="reinforce")
