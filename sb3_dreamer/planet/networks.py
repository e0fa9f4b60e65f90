"""Networks of PlaNet, built from a spec."""

from sb3_dreamer.core.cells import GRUCell, InputGRU
from sb3_dreamer.core.codecs import recon_name
from sb3_dreamer.core.heads import BernoulliHead, MSEHead
from sb3_dreamer.core.images.image_bits import QuantizedDecoder, QuantizedEncoder
from sb3_dreamer.core.images.valid_convs import ValidImageDecoder, ValidImageEncoder
from sb3_dreamer.core.latents import GaussianLatent
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.objectives import FreeNatsKL
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.state_space import StateSpaceModel, StochasticSSM
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.planet.spec import PlaNetSpec


def build_rssm(spec: PlaNetSpec, embed: int, actions: ActionLayout) -> StateSpaceModel:
    """The latent dynamics: the paper's RSSM or one of its two ablations."""
    style = NormStyle(norm="none", act=spec.act)
    latent = GaussianLatent(spec.stoch, min_std=spec.min_std, sampled=spec.path != "deterministic")
    if spec.path == "stochastic":
        return StochasticSSM(latent, action=actions.size, embed=embed, hidden=spec.units, style=style)
    gru = GRUCell(spec.units, spec.deter, style=style)
    cell = InputGRU(gru, stoch=latent.flat_size, action=actions.size, hidden=spec.units, style=style)
    return RSSM(cell, latent, embed=embed, hidden=spec.units, style=style, learned_start=False)


def build_world_model(spec: PlaNetSpec, keys: tuple[ObsKey, ...], actions: ActionLayout) -> WorldModel:
    """Encoder, latent dynamics, decoder and reward head, with unit-variance likelihoods; the KL as in the paper."""
    style = NormStyle(norm="none", act=spec.act)
    encoder = QuantizedEncoder(
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_inputs=spec.symlog_inputs,
        image_encoder=ValidImageEncoder,
        bits=spec.image_bits,
    )
    rssm = build_rssm(spec, encoder.out_size, actions)
    decoder = QuantizedDecoder(
        rssm.feat_size,
        keys,
        depth=spec.cnn_depth,
        units=spec.mlp,
        style=style,
        symlog_targets=spec.symlog_inputs,
        image_decoder=ValidImageDecoder,
    )
    return WorldModel(
        encoder=encoder,
        rssm=rssm,
        decoder=decoder,
        reward=MSEHead(rssm.feat_size, spec.mlp, style=style),
        cont=BernoulliHead(rssm.feat_size, spec.mlp, style=style) if spec.end_head else None,
        objective=FreeNatsKL(scale=1.0, free=3.0),
        # The decoder's squared errors become -log N(obs | mean, 1), but for a constant; cross-entropies stay.
        scales={"reward": 10.0} | {recon_name(key): 0.5 for key in keys if key.kind != "discrete"},
    )
