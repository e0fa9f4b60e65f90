"""Names of danijar/dreamerv3, June 2023 (commit 8fa35f8)."""

import numpy as np

from sb3_dreamer.convert.renaming import Arrays, Renaming, after, channels_first, check_version, decoder_of, swapped
from sb3_dreamer.core.action_heads import OneHotHead
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.images.convs import ImageDecoder, ImageEncoder
from sb3_dreamer.dreamer_v3.policies import MlpPolicy
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec

MODEL, THEIRS = "world_model", "agent/wm"
CRITIC = "agent/task_behavior/critic"
HEADS = {
    f"{THEIRS}/rew": f"{MODEL}.reward_head",
    f"{THEIRS}/cont": f"{MODEL}.cont_head",
    f"{CRITIC}/net": "behavior.critic",
    f"{CRITIC}/slow": "behavior.slow_critic",
}


def weights_2023(policy: MlpPolicy, theirs: Arrays) -> dict[str, np.ndarray]:
    """Weights of the 2023 code as ours, or any other arrays of their shapes (gradients, changes).

    Vectors are taken to be concatenated in the order of our observation space.

    :param policy: of a ``DreamerV3`` of the 2023 version, of the same size, observations and actions
    :param theirs: arrays by the authors' names, such as ``agent/wm/rssm/gru/kernel``
    :return: arrays by our names
    :raises ValueError: for another version, and for an array that is missing or has no place here
    """
    check_version(policy, DreamerV3Spec, "DreamerV3's 2023 version")
    names = Renaming(theirs)
    pixels = _encoder(names, policy.world_model.encoder)
    _dynamics(names, policy, pixels)
    _decoder(names, decoder_of(policy.world_model))
    for head, ours in HEADS.items():
        _stack(names, head, f"{ours}.mlp")
        names.linear(f"{head}/dist_out/out", f"{ours}.out")
    actor = "agent/task_behavior/ac/actor"
    _stack(names, actor, "behavior.actor.mlp")
    if isinstance(policy.behavior.actor, OneHotHead):
        names.linear(f"{actor}/dist_out/out", "behavior.actor.out")
    else:
        names.joint_linear((f"{actor}/dist_out/out", f"{actor}/dist_out/std"), "behavior.actor.out")
    return names.finish()


def _norm(names: Renaming, theirs: str, ours: str) -> None:
    names.copy(f"{theirs}/norm/scale", f"{ours}.weight")
    names.copy(f"{theirs}/norm/bias", f"{ours}.bias")


def _stack(names: Renaming, theirs: str, ours: str) -> None:
    """Hidden layers ``h0, h1, ...`` with their norms."""
    i = 0
    while f"{theirs}/h{i}/kernel" in names.left:
        names.linear(f"{theirs}/h{i}", f"{ours}.linears.{i}")
        _norm(names, f"{theirs}/h{i}", f"{ours}.norms.{i}")
        i += 1


def _encoder(names: Renaming, encoder: Encoder) -> np.ndarray:
    """:return: for each entry of our embedding its place in theirs"""
    embed, start = [], 0
    for group, cnn in encoder.cnns.items():
        assert isinstance(cnn, ImageEncoder)
        for i in range(len(cnn.convs)):
            stage, ours = f"{THEIRS}/enc/cnn/s{i}res", f"{MODEL}.encoder.cnns.{group}"
            names.conv(stage, f"{ours}.convs.{i}")
            _norm(names, stage, f"{ours}.norms.{i}.norm")
        embed.append(start + channels_first(*cnn.out_shape))
        start += cnn.out_size
    if encoder.mlp:
        _stack(names, f"{THEIRS}/enc/mlp", f"{MODEL}.encoder.mlp")
        embed.append(after(start, encoder.mlp.out_size))
    return np.concatenate(embed)


def _dynamics(names: Renaming, policy: MlpPolicy, embed: np.ndarray) -> None:
    """The RSSM.

    :param embed: see :func:`_encoder`
    """
    rssm, theirs = f"{MODEL}.rssm", f"{THEIRS}/rssm"
    deter, stoch = policy.spec.deter, policy.world_model.rssm.latent.flat_size
    names.copy(f"{theirs}/initial", f"{rssm}.start")
    parts = {f"{rssm}.cell.stoch_in": after(0, stoch), f"{rssm}.cell.action_in": after(stoch, policy.codec.layout.size)}
    names.split_linear(f"{theirs}/img_in", parts)
    _norm(names, f"{theirs}/img_in", f"{rssm}.cell.norm")
    names.linear(f"{theirs}/gru", f"{rssm}.cell.cell.linear", rows=swapped(deter, policy.spec.units))
    _norm(names, f"{theirs}/gru", f"{rssm}.cell.cell.norm")
    names.linear(f"{theirs}/img_out", f"{rssm}.prior_mlp.linears.0")
    _norm(names, f"{theirs}/img_out", f"{rssm}.prior_mlp.norms.0")
    names.linear(f"{theirs}/img_stats", f"{rssm}.prior_out")
    parts = {f"{rssm}.post_deter": after(0, deter), f"{rssm}.post_embed": deter + embed}
    names.split_linear(f"{theirs}/obs_out", parts)
    _norm(names, f"{theirs}/obs_out", f"{rssm}.post_norm")
    names.linear(f"{theirs}/obs_stats", f"{rssm}.post_out")


def _decoder(names: Renaming, decoder: Decoder) -> None:
    for group, cnn in decoder.cnns.items():
        assert isinstance(cnn, ImageDecoder)
        theirs, ours = f"{THEIRS}/dec/cnn", f"{MODEL}.decoder.cnns.{group}"
        names.linear(f"{theirs}/in", f"{ours}.dense", columns=channels_first(*cnn.start_shape))
        for i in range(len(cnn.deconvs)):
            names.conv(f"{theirs}/s{i}res", f"{ours}.deconvs.{i}", flip=True)
            if i < len(cnn.deconvs) - 1:
                _norm(names, f"{theirs}/s{i}res", f"{ours}.norms.{i}.norm")
    if decoder.mlp:
        _stack(names, f"{THEIRS}/dec/mlp", f"{MODEL}.decoder.mlp")
        for i, key in enumerate(decoder.flat_keys):
            names.linear(f"{THEIRS}/dec/mlp/dist_{key.name}/out", f"{MODEL}.decoder.outs.{i}")
