"""The unpadded convolutions: the released sizes for 64x64, and exact images of every other size."""

import pytest
import torch as th

from sb3_dreamer.core.images.valid_convs import ValidImageDecoder, ValidImageEncoder, decoder_plan, stage_count
from sb3_dreamer.core.layers import NormStyle

STYLE = NormStyle(norm="none", act="elu")


def test_released_sizes() -> None:
    encoder = ValidImageEncoder(1, (64, 64), 48, style=STYLE)
    assert [tuple(conv.weight.shape) for conv in encoder.convs] == [
        (48, 1, 4, 4),
        (96, 48, 4, 4),
        (192, 96, 4, 4),
        (384, 192, 4, 4),
    ]
    assert encoder.out_size == 384 * 2 * 2
    decoder = ValidImageDecoder(7, 3, (64, 64), 48, style=STYLE)
    assert decoder.start_shape == (32 * 48, 1, 1)
    assert [tuple(deconv.weight.shape) for deconv in decoder.deconvs] == [
        (1536, 192, 5, 5),
        (192, 96, 5, 5),
        (96, 48, 6, 6),
        (48, 3, 6, 6),
    ]
    image, sides = th.zeros(2, 7), []
    image = decoder.dense(image).unflatten(1, decoder.start_shape)
    for deconv in decoder.deconvs:
        image = deconv(image)
        sides.append(image.shape[-1])
    assert sides == [5, 13, 30, 64]


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (32, 32), (40, 36), (24, 80), (47, 91), (84, 84), (96, 96)])
def test_every_size_comes_back_exactly(size: tuple[int, int]) -> None:
    encoder, decoder = ValidImageEncoder(2, size, 2, style=STYLE), ValidImageDecoder(5, 2, size, 2, style=STYLE)
    embed = encoder(th.rand(3, 2, *size) - 0.5)
    assert embed.shape == (3, encoder.out_size)
    assert decoder(th.randn(3, 5)).shape == (3, 2, *size)
    start, kernels = decoder_plan(size)
    assert min(start) >= 1 and 1 <= len(kernels) <= stage_count(size)


def test_one_image_can_be_learned() -> None:
    th.manual_seed(0)
    decoder = ValidImageDecoder(4, 1, (32, 32), 4, style=STYLE)
    target, feat = th.zeros(1, 1, 32, 32), th.ones(1, 4)
    target[..., 8:20, 10:30] = 1.0
    optimizer = th.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(60):
        loss = (decoder(feat) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02
