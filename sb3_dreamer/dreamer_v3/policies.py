"""SB3's policy names for DreamerV3."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch as th

from sb3_dreamer.common.policy import Networks, WorldModelPolicy
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.dreamer_v3.networks import build_explorer, build_networks
from sb3_dreamer.dreamer_v3.spec import SIZES, WIDTHS, DreamerV3Spec, resolve_size, resolve_spec


@dataclass(frozen=True)
class DiscountedContinue:
    """Target of the continue head with the discount inside: ``(1 - is_terminal) γ`` (2024).

    :param gamma: discount of a step
    """

    gamma: float

    def __call__(self, is_terminal: th.Tensor) -> th.Tensor:
        """``(B, T)`` to ``(B, T)``."""
        return (1.0 - is_terminal.float()) * self.gamma


class MlpPolicy(WorldModelPolicy):
    """For vector and discrete observations."""

    spec: DreamerV3Spec

    @classmethod
    def former_defaults(
        cls, overrides: Mapping[str, Any], model_size: Any, weights: Mapping[str, th.Tensor]
    ) -> dict[str, Any]:
        """See :class:`WorldModelPolicy`.

        Files that say ``auto`` were written when it meant S or XXS; newer files name the size. Up to 0.1, sizes XS to
        XL had stacks for vectors as wide as all others.
        """
        former = {}
        if model_size == "auto":
            has_image = any(name.startswith("world_model.encoder.cnns.") for name in weights)
            former["model_size"] = model_size = "S" if has_image else "XXS"
        if WIDTHS & overrides.keys() or "codec_units" in overrides:
            return former
        released = SIZES[model_size].codec_units if model_size in SIZES else None
        codec, head = (stack_widths(weights, f"world_model.{part}.mlp") for part in ("encoder", "reward_head"))
        return former | ({"codec_units": None} if released and codec and codec == head != released else {})

    def build_networks(
        self, keys: tuple[ObsKey, ...], actions: ActionLayout, model_size: str, overrides: dict[str, Any]
    ) -> Networks:
        """See :class:`WorldModelPolicy`."""
        self.size_name = resolve_size(model_size, keys)
        self.spec = resolve_spec(model_size, keys, overrides)
        networks = build_networks(self.spec, keys, actions)
        #: collects by its own reward; None without ``exploration``
        self.explorer = build_explorer(self.spec, networks.world_model, actions) if self.spec.exploration else None
        return networks

    def set_gamma(self, gamma: float) -> None:
        """See :class:`WorldModelPolicy`; the head of the 2024 version learns it."""
        super().set_gamma(gamma)
        if self.spec.family == "2024":
            self.world_model.cont_target = DiscountedContinue(gamma)


class CnnPolicy(MlpPolicy):
    """For one image: uint8, 3 axes, 0 to 255, channels first or last, 16 to 512 pixels a side."""

    requires = "image"


class MultiInputPolicy(MlpPolicy):
    """For Dict observations: a CNN for the images of each size, an MLP for all the rest."""

    requires = "dict"


def stack_widths(weights: Mapping[str, th.Tensor], stack: str) -> tuple[int, ...]:
    """Widths of the dense layers of a stack.

    :param weights: state of a policy
    :param stack: name of an ``MLP`` in it
    """
    widths: list[int] = []
    while (weight := weights.get(f"{stack}.linears.{len(widths)}.weight")) is not None:
        widths.append(len(weight))
    return tuple(widths)
