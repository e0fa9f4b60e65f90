"""SB3's policy names for DreamerV2."""

from typing import Any

from sb3_dreamer.common.policy import Networks, WorldModelPolicy
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.dreamer_v2.networks import DiscountHead, build_behavior, build_world_model
from sb3_dreamer.dreamer_v2.spec import DreamerV2Spec, resolve_size, resolve_spec


class MlpPolicy(WorldModelPolicy):
    """For vector and discrete observations."""

    spec: DreamerV2Spec

    def build_networks(
        self, keys: tuple[ObsKey, ...], actions: ActionLayout, model_size: str, overrides: dict[str, Any]
    ) -> Networks:
        """See :class:`WorldModelPolicy`."""
        self.size_name = resolve_size(model_size, keys)
        self.spec = resolve_spec(model_size, keys, overrides)
        world_model = build_world_model(self.spec, keys, actions)
        return Networks(world_model, build_behavior(self.spec, world_model.rssm.feat_size, actions))

    def set_gamma(self, gamma: float) -> None:
        """See :class:`WorldModelPolicy`; the discount head learns it."""
        super().set_gamma(gamma)
        if isinstance(self.world_model.cont_head, DiscountHead):
            self.world_model.cont_head.gamma = gamma


class CnnPolicy(MlpPolicy):
    """For one image: uint8, 3 axes, 0 to 255, channels first or last, 16 to 512 pixels a side."""

    requires = "image"


class MultiInputPolicy(MlpPolicy):
    """For Dict observations: a CNN for the images of each size, an MLP for all the rest."""

    requires = "dict"
