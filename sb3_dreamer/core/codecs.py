"""Dict observations to an embedding and back. Raw dtypes become floats here and nowhere else."""

import math
from collections.abc import Callable

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_dreamer.core.functional import symexp, symlog
from sb3_dreamer.core.images.convs import ImageDecoder, ImageEncoder
from sb3_dreamer.core.layers import MLP, NormStyle, linear
from sb3_dreamer.core.types import ObsKey


def _image_groups(keys: tuple[ObsKey, ...]) -> dict[str, list[ObsKey]]:
    """Image keys of one size and range share a convolutional stack, their channels side by side."""
    groups: dict[str, list[ObsKey]] = {}
    for key in keys:
        if key.kind == "image":
            name = f"{key.shape[1]}x{key.shape[2]}" + ("" if key.white == 255.0 else "_float")
            groups.setdefault(name, []).append(key)
    return groups


def one_hot_blocks(index: th.Tensor, key: ObsKey) -> th.Tensor:
    """Values of a discrete key ``(N, P)`` to one-hot blocks side by side, ``(N, sum(classes))``."""
    index = index.long()
    blocks = [F.one_hot(index[:, i] - key.starts[i], n) for i, n in enumerate(key.classes)]
    return th.cat(blocks, -1).float()


def flat_size(key: ObsKey) -> int:
    """Width of a vector or discrete key inside the model."""
    return sum(key.classes) if key.kind == "discrete" else math.prod(key.shape)


def recon_name(key: ObsKey) -> str:
    """Name of the key's reconstruction loss; cannot collide with ``reward``, ``cont`` or a KL."""
    return f"recon_{key.name}"


class Encoder(nn.Module):
    """Dict observation ``{key: (..., *shape)}`` to an embedding ``(..., E)``.

    :param keys: observation keys; all images of one size go through one CNN, all other keys through one MLP
    :param depth: channels of the first convolution
    :param units: widths of the MLP
    :param style: norm, activation and initialization
    :param symlog_inputs: squash vectors with symlog (DreamerV3: yes)
    :param image_encoder: builds the CNN of one image size, called as :class:`ImageEncoder` is
    """

    def __init__(
        self,
        keys: tuple[ObsKey, ...],
        *,
        depth: int,
        units: tuple[int, ...],
        style: NormStyle,
        symlog_inputs: bool = True,
        image_encoder: Callable[..., nn.Module] = ImageEncoder,
    ):
        super().__init__()
        self.keys = keys
        self.symlog_inputs = symlog_inputs
        self.image_groups = _image_groups(keys)
        self.flat_keys = [key for key in keys if key.kind != "image"]
        self.cnns = nn.ModuleDict()
        for name, group in self.image_groups.items():
            channels = sum(key.shape[0] for key in group)
            self.cnns[name] = image_encoder(channels, group[0].shape[1:], depth, style=style)
        self.mlp = MLP(sum(map(flat_size, self.flat_keys)), units, style=style) if self.flat_keys else None
        self.out_size = sum(cnn.out_size for cnn in self.cnns.values())  # type: ignore[misc]
        self.out_size += self.mlp.out_size if self.mlp else 0

    def prepare(self, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Prepare what encoder and decoder share of a training batch, once; the base class changes nothing."""
        return obs

    def pixels(self, images: th.Tensor, white: float) -> th.Tensor:
        """Raw (or prepared) images to floats of about [-0.5, 0.5], same shape.

        :param white: see :class:`ObsKey`
        """
        return images.float() / white - 0.5

    def forward(self, obs: dict[str, th.Tensor]) -> th.Tensor:
        """Raw observations with any number of batch axes to ``(..., E)``."""
        first = self.keys[0]
        batch = obs[first.name].shape[: obs[first.name].ndim - len(first.shape)]
        parts: list[th.Tensor] = []
        for name, group in self.image_groups.items():
            images = [obs[key.name].flatten(0, len(batch) - 1) for key in group]
            parts.append(self.cnns[name](self.pixels(th.cat(images, 1), group[0].white)))
        if self.mlp:
            parts.append(self.mlp(th.cat([self._flat(key, obs[key.name], len(batch)) for key in self.flat_keys], -1)))
        embed: th.Tensor = th.cat(parts, -1).unflatten(0, batch)
        return embed

    def _flat(self, key: ObsKey, value: th.Tensor, batch_axes: int) -> th.Tensor:
        value = value.flatten(0, batch_axes - 1).flatten(1) if key.shape else value.flatten().unsqueeze(1)
        if key.kind == "discrete":
            return one_hot_blocks(value, key)
        return symlog(value.float()) if self.symlog_inputs else value.float()


class Decoder(nn.Module):
    """Features ``(..., F)`` to the mean of each key's reconstruction, and their losses.

    Images: squared error in [0, 1], summed over pixels. Vectors: squared error of symlog values, summed over entries.
    Discrete keys: cross-entropy. (DreamerV3 2023: ``image`` mse sum, ``vector`` symlog_mse sum.)

    :param inputs: width F
    :param keys: observation keys to reconstruct
    :param symlog_targets: compare symlog values of vectors (DreamerV3: yes)
    :param image_decoder: builds the CNN of one image size, called as :class:`ImageDecoder` is
    """

    def __init__(
        self,
        inputs: int,
        keys: tuple[ObsKey, ...],
        *,
        depth: int,
        units: tuple[int, ...],
        style: NormStyle,
        symlog_targets: bool = True,
        image_decoder: Callable[..., nn.Module] = ImageDecoder,
    ):
        super().__init__()
        self.keys = keys
        self.symlog_targets = symlog_targets
        self.image_groups = _image_groups(keys)
        self.flat_keys = [key for key in keys if key.kind != "image"]
        self.cnns = nn.ModuleDict()
        for name, group in self.image_groups.items():
            channels, size = sum(key.shape[0] for key in group), group[0].shape[1:]
            self.cnns[name] = image_decoder(inputs, channels, size, depth, style=style)
        self.mlp = MLP(inputs, units, style=style) if self.flat_keys else None
        # A list, since a module's name must not hold the dots that an observation key may hold.
        self.outs = nn.ModuleList(
            linear(self.mlp.out_size, flat_size(key), fan=style.fan) for key in self.flat_keys if self.mlp
        )

    @property
    def scales(self) -> dict[str, float]:
        """One loss with scale 1 for each key."""
        return {recon_name(key): 1.0 for key in self.keys}

    def forward(self, feat: th.Tensor) -> dict[str, th.Tensor]:
        """Raw reconstructions by key: images ``(..., C, H, W)``, vectors and logits ``(..., flat)``."""
        batch = feat.shape[:-1]
        flat = feat.flatten(0, -2)
        outs: dict[str, th.Tensor] = {}
        for name, group in self.image_groups.items():
            images = self.cnns[name](flat).split([key.shape[0] for key in group], 1)
            outs |= {key.name: image.unflatten(0, batch) for key, image in zip(group, images, strict=True)}
        if self.mlp:
            hidden = self.mlp(flat)
            for key, out in zip(self.flat_keys, self.outs, strict=True):
                outs[key.name] = out(hidden).unflatten(0, batch)
        return outs

    def losses(self, outs: dict[str, th.Tensor], obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Reconstruction losses by key, each with the batch axes of ``outs``."""
        return {recon_name(key): self._loss(key, outs[key.name], obs[key.name]) for key in self.keys}

    def image_target(self, image: th.Tensor, white: float) -> th.Tensor:
        """Raw (or prepared) images to what the decoder's output is compared with, in [0, 1].

        :param white: see :class:`ObsKey`
        """
        return image.float() / white

    def _loss(self, key: ObsKey, out: th.Tensor, target: th.Tensor) -> th.Tensor:
        if key.kind == "image":
            error: th.Tensor = out.float() - self.image_target(target, key.white)
            return error.square().sum((-3, -2, -1))
        batch = out.shape[:-1]
        if key.kind == "discrete":
            hot: th.Tensor = one_hot_blocks(target.reshape(-1, len(key.classes)), key).unflatten(0, batch)
            logs: th.Tensor = th.cat([F.log_softmax(part.float(), -1) for part in out.split(key.classes, -1)], -1)
            return -(hot * logs).sum(-1)
        value: th.Tensor = target.float().reshape(*batch, -1)
        error = out.float() - (symlog(value) if self.symlog_targets else value)
        return error.square().sum(-1)

    def observation(self, outs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Reconstructions in the units of the environment: images as floats, vectors, category indices."""
        result: dict[str, th.Tensor] = {}
        for key in self.keys:
            out = outs[key.name]
            if key.kind == "image":
                result[key.name] = out.clamp(0.0, 1.0) * 255.0 if key.white == 255.0 else out
            elif key.kind == "discrete":
                index = th.stack([part.argmax(-1) for part in out.split(key.classes, -1)], -1)
                index = index + index.new_tensor(key.starts)
                result[key.name] = index.reshape(*out.shape[:-1], *key.shape)
            else:
                value = symexp(out) if self.symlog_targets else out
                result[key.name] = value.reshape(*out.shape[:-1], *key.shape)
        return result
