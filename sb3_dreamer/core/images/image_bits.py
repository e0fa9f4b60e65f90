"""Images of few bits: quantization with dequantization noise, shared by encoder and decoder (PlaNet)."""

from typing import Any

import torch as th

from sb3_dreamer.core.codecs import Decoder, Encoder


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
    """An encoder whose images have ``bits`` bits, with dequantization noise in training mode.

    In evaluation mode the noise is at its mean, so that acting can be repeated (the released code draws it there, too).
    Parameters as :class:`Encoder`.

    :param bits: bits of each pixel (PlaNet: 5)
    """

    def __init__(self, *args: Any, bits: int = 5, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not 1 <= bits <= 8:
            raise ValueError(f"bits={bits!r} must be 1 to 8")
        if any(group[0].white != 255.0 for group in self.image_groups.values()):
            raise ValueError(f"images of {bits} bits are made from uint8: leave out normalize_images=False")
        self.bits = bits

    def prepare(self, obs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Quantized images, so that input and target have the same noise."""
        names = [key.name for key in self.keys if key.kind == "image"]
        return obs | {name: self.pixels(obs[name], 255.0) for name in names}

    def pixels(self, images: th.Tensor, white: float) -> th.Tensor:
        """Raw images are quantized; floats were prepared before."""
        return images if images.is_floating_point() else quantize(images, self.bits, noise=self.training)


class QuantizedDecoder(Decoder):
    """The decoder of a :class:`QuantizedEncoder`: compares with the prepared image (or with a raw one)."""

    def image_target(self, image: th.Tensor, white: float) -> th.Tensor:
        """See :class:`Decoder`."""
        return image + 0.5 if image.is_floating_point() else super().image_target(image, white)
