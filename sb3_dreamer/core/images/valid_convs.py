"""Convolutional stacks of PlaNet and DreamerV2: stride 2 without padding, any image size.

For 64x64 they are the released ones: kernels 4, 4, 4, 4 (64, 31, 14, 6, 2) and 5, 5, 6, 6 (1, 5, 13, 30, 64).
"""

import itertools
import math

import torch as th
from torch import nn

from sb3_dreamer.core.images.convs import ChannelNorm, Size2, init_conv
from sb3_dreamer.core.layers import NormStyle, linear

KERNEL = 4


def stage_count(size: Size2, minimum: int = 4) -> int:
    """Stages of the encoder: 4 for 64x64, one more for each doubling; at most what kernels of 4 leave room for."""
    wanted, count, side = max(1, round(math.log2(min(size) / minimum))), 0, min(size)
    while count < wanted and side >= KERNEL:
        side, count = (side - KERNEL) // 2 + 1, count + 1
    return count


def decoder_plan(size: Size2, minimum: int = 4) -> tuple[Size2, list[Size2]]:
    """Smallest map and kernels, from first to last, of transposed convolutions that end exactly at ``size``.

    Backwards from the image, an even side takes a kernel of 6 and an odd one a kernel of 5: ``(side - kernel) / 2 + 1``
    is whole then. It ends after as many stages as the encoder has, or when a side gets too small.
    """
    kernels: list[Size2] = []
    height, width = size
    while len(kernels) < stage_count(size, minimum) and min(height, width) >= 5 + (min(height, width) % 2 == 0):
        kernel = (6 - height % 2, 6 - width % 2)
        height, width = (height - kernel[0]) // 2 + 1, (width - kernel[1]) // 2 + 1
        kernels.append(kernel)
    return (height, width), kernels[::-1]


class ValidImageEncoder(nn.Module):
    """Stride-2 convolutions with kernel 4 and no padding, depth doubling: ``(N, C, H, W)`` to ``(N, E)``.

    :param channels: C
    :param size: H and W
    :param depth: channels of the first stage (PlaNet: 32, DreamerV2: 48)
    :param style: norm, activation and initialization of each stage
    """

    def __init__(self, channels: int, size: Size2, depth: int, *, style: NormStyle, minimum: int = 4):
        super().__init__()
        count = stage_count(size, minimum)
        depths = [channels] + [depth * 2**i for i in range(count)]
        self.convs = nn.ModuleList(
            init_conv(nn.Conv2d(a, b, KERNEL, 2, bias=style.bias), a, b, style=style)
            for a, b in itertools.pairwise(depths)
        )
        self.norms = nn.ModuleList(ChannelNorm(style.make_norm(b)) for b in depths[1:])
        self.act = style.activation
        height, width = size
        for _ in range(count):
            height, width = (height - KERNEL) // 2 + 1, (width - KERNEL) // 2 + 1
        self.out_shape = (depths[-1], height, width)
        self.out_size = math.prod(self.out_shape)

    def forward(self, image: th.Tensor) -> th.Tensor:
        """Image in [-0.5, 0.5] to ``(N, E)``."""
        x = image.contiguous(memory_format=th.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.act(norm(conv(x)))
        return x.flatten(1)


class ValidImageDecoder(nn.Module):
    """Dense layer and transposed convolutions without padding: ``(N, F)`` to a mean image ``(N, C, H, W)``.

    The image is in about [0, 1], as that of :class:`~sb3_dreamer.core.images.convs.ImageDecoder`.
    """

    def __init__(self, inputs: int, channels: int, size: Size2, depth: int, *, style: NormStyle, minimum: int = 4):
        super().__init__()
        (height, width), kernels = decoder_plan(size, minimum)
        stages = len(kernels)
        # 32 depth on the 1x1 map of four stages, then 4, 2 and 1 times depth.
        depths = [depth * 2 ** (stages + 1)] + [depth * 2**i for i in reversed(range(stages - 1))] + [channels]
        self.start_shape = (depths[0], height, width)
        self.dense = linear(inputs, math.prod(self.start_shape), fan=style.fan)
        self.deconvs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (kernel, (a, b)) in enumerate(zip(kernels, itertools.pairwise(depths), strict=True)):
            last = i == stages - 1
            deconv = nn.ConvTranspose2d(a, b, kernel, 2, bias=last or style.bias)
            self.deconvs.append(init_conv(deconv, a, b, style=style))
            self.norms.append(nn.Identity() if last else ChannelNorm(style.make_norm(b)))
        self.act = style.activation

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """``(N, F)`` to ``(N, C, H, W)``."""
        x = self.dense(feat).unflatten(1, self.start_shape).contiguous(memory_format=th.channels_last)
        for deconv, norm in zip(self.deconvs[:-1], self.norms[:-1], strict=True):
            x = self.act(norm(deconv(x)))
        return self.deconvs[-1](x) + 0.5  # type: ignore[no-any-return]
