"""The MineRL environment specification behind the Minecraft suite."""

from __future__ import annotations

from typing import Any

from sb3_dreamer.wrappers.benchmarks.errors import require

INSTALL = (
    "pip install minerl==0.4.4 with Java 8 (openjdk-8-jdk) and, on a machine without a display, xvfb. Block breaking "
    "at another speed needs a MineRL build that knows the BreakSpeedMultiplier handler; break_speed=1 needs none."
)
KEYS = ("forward", "back", "left", "right", "jump", "sneak", "attack")


def make_minerl(size: tuple[int, int], break_speed: float) -> Any:
    """Return MineRL's own environment: default world, no mission, no rewards, the observations and actions we use.

    :param size: (height, width) of the picture
    :param break_speed: block breaking speed; 1 leaves the game as it is
    :raises SuiteNotInstalledError: without ``minerl``
    """
    env_spec = require("minerl.herobraine.env_spec", "minecraft", INSTALL)
    hero = "minerl.herobraine.hero"
    handlers = require(f"{hero}.handlers", "minecraft", INSTALL)
    handler = require(f"{hero}.handler", "minecraft", INSTALL)
    mc = require(f"{hero}.mc", "minecraft", INSTALL)
    items = ["none", *mc.ALL_ITEMS]

    class BreakSpeed(handler.Handler):  # type: ignore[name-defined]
        """Asks the game for another block breaking speed."""

        def to_string(self) -> str:
            return f"break_speed({break_speed})"

        def xml_template(self) -> str:
            return f"<BreakSpeedMultiplier>{break_speed}</BreakSpeedMultiplier>"

    class Spec(env_spec.EnvSpec):  # type: ignore[name-defined]
        """Survival in a default world."""

        def __init__(self) -> None:
            super().__init__(name="Sb3DreamerMinecraft-v0")

        def create_agent_start(self) -> list[Any]:
            return [] if break_speed == 1 else [BreakSpeed()]

        def create_server_world_generators(self) -> list[Any]:
            return [handlers.DefaultWorldGenerator(force_reset=True)]

        def create_server_quit_producers(self) -> list[Any]:
            return [handlers.ServerQuitWhenAnyAgentFinishes()]

        def create_server_initial_conditions(self) -> list[Any]:
            time = handlers.TimeInitialCondition(allow_passage_of_time=True, start_time=0)
            return [time, handlers.SpawningInitialCondition(allow_spawning=True)]

        def create_observables(self) -> list[Any]:
            return [
                handlers.POVObservation(size[::-1]),  # MineRL names width first
                handlers.FlatInventoryObservation(mc.ALL_ITEMS),
                handlers.EquippedItemObservation(mc.ALL_ITEMS, _default="air", _other="other"),
                handlers.ObservationFromCurrentLocation(),
                handlers.ObservationFromLifeStats(),
            ]

        def create_actionables(self) -> list[Any]:
            named = ("PlaceBlock", "EquipAction", "CraftAction", "CraftNearbyAction", "SmeltItemNearby")
            keys = [handlers.KeybasedCommandAction(key, mc.INVERSE_KEYMAP[key]) for key in KEYS]
            chosen = [getattr(handlers, name)(items, _other="none", _default="none") for name in named]
            return [*keys, handlers.CameraAction(), *chosen]

        def is_from_folder(self, folder: str) -> bool:
            return folder == "none"

        def get_docstring(self) -> str:
            return "Survival in a default world, without mission and rewards."

        def determine_success_from_rewards(self, rewards: list[float]) -> bool:
            return True

        def _nothing(self) -> list[Any]:
            return []

        create_agent_handlers = create_rewardables = create_monitors = _nothing
        create_server_decorators = create_mission_handlers = _nothing

    return Spec().make()
