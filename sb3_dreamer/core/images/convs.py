"""Convolutional stacks of the 2023 family: stride-2 kernels of 4, any image size, exact mirrors of each other."""

import itertools
import math

import torch as th
from torch import nn

from sb3_dreamer.core.layers import NormStyle, init_weight, linear

Size2 = tuple[int, int]


def image_stages(size: Size2, minimum: int = 4) -> list[Size2]:
    """Feature map sizes of the convolutional stack, from the image to the smallest map.

    Each stage halves (rounding down) until a side is nearest to ``minimum`` on a log scale: 64 gives 64, 32, 16, 8, 4.

    :param size: height and width
    :param minimum: side of the smallest map aimed at (DreamerV3: 4)
    """
    count = max(1, round(math.log2(min(size) / minimum)))
    sizes = [size]
    for _ in range(count):
        height, width = sizes[-1]
        sizes.append((height // 2, width // 2))
    return sizes


class ChannelNorm(nn.Module):
    """A norm over the channels of each pixel, ``(N, C, H, W)``, as in the released code (channels last there)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: th.Tensor) -> th.Tensor:
        """Same shape."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class ImageEncoder(nn.Module):
    """Stride-2 convolutions with kernel 4, depth doubling (DreamerV3 2023): ``(N, C, H, W)`` to ``(N, E)``.

    :param channels: C
    :param size: H and W
    :param depth: channels of the first stage
    :param style: norm, activation and initialization of each stage
    """

    def __init__(self, channels: int, size: Size2, depth: int, *, style: NormStyle, minimum: int = 4):
        super().__init__()
        self.sizes = image_stages(size, minimum)
        depths = [channels] + [depth * 2**i for i in range(len(self.sizes) - 1)]
        self.convs = nn.ModuleList(
            init_conv(nn.Conv2d(a, b, 4, 2, 1, bias=style.bias), a, b, style=style)
            for a, b in itertools.pairwise(depths)
        )
        self.norms = nn.ModuleList(ChannelNorm(style.make_norm(b)) for b in depths[1:])
        self.act = style.activation
        self.out_shape = (depths[-1], *self.sizes[-1])
        self.out_size = math.prod(self.out_shape)

    def forward(self, image: th.Tensor) -> th.Tensor:
        """Image in [-0.5, 0.5] to ``(N, E)``."""
        x = image.contiguous(memory_format=th.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.act(norm(conv(x)))
        return x.flatten(1)


class ImageDecoder(nn.Module):
    """The mirror of :class:`ImageEncoder`: ``(N, F)`` to a mean image ``(N, C, H, W)`` in about [0, 1]."""

    def __init__(self, inputs: int, channels: int, size: Size2, depth: int, *, style: NormStyle, minimum: int = 4):
        super().__init__()
        self.sizes = image_stages(size, minimum)[::-1]
        stages = len(self.sizes) - 1
        depths = [depth * 2**i for i in reversed(range(stages))] + [channels]
        self.start_shape = (depths[0], *self.sizes[0])
        self.dense = linear(inputs, math.prod(self.start_shape), fan=style.fan)
        self.deconvs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i in range(stages):
            last = i == stages - 1
            (height, width), a, b = self.sizes[i + 1], depths[i], depths[i + 1]
            # A map of odd size is restored by one more row or column of output.
            padding = (height - 2 * self.sizes[i][0], width - 2 * self.sizes[i][1])
            deconv = nn.ConvTranspose2d(a, b, 4, 2, 1, output_padding=padding, bias=last or style.bias)
            self.deconvs.append(init_conv(deconv, a, b, style=style))
            self.norms.append(nn.Identity() if last else ChannelNorm(style.make_norm(b)))
        self.act = style.activation

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """``(N, F)`` to ``(N, C, H, W)``."""
        x = self.dense(feat).unflatten(1, self.start_shape).contiguous(memory_format=th.channels_last)
        for deconv, norm in zip(self.deconvs[:-1], self.norms[:-1], strict=True):
            x = self.act(norm(deconv(x)))
        return self.deconvs[-1](x) + 0.5  # type: ignore[no-any-return]


def init_conv(conv: nn.Module, inputs: int, outputs: int, *, style: NormStyle) -> nn.Module:
    """The initialization of dense layers, with the kernel's area in both fans."""
    assert isinstance(conv.weight, th.Tensor)
    area = conv.weight[0, 0].numel()
    init_weight(conv.weight, inputs * area, outputs * area, fan=style.fan)
    if isinstance(conv.bias, th.Tensor):
        nn.init.zeros_(conv.bias)
    return conv
