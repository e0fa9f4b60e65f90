"""Convolutional stacks of PlaNet and DreamerV2: stride 2 without padding, any image size.

For 64x64 they are the released ones: kernels 4, 4, 4, 4 (64, 31, 14, 6, 2) and 5, 5, 6, 6 (1, 5, 13, 30, 64).
"""

import math

from sb3_dreamer.core.images.convs import Size2, StridedDecoder, StridedEncoder
from sb3_dreamer.core.layers import NormStyle

KERNEL = 4


def stage_count(size: Size2) -> int:
    """Stages of the encoder: 4 for 64x64, one more for each doubling; at most what kernels of 4 leave room for."""
    wanted, count, side = max(1, round(math.log2(min(size) / 4))), 0, min(size)
    while count < wanted and side >= KERNEL:
        side, count = (side - KERNEL) // 2 + 1, count + 1
    return count


def decoder_plan(size: Size2) -> tuple[Size2, list[Size2]]:
    """Smallest map and kernels, from first to last, of transposed convolutions that end exactly at ``size``.

    Backwards from the image, an even side takes a kernel of 6 and an odd one a kernel of 5: ``(side - kernel) / 2 + 1``
    is whole then. It ends after as many stages as the encoder has, or when a side gets too small.
    """
    kernels: list[Size2] = []
    height, width = size
    while len(kernels) < stage_count(size) and min(height, width) >= 5 + (min(height, width) % 2 == 0):
        kernel = (6 - height % 2, 6 - width % 2)
        height, width = (height - kernel[0]) // 2 + 1, (width - kernel[1]) // 2 + 1
        kernels.append(kernel)
    return (height, width), kernels[::-1]


class ValidImageEncoder(StridedEncoder):
    """Convolutions without padding, depth doubling: ``(N, C, H, W)`` to ``(N, E)``.

    :param channels: C
    :param size: H and W
    :param depth: channels of the first stage (PlaNet: 32, DreamerV2: 48)
    :param style: norm, activation and initialization of each stage
    """

    def __init__(self, channels: int, size: Size2, depth: int, *, style: NormStyle):
        count = stage_count(size)
        height, width = size
        for _ in range(count):
            height, width = (height - KERNEL) // 2 + 1, (width - KERNEL) // 2 + 1
        depths = [channels] + [depth * 2**i for i in range(count)]
        super().__init__(depths, (height, width), padding=0, style=style)


class ValidImageDecoder(StridedDecoder):
    """Transposed convolutions without padding: ``(N, F)`` to a mean image ``(N, C, H, W)`` in about [0, 1]."""

    def __init__(self, inputs: int, channels: int, size: Size2, depth: int, *, style: NormStyle):
        first, kernels = decoder_plan(size)
        stages = len(kernels)
        # 32 depth on the 1x1 map of four stages, then 4, 2 and 1 times depth.
        depths = [depth * 2 ** (stages + 1)] + [depth * 2**i for i in reversed(range(stages - 1))] + [channels]
        added = [(0, 0)] * stages
        super().__init__(inputs, depths, first, kernels=kernels, added=added, padding=0, style=style)
