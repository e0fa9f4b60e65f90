"""Architecture of DreamerV3: a frozen spec with named sizes."""

import dataclasses
import difflib
from dataclasses import dataclass, replace
from typing import Any

from sb3_dreamer.core.types import ObsKey


@dataclass(frozen=True)
class DreamerV3Spec:
    """Sizes and forms of all networks; defaults are those of the 2023 version (arXiv 2301.04104v1, Table B.1).

    :param deter: GRU units D
    :param stoch: categorical latents S
    :param classes: classes of each latent K
    :param cnn_depth: channels of the first convolution
    :param units: width of every dense layer
    :param layers: dense layers of encoder, decoder, heads, actor and critic
    :param act: activation
    :param unimix: share of the uniform distribution in latents and discrete actors
    :param symlog_inputs: squash vector inputs with symlog
    :param bins: two-hot bins of the reward and value heads
    :param mlp_units: widths of the dense stacks, one by one, instead of ``layers`` times ``units`` (SB3's ``net_arch``)
    """

    deter: int = 512
    stoch: int = 32
    classes: int = 32
    cnn_depth: int = 32
    units: int = 512
    layers: int = 2
    act: str = "silu"
    unimix: float = 0.01
    symlog_inputs: bool = True
    bins: int = 255
    mlp_units: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("deter", "stoch", "classes", "cnn_depth", "units", "layers", "bins"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a positive integer")
        if not 0.0 <= self.unimix < 1.0:
            raise ValueError(f"unimix={self.unimix!r} must be at least 0 and less than 1")

    @property
    def mlp(self) -> tuple[int, ...]:
        """Widths of the dense stacks."""
        return self.mlp_units if self.mlp_units is not None else (self.units,) * self.layers


SIZES: dict[str, DreamerV3Spec] = {
    "debug": DreamerV3Spec(deter=16, cnn_depth=2, units=16, layers=1, stoch=4, classes=4),
    "XXS": DreamerV3Spec(deter=128, cnn_depth=8, units=128, layers=1, stoch=16, classes=16),
    "XS": DreamerV3Spec(deter=256, cnn_depth=24, units=256, layers=1),
    "S": DreamerV3Spec(deter=512, cnn_depth=32, units=512, layers=2),
    "M": DreamerV3Spec(deter=1024, cnn_depth=48, units=640, layers=3),
    "L": DreamerV3Spec(deter=2048, cnn_depth=64, units=768, layers=4),
    "XL": DreamerV3Spec(deter=4096, cnn_depth=96, units=1024, layers=5),
}


def resolve_size(model_size: str, keys: tuple[ObsKey, ...]) -> str:
    """The name of a size; ``auto`` is S as soon as there is an image, else XXS.

    :raises ValueError: for an unknown size, with the nearest known one
    """
    if model_size == "auto":
        return "S" if any(key.kind == "image" for key in keys) else "XXS"
    if model_size not in SIZES:
        raise ValueError(f"model_size={model_size!r} is unknown{near(model_size, SIZES)}: use auto, {', '.join(SIZES)}")
    return model_size


def resolve_spec(model_size: str, keys: tuple[ObsKey, ...], overrides: dict[str, Any]) -> DreamerV3Spec:
    """The spec of a named size with some fields replaced.

    :param model_size: a name in ``SIZES``, or ``auto`` (see :func:`resolve_size`)
    :param keys: observation keys
    :param overrides: fields of the spec, or ``net_arch`` (list of widths) for all dense stacks
    :raises ValueError: for an unknown size or field, with the nearest known one
    """
    size = resolve_size(model_size, keys)
    overrides = dict(overrides)
    if "net_arch" in overrides:
        overrides["mlp_units"] = net_arch_widths(overrides.pop("net_arch"))
    names = [field.name for field in dataclasses.fields(DreamerV3Spec)]
    for name in overrides:
        if name not in names:
            raise ValueError(
                f"policy_kwargs has {name!r}, which is unknown{near(name, names)}: use net_arch or {', '.join(names)}"
            )
    return replace(SIZES[size], **overrides)


def net_arch_widths(net_arch: Any) -> tuple[int, ...]:
    """SB3's ``net_arch`` as the widths of our dense stacks.

    :raises ValueError: for anything but a list of positive integers, or a dict of such lists (its first is taken)
    """
    widths = next(iter(net_arch.values())) if isinstance(net_arch, dict) and net_arch else net_arch
    if not isinstance(widths, list | tuple) or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"net_arch={net_arch!r} must be a list of layer widths, for example [256, 256]")
    return tuple(widths)


def near(name: str, known: Any) -> str:
    """`` (did you mean 'x'?)`` or nothing."""
    matches = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
