"""SB3's policy names for PlaNet."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_dreamer.common.policy import Networks, WorldModelPolicy
from sb3_dreamer.core.planner import CEMPlanner
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.planet.networks import build_world_model
from sb3_dreamer.planet.spec import resolve_size, resolve_spec


class MlpPolicy(WorldModelPolicy):
    """For vector and discrete observations.

    :param planner: arguments of :class:`CEMPlanner`, which :class:`PlaNet` sets

    The others as :class:`WorldModelPolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        *,
        planner: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.set_planner(planner or {})

    def set_planner(self, settings: dict[str, Any]) -> None:
        """Plan with other numbers.

        :param settings: arguments of :class:`CEMPlanner`
        """
        self.planner_settings = dict(settings)
        self.behavior = CEMPlanner(self.codec.layout, **settings)

    def build_networks(
        self, keys: tuple[ObsKey, ...], actions: ActionLayout, model_size: str, overrides: dict[str, Any]
    ) -> Networks:
        """See :class:`WorldModelPolicy`."""
        self.size_name = resolve_size(model_size, keys)
        spec = resolve_spec(model_size, keys, overrides)
        return Networks(build_world_model(spec, keys, actions), CEMPlanner(actions))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"planner": self.planner_settings}


class CnnPolicy(MlpPolicy):
    """For one image: uint8, 3 axes, 0 to 255, channels first or last, 16 to 512 pixels a side."""

    requires = "image"


class MultiInputPolicy(MlpPolicy):
    """For Dict observations: a CNN for the images of each size, an MLP for all the rest."""

    requires = "dict"
