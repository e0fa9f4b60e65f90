"""Names of danijar/dreamerv3, December 2024 (commit e3f0224)."""

import numpy as np

from sb3_dreamer.convert.renaming import Arrays, Renaming, after, channels_first, check_version, decoder_of, swapped
from sb3_dreamer.core.action_heads import OneHotHead
from sb3_dreamer.core.codecs import Decoder, Encoder, flat_size
from sb3_dreamer.core.images.convs2024 import BlockDecoder, PoolingEncoder
from sb3_dreamer.dreamer_v3.policies import MlpPolicy
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec2024

MODEL = "world_model"
PARTS = ("enc", "dyn", "dec", "rew", "con", "pol", "val", "slowval")  #: names of modules with weights


def weights_2024(policy: MlpPolicy, theirs: Arrays) -> dict[str, np.ndarray]:
    """Weights of the 2024 code as ours, or any other arrays of their shapes (gradients, changes).

    Theirs concatenates vectors by name; a single vector or image may have any name there.

    :param policy: of a ``DreamerV3`` of the 2024 version, of the same size, observations and actions
    :param theirs: arrays by the authors' names, such as ``dyn/dyngru/kernel``; the slow critic is ``slowval``
    :return: arrays by our names
    :raises ValueError: for another version, for an array that is missing or has no place here, and for several images
    """
    check_version(policy, DreamerV3Spec2024, "DreamerV3's 2024 version")
    names = Renaming(theirs)
    encoder, decoder = policy.world_model.encoder, decoder_of(policy.world_model)
    if len(encoder.keys) - len(encoder.flat_keys) > 1:
        raise ValueError("several images: the weights do not tell in which order the authors' decoder has them")
    pixels = _encoder(names, encoder)
    _dynamics(names, policy, pixels)
    _decoder(names, decoder, swapped(policy.world_model.rssm.latent.flat_size, policy.spec.deter))
    for head, ours, layer in (
        ("rew", f"{MODEL}.reward_head", "logits"),
        ("con", f"{MODEL}.cont_head", "logit"),
        ("val", "behavior.critic", "logits"),
        ("slowval", "behavior.slow_critic", "logits"),
    ):
        _stack(names, f"{head}/mlp/linear{{}}", f"{head}/mlp/norm{{}}", f"{ours}.mlp")
        names.linear(f"{head}/head/{layer}", f"{ours}.out")
    _actor(names, policy)
    return names.finish()


def _stack(names: Renaming, layer: str, norm: str, ours: str, *, rows: np.ndarray | None = None) -> None:
    """Hidden layers and their norms, numbered from 0.

    :param layer: their name, with ``{}`` for the number
    :param norm: likewise
    :param rows: order of the inputs of the first
    """
    i = 0
    while f"{layer.format(i)}/kernel" in names.left:
        names.linear(layer.format(i), f"{ours}.linears.{i}", rows=None if i else rows)
        names.copy(f"{norm.format(i)}/scale", f"{ours}.norms.{i}.weight")
        i += 1


def _encoder(names: Renaming, encoder: Encoder) -> np.ndarray:
    """:return: for each entry of our embedding its place in theirs, which has the vectors first"""
    embed = []
    for group, cnn in encoder.cnns.items():
        assert isinstance(cnn, PoolingEncoder)
        for i in range(len(cnn.convs)):
            ours = f"{MODEL}.encoder.cnns.{group}"
            names.conv(f"enc/cnn{i}", f"{ours}.convs.{i}")
            names.copy(f"enc/cnn{i}norm/scale", f"{ours}.norms.{i}.norm.weight")
        vectors = encoder.mlp.out_size if encoder.mlp else 0
        embed.append(vectors + channels_first(*cnn.out_shape))
    if encoder.mlp:
        _stack(names, "enc/mlp{}", "enc/mlp{}norm", f"{MODEL}.encoder.mlp", rows=_by_name(encoder))
        embed.append(after(0, encoder.mlp.out_size))
    return np.concatenate(embed)


def _by_name(encoder: Encoder) -> np.ndarray:
    """For each entry of our vectors, side by side in the order of the space, its place in order of their names."""
    sizes = {key.name: flat_size(key) for key in encoder.flat_keys}
    ordered = sorted(sizes)
    starts = {name: sum(sizes[before] for before in ordered[:i]) for i, name in enumerate(ordered)}
    return np.concatenate([after(starts[name], size) for name, size in sizes.items()])


def _dynamics(names: Renaming, policy: MlpPolicy, embed: np.ndarray) -> None:
    """The RSSM. The kernel of the GRU's hidden layer sees, in each block, a slice of deter and what all blocks share.

    :param embed: see :func:`_encoder`
    """
    cell, rssm = f"{MODEL}.rssm.cell", f"{MODEL}.rssm"
    deter = policy.spec.deter
    for i, part in enumerate(("deter_in", "stoch_in", "action_in")):
        names.linear(f"dyn/dynin{i}", f"{cell}.{part}.linears.0")
        names.copy(f"dyn/dynin{i}norm/scale", f"{cell}.{part}.norms.0.weight")
    kernel = names.take("dyn/dynhid0/kernel")  # (G, D/G + 3 hidden, D/G)
    own = kernel.shape[2]
    names.ours[f"{cell}.block_hidden.weight"] = kernel[:, :own]
    names.ours[f"{cell}.shared_hidden.weight"] = kernel[:, own:].transpose(0, 2, 1).reshape(deter, -1)
    names.copy("dyn/dynhid0/bias", f"{cell}.shared_hidden.bias")
    names.copy("dyn/dynhid0norm/scale", f"{cell}.norm.weight")
    names.copy("dyn/dyngru/kernel", f"{cell}.gates.weight")
    names.ours[f"{cell}.gates.bias"] = names.take("dyn/dyngru/bias").reshape(len(kernel), 1, -1)
    _stack(names, "dyn/prior{}", "dyn/prior{}norm", f"{rssm}.prior_mlp")
    names.linear("dyn/priorlogit", f"{rssm}.prior_out")
    names.split_linear("dyn/obs0", {f"{rssm}.post_deter": after(0, deter), f"{rssm}.post_embed": deter + embed})
    names.copy("dyn/obs0norm/scale", f"{rssm}.post_norm.weight")
    names.linear("dyn/obslogit", f"{rssm}.post_out")


def _decoder(names: Renaming, decoder: Decoder, feat: np.ndarray) -> None:
    """:param feat: for each entry of our features its place in theirs, which have stoch first"""
    if decoder.mlp:
        _stack(names, "dec/mlp/linear{}", "dec/mlp/norm{}", f"{MODEL}.decoder.mlp", rows=feat)
    heads = {name.split("/")[2] for name in names.left if name.startswith("dec/vec/")}
    for i, key in enumerate(decoder.flat_keys):
        name = next(iter(heads)) if len(decoder.flat_keys) == len(heads) == 1 else key.name
        names.linear(f"dec/vec/{name}/{'logits' if key.kind == 'discrete' else 'pred'}", f"{MODEL}.decoder.outs.{i}")
    for group, cnn in decoder.cnns.items():
        assert isinstance(cnn, BlockDecoder)
        _image_decoder(names, cnn, f"{MODEL}.decoder.cnns.{group}")


def _image_decoder(names: Renaming, cnn: BlockDecoder, ours: str) -> None:
    """Each block of the map of deter gives its own channels."""
    channels, height, width = cnn.start_shape
    of_block = channels_first(channels // cnn.blocks, height, width)
    names.ours[f"{ours}.deter_in.weight"] = names.take("dec/sp0/kernel")[..., of_block]
    bias = names.take("dec/sp0/bias").reshape(cnn.blocks, 1, -1)
    names.ours[f"{ours}.deter_in.bias"] = bias[..., of_block]
    names.linear("dec/sp1", f"{ours}.stoch_in")
    names.copy("dec/sp1norm/scale", f"{ours}.stoch_norm.weight")
    names.linear("dec/sp2", f"{ours}.stoch_out", columns=channels_first(*cnn.start_shape))
    names.copy("dec/spnorm/scale", f"{ours}.start_norm.norm.weight")
    last = len(cnn.convs) - 1  # numbered from the image there
    for i in range(last):
        names.conv(f"dec/conv{last - 1 - i}", f"{ours}.convs.{i}")
        names.copy(f"dec/conv{last - 1 - i}norm/scale", f"{ours}.norms.{i}.norm.weight")
    names.conv("dec/imgout", f"{ours}.convs.{last}")


def _actor(names: Renaming, policy: MlpPolicy) -> None:
    _stack(names, "pol/mlp/linear{}", "pol/mlp/norm{}", "behavior.actor.mlp")
    heads = {name.split("/")[2] for name in names.left if name.startswith("pol/head/")}
    if len(heads) != 1:
        raise ValueError(f"the weights have actions {sorted(heads)}: only agents with one kind of action can be read")
    head, out = f"pol/head/{heads.pop()}", "behavior.actor.out"
    if isinstance(policy.behavior.actor, OneHotHead):
        names.linear(f"{head}/logits", out)
    else:
        names.linear(f"{head}/mean", f"{out}.layers.0")
        names.linear(f"{head}/stddev", f"{out}.layers.1")
