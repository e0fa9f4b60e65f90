"""Convolutional stacks of the 2023 family: stride-2 kernels of 4, any image size, exact mirrors of each other."""

import itertools
import math
from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_dreamer.core.layers import NormStyle, init_weight, linear

Size2 = tuple[int, int]


def image_stages(size: Size2) -> list[Size2]:
    """Feature map sizes of the convolutional stack, from the image to the smallest map.

    Each stage halves (rounding down) until a side is nearest to 4 on a log scale: 64 gives 64, 32, 16, 8, 4.

    :param size: height and width
    """
    count = max(1, round(math.log2(min(size) / 4)))
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


class StridedEncoder(nn.Module):
    """Stride-2 convolutions with kernel 4: ``(N, C, H, W)`` to ``(N, E)``.

    :param depths: channels of the image and of each stage
    :param last: height and width of the last map
    :param padding: of each convolution
    :param style: norm, activation and initialization of each stage
    """

    def __init__(self, depths: Sequence[int], last: Size2, *, padding: int, style: NormStyle):
        super().__init__()
        self.convs = nn.ModuleList(
            init_conv(nn.Conv2d(a, b, 4, 2, padding, bias=style.bias), a, b, style=style)
            for a, b in itertools.pairwise(depths)
        )
        self.norms = nn.ModuleList(ChannelNorm(style.make_norm_act(b)) for b in depths[1:])
        self.out_shape = (depths[-1], *last)
        self.out_size = math.prod(self.out_shape)

    def forward(self, image: th.Tensor) -> th.Tensor:
        """Image in [-0.5, 0.5] to ``(N, E)``."""
        x = image.contiguous(memory_format=th.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return x.flatten(1)


class StridedDecoder(nn.Module):
    """Dense layer and stride-2 transposed convolutions: ``(N, F)`` to a mean image ``(N, C, H, W)`` in about [0, 1].

    :param inputs: width F
    :param depths: channels of the first map and of each stage
    :param first: height and width of the first map
    :param kernels: of each stage
    :param added: rows and columns that each stage adds to its output
    :param padding: of each stage
    :param style: norm, activation and initialization of each stage but the last, which has none
    """

    def __init__(
        self,
        inputs: int,
        depths: Sequence[int],
        first: Size2,
        *,
        kernels: Sequence[Size2],
        added: Sequence[Size2],
        padding: int,
        style: NormStyle,
    ):
        super().__init__()
        self.start_shape = (depths[0], *first)
        self.dense = linear(inputs, math.prod(self.start_shape), fan=style.fan)
        self.deconvs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise(depths)):
            last = i == len(kernels) - 1
            deconv = nn.ConvTranspose2d(a, b, kernels[i], 2, padding, added[i], bias=last or style.bias)
            self.deconvs.append(init_conv(deconv, a, b, style=style))
            self.norms.append(nn.Identity() if last else ChannelNorm(style.make_norm_act(b)))

    def forward(self, feat: th.Tensor) -> th.Tensor:
        """``(N, F)`` to ``(N, C, H, W)``."""
        x = self.dense(feat).unflatten(1, self.start_shape).contiguous(memory_format=th.channels_last)
        for deconv, norm in zip(self.deconvs[:-1], self.norms[:-1], strict=True):
            x = norm(deconv(x))
        return self.deconvs[-1](x) + 0.5  # type: ignore[no-any-return]


class ImageEncoder(StridedEncoder):
    """Convolutions that halve the image, depth doubling (DreamerV3 2023): ``(N, C, H, W)`` to ``(N, E)``.

    :param channels: C
    :param size: H and W
    :param depth: channels of the first stage
    :param style: norm, activation and initialization of each stage
    """

    def __init__(self, channels: int, size: Size2, depth: int, *, style: NormStyle):
        sizes = image_stages(size)
        depths = [channels] + [depth * 2**i for i in range(len(sizes) - 1)]
        super().__init__(depths, sizes[-1], padding=1, style=style)


class ImageDecoder(StridedDecoder):
    """The mirror of :class:`ImageEncoder`: ``(N, F)`` to a mean image ``(N, C, H, W)`` in about [0, 1]."""

    def __init__(self, inputs: int, channels: int, size: Size2, depth: int, *, style: NormStyle):
        sizes = image_stages(size)[::-1]
        stages = len(sizes) - 1
        depths = [depth * 2**i for i in reversed(range(stages))] + [channels]
        # A map of odd size is restored by one more row or column of output.
        added = [(large[0] - 2 * small[0], large[1] - 2 * small[1]) for small, large in itertools.pairwise(sizes)]
        kernels = [(4, 4)] * stages
        super().__init__(inputs, depths, sizes[0], kernels=kernels, added=added, padding=1, style=style)


def init_conv(conv: nn.Module, inputs: int, outputs: int, *, style: NormStyle) -> nn.Module:
    """The initialization of dense layers, with the kernel's area in both fans."""
    assert isinstance(conv.weight, th.Tensor)
    area = conv.weight[0, 0].numel()
    init_weight(conv.weight, inputs * area, outputs * area, fan=style.fan)
    if isinstance(conv.bias, th.Tensor):
        nn.init.zeros_(conv.bias)
    return conv
