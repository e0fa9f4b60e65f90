"""SB3's policy names for DreamerV3."""

from typing import Any

from sb3_dreamer.common.policy import Networks, WorldModelPolicy
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.dreamer_v3.networks import build_explorer, build_networks
from sb3_dreamer.dreamer_v3.spec import DreamerV3Spec, resolve_size, resolve_spec


class MlpPolicy(WorldModelPolicy):
    """For vector and discrete observations."""

    spec: DreamerV3Spec

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


class CnnPolicy(MlpPolicy):
    """For one image: uint8, 3 axes, 0 to 255, channels first or last, 16 to 512 pixels a side."""

    requires = "image"


class MultiInputPolicy(MlpPolicy):
    """For Dict observations: a CNN for the images of each size, an MLP for all the rest."""

    requires = "dict"
