"""PlaNet's images: unpadded convolutions, and pixels reduced to a few bits with dequantisation noise."""

import itertools
import math
from typing import Any

import torch as th
from torch import nn

from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.layers import NormStyle, init_weight, linear

Size2 = tuple[int, int]


def valid_sizes(size: Size2) -> list[Size2]:
    """Map sizes of unpadded convolutions with kernel 4 and stride 2, from the image down: 64, 31, 14, 6, 2."""
    sizes = [size]
    while min(sizes[-1]) >= 4:
        height, width = sizes[-1]
        sizes.append(((height - 4) // 2 + 1, (width - 4) // 2 + 1))
    return sizes


def _depths(depth: int, stages: int) -> list[int]:
    """Channels double up to eight times the first: images above 64 pixels only add stages."""
    return [depth * min(2**i, 8) for i in range(stages)]


class ValidEncoder(nn.Module):
    """Stride-2 convolutions with kernel 4 and no padding: ``(N, C, H, W)`` to ``(N, E)``.

    PlaNet (and DreamerV2): 64 pixels and depth 32 give channels 32, 64, 128, 256 and E = 1024.

    :param channels: C
    :param size: H and W, at least 4 each
    :param depth: channels of the first stage
    :param style: activation and initialisation; there are no norms
    :param minimum: ignored; the signature of :class:`ImageEncoder`
    """

    def __init__(self, channels: int, size: Size2, depth: int, *, style: NormStyle, minimum: int = 4):
        super().__init__()
        sizes = valid_sizes(size)
        depths = [channels, *_depths(depth, len(sizes) - 1)]
        self.convs = nn.ModuleList(_init(nn.Conv2d(a, b, 4, 2), a, b, style) for a, b in itertools.pairwise(depths))
        self.act = style.activation
        self.out_size = depths[-1] * math.prod(sizes[-1])

    def forward(self, image: th.Tensor) -> th.Tensor:
        """Image in [-0.5, 0.5] to ``(N, E)``."""
        x = image.contiguous(memory_format=th.channels_last)
        for conv in self.convs:
            x = self.act(conv(x))
        return x.flatten(1)


class ValidDecoder(nn.Module):
    """A dense layer and unpadded transposed convolutions: ``(N, F)`` to a mean image ``(N, C, H, W)`` in about [0, 1].

    64 pixels as in the paper: a map of 1 × 1 with 32 · depth channels, then kernels 5, 5, 6, 6. Other sizes, which the
    paper does not have, mirror the encoder's maps with kernels of 4.

    :param inputs: width F
    :param channels: C
    :param size: H and W
    :param depth: channels of the last but one stage
    :param style: activation and initialisation
    :param minimum: ignored; the signature of :class:`ImageDecoder`
    """

    def __init__(self, inputs: int, channels: int, size: Size2, depth: int, *, style: NormStyle, minimum: int = 4):
        super().__init__()
        if size == (64, 64):
            sides, kernels = [1, 5, 13, 30, 64], [5, 5, 6, 6]
            sizes = [(side, side) for side in sides]
            depths = [32 * depth, 4 * depth, 2 * depth, depth, channels]
        else:
            sizes = valid_sizes(size)[::-1]
            kernels = [4] * (len(sizes) - 1)
            depths = [*reversed(_depths(depth, len(kernels))), channels]
        self.start_shape = (depths[0], *sizes[0])
        self.dense = linear(inputs, math.prod(self.start_shape), fan=style.fan)
        self.deconvs = nn.ModuleList()
        for i, kernel in enumerate(kernels):
            a, b, (height, width) = depths[i], depths[i + 1], sizes[i + 1]
            rest = (height - 2 * sizes[i][0] + 2 - kernel, width - 2 * sizes[i][1] + 2 - kernel)
            self.deconvs.append(_init(nn.ConvTranspose2d(a, b, kernel, 2, output_padding=rest), a, b, style))
        self.act = style.activation

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """``(N, F)`` to ``(N, C, H, W)``."""
        x = self.dense(feat).unflatten(1, self.start_shape).contiguous(memory_format=th.channels_last)
        for deconv in self.deconvs[:-1]:
            x = self.act(deconv(x))
        return self.deconvs[-1](x) + 0.5  # type: ignore[no-any-return]


def _init(conv: nn.Module, inputs: int, outputs: int, style: NormStyle) -> nn.Module:
    """The initialisation of dense layers, with the kernel's area in both fans."""
    assert isinstance(conv.weight, th.Tensor) and isinstance(conv.bias, th.Tensor)
    area = conv.weight[0, 0].numel()
    init_weight(conv.weight, inputs * area, outputs * area, fan=style.fan)
    nn.init.zeros_(conv.bias)
    return conv


def quantize(image: th.Tensor, bits: int, *, noise: bool) -> th.Tensor:
    """``floor(x / 2^(8-b)) / 2^b + u - 0.5`` with ``u`` uniform in ``[0, 2^-b)`` (PlaNet, ``tools/preprocess.py``).

    :param image: 0 to 255, any shape
    :param bits: b, 1 to 8
    :param noise: draw u; otherwise it is the middle, ``2^-(b+1)``
    """
    bins = float(2**bits)
    image = th.floor(image.float() / 2 ** (8 - bits)) / bins
    return image + (th.rand_like(image) if noise else 0.5) / bins - 0.5


class QuantizedEncoder(Encoder):
    """An encoder whose images have ``bits`` bits, with dequantisation noise in training mode.

    In evaluation mode the noise is at its mean, so that acting can be repeated (the released code draws it there, too).
    Parameters as :class:`Encoder`.

    :param bits: bits of each pixel (PlaNet: 5)
    """

    def __init__(self, *args: Any, bits: int = 5, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not 1 <= bits <= 8:
            raise ValueError(f"bits={bits!r} must be 1 to 8")
        self.bits = bits

    def prepare(self, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Quantised images, so that input and target have the same noise."""
        names = [key.name for key in self.keys if key.kind == "image"]
        return obs | {name: self.pixels(obs[name]) for name in names}

    def pixels(self, images: th.Tensor) -> th.Tensor:
        """Raw images are quantised; floats were prepared before."""
        return images if images.is_floating_point() else quantize(images, self.bits, noise=self.training)


class QuantizedDecoder(Decoder):
    """The decoder of a :class:`QuantizedEncoder`: compares with the prepared image (or with a raw one)."""

    def image_target(self, image: th.Tensor) -> th.Tensor:
        """See :class:`Decoder`."""
        return image + 0.5 if image.is_floating_point() else super().image_target(image)
