"""Minecraft tasks (diamond, wood, climb) through MineRL, with the papers' flat action set and milestone rewards."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.wrappers.benchmarks.errors import require
from sb3_dreamer.wrappers.benchmarks.presets import Settings
from sb3_dreamer.wrappers.frame_limit import FrameLimit

INSTALL = (
    "pip install minerl==0.4.4 with Java 8 (openjdk-8-jdk) and, on a machine without a display, xvfb. Block breaking "
    "at another speed needs a MineRL build that knows the BreakSpeedMultiplier handler; break_speed=1 needs none."
)
KEYS = ("forward", "back", "left", "right", "jump", "sneak", "attack")
NOOP: dict[str, Any] = {
    **dict.fromkeys((*KEYS, "sprint"), 0),
    **dict.fromkeys(("craft", "nearbyCraft", "nearbySmelt", "place", "equip"), "none"),
    "camera": (0.0, 0.0),
}
_TOOLS = ("wooden_pickaxe", "stone_pickaxe", "iron_pickaxe")
# 12 and 25 actions (DreamerV3, arXiv 2301.04104v1, appendix on Minecraft; danijar/dreamerv3, envs/minecraft*.py).
MOVES: dict[str, dict[str, Any]] = {
    "noop": {},
    "attack": {"attack": 1},
    "turn_up": {"camera": (-15.0, 0.0)},
    "turn_down": {"camera": (15.0, 0.0)},
    "turn_left": {"camera": (0.0, -15.0)},
    "turn_right": {"camera": (0.0, 15.0)},
    **{key: {key: 1} for key in ("forward", "back", "left", "right")},
    "jump": {"jump": 1, "forward": 1},
    "place_dirt": {"place": "dirt"},
}
CRAFTS: dict[str, dict[str, Any]] = {
    **{f"craft_{item}": {"craft": item} for item in ("planks", "stick", "crafting_table")},
    "place_crafting_table": {"place": "crafting_table"},
    **{f"craft_{item}": {"nearbyCraft": item} for item in _TOOLS},
    **{f"equip_{item}": {"equip": item} for item in ("stone_pickaxe", "wooden_pickaxe", "iron_pickaxe")},
    "craft_furnace": {"nearbyCraft": "furnace"},
    "place_furnace": {"place": "furnace"},
    "smelt_iron_ingot": {"nearbySmelt": "iron_ingot"},
}
MILESTONES = [
    "log",
    "planks",
    "stick",
    "crafting_table",
    "wooden_pickaxe",
    "cobblestone",
    "stone_pickaxe",
    "iron_ore",
    "furnace",
    "iron_ingot",
    "iron_pickaxe",
    "diamond",
]
TASKS = ("diamond", "wood", "climb")


class MinecraftEnv(gym.Env, gym.utils.EzPickle):
    """One Minecraft task with a ``Dict`` observation and a discrete action set.

    Rewards: ``diamond`` is 1 for the first of each of the 12 milestone items in an episode, ``wood`` 1 per collected
    log, ``climb`` the height gained; each plus 0.01 times the change in health (0 to 1). Death terminates. When MineRL
    reports an error the episode is truncated with the error in ``info`` (the released code restarts the world silently
    in mid-episode).

    :param task: ``"diamond"``, ``"wood"`` or ``"climb"``
    :param size: (height, width) of the image
    :param break_speed: block breaking speed; at 1 an attack is held for 30 steps instead
    :param sticky_jump: steps for which a jump is held
    :param pitch_limit: lowest and highest camera pitch in degrees
    :raises ValueError: for an unknown task
    :raises SuiteNotInstalledError: without ``minerl``
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (gymnasium declares it as a plain dict)

    def __init__(
        self,
        task: str = "diamond",
        size: tuple[int, int] = (64, 64),
        break_speed: float = 100.0,
        sticky_jump: int = 10,
        pitch_limit: tuple[float, float] = (-60.0, 60.0),
        render_mode: str | None = None,
    ):
        gym.utils.EzPickle.__init__(self, task, size, break_speed, sticky_jump, pitch_limit, render_mode)
        if task not in TASKS:
            raise ValueError(f"Minecraft has no task {task!r}; write one of {', '.join(TASKS)}.")
        self._env = make_minerl(size, break_speed)
        self.task, self.size, self.render_mode = task, size, render_mode
        actions = {**MOVES, **CRAFTS} if task == "diamond" else MOVES
        self.action_names = list(actions)
        self._actions = [{**NOOP, **action} for action in actions.values()]
        self._hold = {"attack": 30 if break_speed == 1 else 0, "jump": sticky_jump}
        self._pitch_limit = pitch_limit
        inventory = self._env.observation_space["inventory"]
        names = list(getattr(inventory, "spaces", inventory))
        self.items = [name for name in names if name != "log2"]  # acacia and dark oak count as logs
        self._merge_logs = "log2" in names
        self._equip = [str(name) for name in self._env.observation_space["equipped_items"]["mainhand"]["type"].values]
        self.action_space = spaces.Discrete(len(self._actions))
        count = spaces.Box(0, np.inf, (len(self.items),), np.float32)
        unit = spaces.Box(0, np.inf, (1,), np.float32)
        self.observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (*size, 3), np.uint8),
            inventory=count,
            inventory_max=count,
            equipped=spaces.Box(0, 1, (len(self._equip),), np.float32),
            health=unit,
            hunger=unit,
            breath=unit,
        )
        self._start()

    def _start(self) -> None:
        """Forget the episode."""
        self._held = {"attack": 0, "jump": 0}
        self._pitch = 0.0
        self._most = np.zeros(len(self.items), np.float32)
        self._before: dict[str, Any] = {}
        self._image = np.zeros((*self.size, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Make a new world; a seed is passed to MineRL."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.seed(seed)
        raw = self._env.reset()
        self._start()
        self._before = self._values(raw)
        return self._observe(raw), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the game (MineRL speaks the old gym interface) and compute the task's reward."""
        raw, _, done, raw_info = self._env.step(self._control(dict(self._actions[int(action)])))
        reward = self._reward(self._values(raw))
        obs = self._observe(raw)
        items = dict(zip(self.items, obs["inventory"].tolist(), strict=True))
        failed = bool(raw_info.get("error"))
        info = {"inventory": {name: items[name] for name in MILESTONES if items.get(name)}}
        if failed:
            info["error"] = raw_info["error"]
        return obs, reward, bool(done) and not failed, failed, info

    def _control(self, action: dict[str, Any]) -> dict[str, Any]:
        """Hold attacks and jumps and keep the camera within its limits."""
        for key, others in (("attack", {"jump": 0}), ("jump", {"forward": 1})):
            if action[key] and self._hold[key]:
                self._held[key] = self._hold[key]
            if self._held[key]:
                action.update({key: 1, **others})
                self._held[key] -= 1
        turn, side = action["camera"]
        if turn and not self._pitch_limit[0] <= self._pitch + turn <= self._pitch_limit[1]:
            turn = 0.0
        self._pitch += turn
        return {**action, "camera": np.array([turn, side], np.float32)}

    def _inventory(self, raw: dict[str, Any]) -> np.ndarray:
        counts = {name: float(raw["inventory"][name]) for name in self.items}
        if self._merge_logs:
            counts["log"] += float(raw["inventory"]["log2"])
        return np.array(list(counts.values()), np.float32)

    def _values(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return what the rewards are computed from."""
        height = float(raw["location_stats"]["ypos"]) if self.task == "climb" else 0.0
        items = dict(zip(self.items, self._inventory(raw).tolist(), strict=True))
        return {"items": items, "health": float(raw["life_stats"]["life"]) / 20, "height": height}

    def _reward(self, now: dict[str, Any]) -> float:
        reward = 0.01 * (now["health"] - self._before["health"])
        if self.task == "climb":
            reward += now["height"] - self._before["height"]
        elif self.task == "wood":
            reward += max(0.0, now["items"]["log"] - self._before["items"]["log"])
        else:
            most = dict(zip(self.items, self._most.tolist(), strict=True))
            reward += sum(1.0 for name in MILESTONES if now["items"][name] > 0 and most[name] == 0)
        self._before = now
        return float(reward)

    def _observe(self, raw: dict[str, Any]) -> dict[str, np.ndarray]:
        inventory = self._inventory(raw)
        self._most = np.maximum(self._most, inventory)
        self._image = np.asarray(raw["pov"], np.uint8)
        equipped = np.zeros(len(self._equip), np.float32)
        equipped[self._equip.index(str(raw["equipped_items"]["mainhand"]["type"]))] = 1.0
        life = raw["life_stats"]
        scalars = {"health": life["life"] / 20, "hunger": life["food"] / 20, "breath": life["air"] / 300}
        return {
            "image": self._image,
            "inventory": inventory,
            "inventory_max": self._most.copy(),
            "equipped": equipped,
            **{name: np.array([value], np.float32) for name, value in scalars.items()},
        }

    def render(self) -> np.ndarray | None:
        """Return the last image."""
        return self._image if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the game."""
        self._env.close()


def make_minerl(size: tuple[int, int], break_speed: float) -> Any:
    """Return MineRL's own environment: default world, no mission, no rewards, the observations and actions we use.

    :param size: (height, width) of the image
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


def make_minecraft(task: str, settings: Settings, render_mode: str | None = None) -> gym.Env:
    """Make one task with its time limit.

    :param task: ``"diamond"``, ``"wood"`` or ``"climb"``
    :param settings: the preset's settings
    :param render_mode: None or ``"rgb_array"``
    """
    speed = 100.0 if settings.break_speed is None else settings.break_speed
    env: gym.Env = MinecraftEnv(task, settings.size or (64, 64), speed, render_mode=render_mode)
    return env if settings.time_limit is None else FrameLimit(env, settings.time_limit)
