"""Names of danijar/dreamerv2 (commit 07d906e).

Keras does not name the layers of that code as its modules are named. A name is ``<module>/<layer>/<variable>`` here,
with the modules enc, rssm, decoder, reward, discount, actor, critic, slow, and ``rssm/gru`` for the cell's layer.
"""

import numpy as np

from sb3_dreamer.convert.renaming import Arrays, Renaming, after, channels_first, check_version, decoder_of, swapped
from sb3_dreamer.core.action_heads import OneHotHead
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.images.valid_convs import ValidImageDecoder, ValidImageEncoder
from sb3_dreamer.dreamer_v2.policies import MlpPolicy
from sb3_dreamer.dreamer_v2.spec import DreamerV2Spec

MODEL = "world_model"
HEADS = {
    "reward": f"{MODEL}.reward_head",
    "discount": f"{MODEL}.cont_head",
    "critic": "behavior.critic",
    "slow": "behavior.slow_critic",
}


def weights_v2(policy: MlpPolicy, theirs: Arrays) -> dict[str, np.ndarray]:
    """Weights of the DreamerV2 code as ours, or any other arrays of their shapes (gradients, changes).

    :param policy: of a ``DreamerV2`` of the same size, observations and actions
    :param theirs: arrays by the names above, such as ``rssm/obs_out/kernel``
    :return: arrays by our names
    :raises ValueError: for another version, and for an array that is missing or has no place here
    """
    check_version(policy, DreamerV2Spec, "DreamerV2")
    names = Renaming(theirs)
    deter, stoch = policy.spec.deter, policy.world_model.rssm.latent.flat_size
    feat = swapped(stoch, deter)
    pixels = _encoder(names, policy.world_model.encoder)
    _dynamics(names, policy, pixels)
    _decoder(names, decoder_of(policy.world_model), feat)
    for head, ours in HEADS.items():
        if head != "discount" or policy.spec.discount_head:
            _stack(names, head, f"{ours}.mlp", "norm", rows=feat)
            names.linear(f"{head}/out/out", f"{ours}.out")
    _stack(names, "actor", "behavior.actor.mlp", "norm", rows=feat)
    if isinstance(policy.behavior.actor, OneHotHead):
        names.linear("actor/out/out", "behavior.actor.out")
    else:
        names.joint_linear(("actor/out/out", "actor/out/std"), "behavior.actor.out")
    return names.finish()


def _norm(names: Renaming, theirs: str, ours: str) -> None:
    """A norm, where there is one.

    :param theirs: with the character that separates the variable's name
    """
    if f"{theirs}gamma" in names.left:
        names.copy(f"{theirs}gamma", f"{ours}.weight")
        names.copy(f"{theirs}beta", f"{ours}.bias")


def _stack(names: Renaming, theirs: str, ours: str, norm: str, *, rows: np.ndarray | None = None) -> None:
    """Hidden layers ``dense0, dense1, ...`` with their norms.

    :param rows: order of the inputs of the first
    """
    i = 0
    while f"{theirs}/dense{i}/kernel" in names.left:
        names.linear(f"{theirs}/dense{i}", f"{ours}.linears.{i}", rows=None if i else rows)
        _norm(names, f"{theirs}/{norm}{i}/", f"{ours}.norms.{i}")
        i += 1


def _encoder(names: Renaming, encoder: Encoder) -> np.ndarray:
    """:return: for each entry of our embedding its place in theirs"""
    embed, start = [], 0
    for group, cnn in encoder.cnns.items():
        assert isinstance(cnn, ValidImageEncoder)
        for i in range(len(cnn.convs)):
            ours = f"{MODEL}.encoder.cnns.{group}"
            names.conv(f"enc/conv{i}", f"{ours}.convs.{i}")
            _norm(names, f"enc/convnorm{i}/", f"{ours}.norms.{i}.norm")
        embed.append(start + channels_first(*cnn.out_shape))
        start += cnn.out_size
    if encoder.mlp:
        _stack(names, "enc", f"{MODEL}.encoder.mlp", "densenorm")
        embed.append(after(start, encoder.mlp.out_size))
    return np.concatenate(embed)


def _dynamics(names: Renaming, policy: MlpPolicy, embed: np.ndarray) -> None:
    """The RSSM.

    :param embed: see :func:`_encoder`
    """
    rssm = f"{MODEL}.rssm"
    deter, stoch = policy.spec.deter, policy.world_model.rssm.latent.flat_size
    actions = after(stoch, policy.codec.layout.size)
    names.split_linear("rssm/img_in", {f"{rssm}.cell.stoch_in": after(0, stoch), f"{rssm}.cell.action_in": actions})
    _norm(names, "rssm/img_in_norm/", f"{rssm}.cell.norm")
    names.linear("rssm/gru", f"{rssm}.cell.cell.linear")
    _norm(names, "rssm/gru/norm_", f"{rssm}.cell.cell.norm")
    names.linear("rssm/img_out_0", f"{rssm}.prior_mlp.linears.0")
    _norm(names, "rssm/img_out_norm_0/", f"{rssm}.prior_mlp.norms.0")
    names.linear("rssm/img_dist_0", f"{rssm}.prior_out")
    names.split_linear("rssm/obs_out", {f"{rssm}.post_deter": after(0, deter), f"{rssm}.post_embed": deter + embed})
    _norm(names, "rssm/obs_out_norm/", f"{rssm}.post_norm")
    names.linear("rssm/obs_dist", f"{rssm}.post_out")


def _decoder(names: Renaming, decoder: Decoder, feat: np.ndarray) -> None:
    for group, cnn in decoder.cnns.items():
        assert isinstance(cnn, ValidImageDecoder)
        ours = f"{MODEL}.decoder.cnns.{group}"
        names.linear("decoder/convin", f"{ours}.dense", rows=feat)
        for i in range(len(cnn.deconvs)):
            names.conv(f"decoder/conv{i}", f"{ours}.deconvs.{i}")
            _norm(names, f"decoder/convnorm{i}/", f"{ours}.norms.{i}.norm")
    if decoder.mlp:
        _stack(names, "decoder", f"{MODEL}.decoder.mlp", "densenorm", rows=feat)
        for i, key in enumerate(decoder.flat_keys):
            names.linear(f"decoder/dense_{key.name}/out", f"{MODEL}.decoder.outs.{i}")
