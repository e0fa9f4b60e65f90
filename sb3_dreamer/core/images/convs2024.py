"""Convolutional stacks of DreamerV3's 2024 version: 5x5 kernels, 2x2 max-pooling, nearest upsampling."""

import itertools
import math

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_dreamer.core.images.convs import ChannelNorm, Size2, init_conv
from sb3_dreamer.core.layers import BlockLinear, NormStyle, ungroup

MULTS = (2, 3, 4, 4)  #: channels of the four stages, as multiples of the depth
BLOCKS = 8  #: of the first map of the decoder; fewer where channels or deter cannot be divided by it
LARGEST, SMALLEST = 16, 3  #: sides of the last map that the released code accepts


def pool_stages(size: Size2) -> list[Size2]:
    """Feature map sizes from the image to the last map; each stage halves, rounding up.

    Four stages, as in the released code, wherever they end between 3 and 16 pixels; fewer for smaller images and more
    for larger ones, which the released code refuses.

    :param size: height and width
    """
    count = len(MULTS)
    while count > 1 and -(-min(size) // 2**count) < SMALLEST:
        count -= 1
    while max(size) / 2**count > LARGEST and min(size) / 2 ** (count + 1) >= SMALLEST:
        count += 1
    sizes = [size]
    for _ in range(count):
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def stage_depths(depth: int, stages: int) -> list[int]:
    """Channels of each stage: 2, 3, 4, 4 times the depth, cut or continued at the end."""
    return [depth * mult for mult in (*MULTS, *[MULTS[-1]] * stages)[:stages]]


class PoolingEncoder(nn.Module):
    """Convolution, 2x2 maximum, norm, activation at each stage: ``(N, C, H, W)`` to ``(N, E)``.

    :param channels: C
    :param size: H and W
    :param depth: unit of the channels
    :param style: norm, activation and initialization
    """

    def __init__(self, channels: int, size: Size2, depth: int, *, style: NormStyle):
        super().__init__()
        self.sizes = pool_stages(size)
        depths = [channels, *stage_depths(depth, len(self.sizes) - 1)]
        self.convs = nn.ModuleList(
            init_conv(nn.Conv2d(a, b, 5, 1, 2), a, b, style=style) for a, b in itertools.pairwise(depths)
        )
        self.norms = nn.ModuleList(ChannelNorm(style.make_norm_act(b)) for b in depths[1:])
        self.out_shape = (depths[-1], *self.sizes[-1])
        self.out_size = math.prod(self.out_shape)

    def forward(self, image: th.Tensor) -> th.Tensor:
        """Image in [-0.5, 0.5] to ``(N, E)``."""
        x = image.contiguous(memory_format=th.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            # Rounding up keeps the last row and column of an odd side.
            x = norm(F.max_pool2d(conv(x), 2, ceil_mode=True))
        return x.flatten(1)


class BlockDecoder(nn.Module):
    """The way back: ``(N, F)`` to a mean image ``(N, C, H, W)`` in [0, 1].

    The first map is the sum of a block-linear map of deter, each block of which gives its own channels, and of a
    hidden layer over stoch. Each stage then doubles the map by repeating pixels and convolves it.

    :param inputs: width F of the features: deter, then stoch
    :param channels: C
    :param size: H and W
    :param depth: unit of the channels
    :param style: norm, activation and initialization
    :param deter: width D of deter
    :param units: half the width of the hidden layer over stoch
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        size: Size2,
        depth: int,
        *,
        style: NormStyle,
        deter: int,
        units: int,
    ):
        super().__init__()
        self.sizes = pool_stages(size)[::-1]
        depths = stage_depths(depth, len(self.sizes) - 1)[::-1]
        height, width = self.sizes[0]
        self.deter = deter
        self.blocks = math.gcd(BLOCKS, depths[0], deter)
        self.start_shape = (depths[0], height, width)
        start = math.prod(self.start_shape)
        self.deter_in = BlockLinear(self.blocks, deter // self.blocks, start // self.blocks)
        self.stoch_in = style.linear(inputs - deter, 2 * units)
        self.stoch_norm = style.make_norm_act(2 * units)
        self.stoch_out = style.linear(2 * units, start)
        self.start_norm = ChannelNorm(style.make_norm_act(depths[0]))
        pairs = itertools.pairwise([*depths, channels])
        self.convs = nn.ModuleList(init_conv(nn.Conv2d(a, b, 5, 1, 2), a, b, style=style) for a, b in pairs)
        self.norms = nn.ModuleList(ChannelNorm(style.make_norm_act(b)) for b in depths[1:])

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """``(N, F)`` to ``(N, C, H, W)``."""
        deter, stoch = feat[:, : self.deter], feat[:, self.deter :]
        hidden = self.stoch_norm(self.stoch_in(stoch))
        start = ungroup(self.deter_in(deter)) + self.stoch_out(hidden)
        x = start.unflatten(1, self.start_shape).contiguous(memory_format=th.channels_last)
        x = self.start_norm(x)
        for conv, norm, size in zip(self.convs[:-1], self.norms, self.sizes[1:-1], strict=True):
            x = norm(enlarge(x, conv, size))
        return th.sigmoid(enlarge(x, self.convs[-1], self.sizes[-1]))


def enlarge(x: th.Tensor, conv: nn.Module, size: Size2) -> th.Tensor:
    """Repeat pixels to ``size``, then convolve: ``(N, C, H, W)`` to ``(N, C', *size)``.

    Where each pixel is repeated 2 x 2 times, 5 x 5 neighbors are only 3 x 3 different ones. Four kernels of 3 x 3 on
    the small map, one for each of the four places, give the same with a third of the products and no large map.

    :param conv: a ``Conv2d`` of kernel 5 and padding 2
    """
    assert isinstance(conv, nn.Conv2d)
    if size != (2 * x.shape[2], 2 * x.shape[3]):  # the last row or column of an odd side is not repeated
        return conv(F.interpolate(x, size=size, mode="nearest"))  # type: ignore[no-any-return]
    bias = None if conv.bias is None else conv.bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, kernels_by_place(conv.weight), bias, padding=1), 2)


def kernels_by_place(weight: th.Tensor) -> th.Tensor:
    """Kernels on repeated pixels ``(C', C, 5, 5)`` to those on the pixels themselves, ``(C'·4, C, 3, 3)``.

    The four places of a pixel follow each other as ``F.pixel_shuffle`` reads them.
    """
    rows = th.stack(_first_and_second(weight, -2), 1)
    return th.stack(_first_and_second(rows, -1), 2).flatten(0, 2)


def _first_and_second(weight: th.Tensor, dim: int) -> tuple[th.Tensor, th.Tensor]:
    """Five taps as three, for the first and for the second copy of a pixel: taps on equal pixels add up."""
    a, b, c, d, e = weight.unbind(dim)
    return th.stack([a + b, c + d, e], dim), th.stack([a, b + c, d + e], dim)
