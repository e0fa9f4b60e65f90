"""DMLab, Minecraft and bsuite adapters against fake modules with those packages' documented interfaces."""

import sys
import types

import numpy as np
import pytest
from gymnasium import spaces

from sb3_dreamer.wrappers import make_env
from sb3_dreamer.wrappers.benchmarks.bsuite import seed_random_states


class FakeLab:
    """deepmind_lab.Lab as in docs/users/python_api.md of its repository."""

    made: list["FakeLab"] = []
    NAMES = (
        "LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", "LOOK_DOWN_UP_PIXELS_PER_FRAME", "STRAFE_LEFT_RIGHT", "MOVE_BACK_FORWARD",
        "FIRE", "JUMP", "CROUCH",
    )  # fmt: skip

    def __init__(self, level, observations, config=None, renderer="software", level_cache=None, temp_folder=""):
        self.level, self.names, self.config = level, observations, config
        assert all(isinstance(value, str) for value in config.values())
        self.frames, self.actions, self.seeds, self.closed = None, [], [], False
        FakeLab.made.append(self)

    def action_spec(self):
        return [{"name": name, "min": -512, "max": 512} for name in self.NAMES]

    def reset(self, episode=-1, seed=None):
        self.frames = 0
        self.seeds.append(seed)

    def is_running(self):
        return self.frames is not None and self.frames < 10

    def num_steps(self):
        return self.frames

    def step(self, action, num_steps=1):
        assert self.is_running(), "step called on an environment that is not running"
        assert action.dtype == np.intc and action.shape == (7,)
        self.actions.append(action.tolist())
        taken = min(num_steps, 10 - self.frames)
        self.frames += taken
        return float(taken)

    def observations(self):
        assert self.is_running(), "no observations after the end"
        height, width = int(self.config["height"]), int(self.config["width"])
        image = np.full((height, width, 3), self.frames, np.uint8)
        return {"RGB_INTERLEAVED": image, **({"INSTR": "pick up the RED ball!"} if "INSTR" in self.names else {})}

    def close(self):
        self.closed = True


@pytest.fixture
def lab(monkeypatch):
    module = types.ModuleType("deepmind_lab")
    module.Lab = FakeLab
    FakeLab.made.clear()
    monkeypatch.setitem(sys.modules, "deepmind_lab", module)


def test_dmlab(lab):
    env = make_env("dmlab:goals", render_mode="rgb_array")
    fake = FakeLab.made[0]
    assert fake.level == "contributed/dmlab30/explore_goal_locations_small"
    assert fake.config == {"height": "64", "width": "64", "logLevel": "WARN"}
    assert env.action_space == spaces.Discrete(9)
    obs, _ = env.reset(seed=1)
    assert obs in env.observation_space
    steps = [env.step(action) for action in (0, 7, 8)]
    assert fake.actions == [[0, 0, 0, 1, 0, 0, 0], [20, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]]
    assert [step[1] for step in steps] == [4.0, 4.0, 2.0] and [step[0].max() for step in steps] == [4, 8, 8]
    assert [step[2:4] for step in steps] == [
        (False, False),
        (False, False),
        (True, False),
    ]  # the papers' code: terminal
    assert steps[-1][4]["discount"] == 0.0 and env.render().max() == 8
    env.reset(seed=1)
    env.reset()
    assert fake.seeds[0] == fake.seeds[1] != fake.seeds[2]
    env.close()
    assert fake.closed


def test_dmlab_actions_of_2024_and_truncation(lab):
    env = make_env("dmlab:rooms_watermaze", preset="dreamerv3-2024", timeout_terminates=False)
    assert env.action_space.n == 15
    env.reset(seed=0)
    for action in range(3):
        last = env.step(action + 8)
    assert FakeLab.made[0].actions == [[0, 10, 0, 0, 0, 0, 0], [0, -10, 0, 0, 0, 0, 0], [-10, 0, 0, 1, 0, 0, 0]]
    assert last[2:4] == (False, True) and last[4]["discount"] == 1.0


def test_dmlab_language(lab):
    env = make_env("dmlab:language_execute_random_task")
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space and obs["instr"].shape == (1024,)
    words = obs["instr"].reshape(32, 32)
    assert len({word.tobytes() for word in words}) == 7  # six words (the mark counts as one), then the empty word
    assert np.array_equal(words[6], words[31]) and not np.array_equal(words[0], words[1])


ITEMS = ["air", "log", "log2", "planks", "stick", "crafting_table", "wooden_pickaxe", "cobblestone", "stone_pickaxe",
         "iron_ore", "furnace", "iron_ingot", "iron_pickaxe", "diamond", "dirt"]  # fmt: skip


class FakeMineRL:
    """The environment that EnvSpec.make() returns: old gym interface, nested dict observations and actions."""

    def __init__(self, spec):
        self.spec, self.actions, self.seeds, self.closed = spec, [], [], False
        types_ = types.SimpleNamespace(values=np.array(["none", "air", "wooden_pickaxe", "other"]))
        self.observation_space = {"inventory": dict.fromkeys(ITEMS), "equipped_items": {"mainhand": {"type": types_}}}
        self.script = []

    def seed(self, seed):
        self.seeds.append(seed)

    def _obs(self, **changes):
        inventory = {**dict.fromkeys(ITEMS, 0), **changes.get("items", {})}
        return {
            "pov": np.full((64, 64, 3), len(self.actions), np.uint8),
            "inventory": {name: np.array(count) for name, count in inventory.items()},
            "equipped_items": {"mainhand": {"type": changes.get("hand", "air")}},
            "life_stats": {"life": np.array(changes.get("life", 20.0)), "food": np.array(20), "air": np.array(300)},
            "location_stats": {"ypos": np.array(changes.get("height", 64.0))},
        }

    def reset(self):
        return self._obs()

    def step(self, action):
        self.actions.append(action)
        changes = self.script[len(self.actions) - 1] if len(self.actions) <= len(self.script) else {}
        info = {"error": changes["error"]} if "error" in changes else {}
        return self._obs(**changes), 0.0, changes.get("done", False), info

    def close(self):
        self.closed = True


@pytest.fixture
def minerl(monkeypatch):
    """Fake minerl.herobraine with the classes that a custom EnvSpec is built from."""

    class Handler:
        def __init__(self, *args, **kwargs):
            self.args, self.kwargs = args, kwargs

    class EnvSpec:
        ABSTRACT = (
            "create_agent_start", "create_agent_handlers", "create_server_world_generators",
            "create_server_quit_producers", "create_server_initial_conditions", "create_observables",
            "create_actionables", "create_rewardables", "create_monitors", "create_server_decorators",
            "create_mission_handlers", "get_docstring",
        )  # fmt: skip
        last = None

        def __init__(self, name, max_episode_steps=None, **kwargs):
            self.name = name
            self.parts = {part: getattr(self, part)() for part in self.ABSTRACT}
            assert self.is_from_folder("none") and self.determine_success_from_rewards([])
            EnvSpec.last = self

        def make(self):
            self.env = FakeMineRL(self)
            return self.env

    names = ("DefaultWorldGenerator", "ServerQuitWhenAnyAgentFinishes", "TimeInitialCondition",
             "SpawningInitialCondition", "POVObservation", "FlatInventoryObservation", "EquippedItemObservation",
             "ObservationFromCurrentLocation", "ObservationFromLifeStats", "KeybasedCommandAction", "CameraAction",
             "PlaceBlock", "EquipAction", "CraftAction", "CraftNearbyAction", "SmeltItemNearby")  # fmt: skip
    contents = {
        "minerl": {},
        "minerl.herobraine": {},
        "minerl.herobraine.env_spec": {"EnvSpec": EnvSpec},
        "minerl.herobraine.hero": {},
        "minerl.herobraine.hero.handler": {"Handler": Handler},
        "minerl.herobraine.hero.handlers": {name: type(name, (Handler,), {}) for name in names},
        "minerl.herobraine.hero.mc": {"ALL_ITEMS": ITEMS, "INVERSE_KEYMAP": {k: k for k in "forward back left right jump sneak attack".split()}},  # noqa: E501, SIM905
    }  # fmt: skip
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return EnvSpec


def test_minecraft_specification(minerl):
    env = make_env("minecraft:diamond", size=(64, 96))
    parts = minerl.last.parts
    assert [type(part).__name__ for part in parts["create_observables"]][:2] == [
        "POVObservation",
        "FlatInventoryObservation",
    ]
    assert parts["create_observables"][0].args == ((96, 64),)
    assert len(parts["create_actionables"]) == 7 + 1 + 5 and parts["create_actionables"][-1].args[0][0] == "none"
    assert parts["create_agent_start"][0].xml_template() == "<BreakSpeedMultiplier>100.0</BreakSpeedMultiplier>"
    assert parts["create_rewardables"] == []
    assert env.action_space.n == 25 and env.observation_space["inventory"].shape == (14,)  # both logs are one item
    assert make_env("minecraft:wood", break_speed=1.0).action_space.n == 12
    assert minerl.last.parts["create_agent_start"] == []


def test_minecraft_diamond_rewards_milestones_once(minerl):
    env = make_env("minecraft:diamond")
    fake = minerl.last.env
    fake.script = [
        {"items": {"log2": 1}},
        {"items": {"log": 1, "planks": 4}, "life": 10.0},
        {"items": {"planks": 3}, "life": 10.0},
        {"items": {"log": 2, "planks": 3}, "life": 20.0, "hand": "wooden_pickaxe"},
        {"items": {}, "life": 0.0, "done": True},
    ]
    obs, _ = env.reset(seed=9)
    assert fake.seeds == [9] and obs in env.observation_space
    steps = [env.step(0) for _ in range(5)]
    assert [round(step[1], 6) for step in steps] == [1.0, 1.0 - 0.005, 0.0, 0.005, -0.01]
    assert [step[2] for step in steps] == [False] * 4 + [True]
    assert all(step[0] in env.observation_space for step in steps)
    names = env.unwrapped.items
    assert (
        steps[3][0]["inventory"][names.index("log")] == 2 and steps[4][0]["inventory_max"][names.index("planks")] == 4
    )
    assert steps[3][0]["equipped"].tolist() == [0, 0, 1, 0] and steps[1][0]["health"].tolist() == [0.5]
    assert steps[1][4]["inventory"] == {"log": 1.0, "planks": 4.0}
    env.reset()
    fake.actions.clear()
    assert env.step(0)[1] == pytest.approx(1.0)  # the first log of the new episode counts again


def test_minecraft_wood_and_climb(minerl):
    env = make_env("minecraft:wood")
    minerl.last.env.script = [{"items": {"log": 2}}, {"items": {"log": 1}}, {"items": {"log": 1, "log2": 1}}]
    env.reset()
    assert [env.step(0)[1] for _ in range(3)] == [2.0, 0.0, 1.0]
    env = make_env("minecraft:climb")
    minerl.last.env.script = [{"height": 66.5}, {"height": 66.0}]
    env.reset()
    assert [env.step(0)[1] for _ in range(2)] == [2.5, -0.5]


def test_minecraft_controls(minerl):
    env = make_env("minecraft:diamond")
    fake, names = minerl.last.env, env.unwrapped.action_names
    env.reset()
    for name in ["jump", *["noop"] * 10, "attack", "noop", "craft_planks", *["turn_down"] * 5]:
        env.step(names.index(name))
    taken = fake.actions
    assert [action["jump"] for action in taken[:11]] == [1] * 10 + [0]  # a jump is held for ten steps
    assert all(action["forward"] == action["jump"] for action in taken[:11])
    assert taken[11]["attack"] == 1 and taken[12]["attack"] == 0  # fast breaking: an attack is not held
    assert taken[13]["craft"] == "planks" and taken[13]["nearbyCraft"] == "none"
    assert [float(action["camera"][0]) for action in taken[14:]] == [15, 15, 15, 15, 0]  # the pitch stops at 60 degrees
    slow = make_env("minecraft:wood", break_speed=1.0)
    slow.reset()
    for name in ["attack", *["noop"] * 30]:
        slow.step(slow.unwrapped.action_names.index(name))
    assert [action["attack"] for action in minerl.last.env.actions] == [1] * 30 + [0]


def test_minecraft_errors_and_limit_truncate(minerl):
    env = make_env("minecraft:diamond", time_limit=2)
    minerl.last.env.script = [{}, {}, {}, {"error": "socket lost", "done": True}]
    env.reset()
    assert [env.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]
    env.reset()
    env.step(0)
    _, _, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, info["error"]) == (False, True, "socket lost")
    with pytest.raises(ValueError, match="diamond"):
        make_env("minecraft:gold")


@pytest.fixture
def fake_bsuite(monkeypatch):
    class Step(types.SimpleNamespace):
        def last(self):
            return self.kind == "last"

    class Experiment:
        bsuite_num_episodes = 1000

        def __init__(self):
            self._rng, self.t = np.random.RandomState(), 0

        def observation_spec(self):
            return types.SimpleNamespace(shape=(1, 2))

        def action_spec(self):
            return types.SimpleNamespace(num_values=3)

        def _now(self, kind, reward, discount):
            return Step(observation=self._rng.uniform(size=(1, 2)), reward=reward, discount=discount, kind=kind)

        def reset(self):
            self.t = 0
            return self._now("first", None, None)

        def step(self, action):
            self.t += 1
            return self._now("last", 1, 0.0) if self.t == 3 else self._now("mid", action, 1.0)

    class Noise:  # bsuite's wrappers hold the experiment and a random state of their own
        bsuite_num_episodes = 1000

        def __init__(self):
            self._env, self._rng = Experiment(), np.random.RandomState()

        def __getattr__(self, name):
            return getattr(self.__dict__["_env"], name)

        def step(self, action):
            timestep = self._env.step(action)
            timestep.reward += self._rng.normal()
            return timestep

    sweep = types.ModuleType("bsuite.sweep")
    sweep.SWEEP = ("cartpole/0", "cartpole/1", "cartpole_noise/0")
    module = types.ModuleType("bsuite")
    module.load_from_id = lambda name: Noise() if "noise" in name else Experiment()
    monkeypatch.setitem(sys.modules, "bsuite", module)
    monkeypatch.setitem(sys.modules, "bsuite.sweep", sweep)


@pytest.mark.parametrize("task", ["cartpole/0", "cartpole", "cartpole_noise/0"])
def test_bsuite(fake_bsuite, task):
    env = make_env(f"bsuite:{task}")
    assert env.observation_space.shape == (2,) and env.action_space.n == 3 and env.unwrapped.num_episodes == 1000

    def play():
        obs, _ = env.reset(seed=4)
        return [obs.tolist()] + [(o.tolist(), r, te, tr) for o, r, te, tr, _ in (env.step(a) for a in (0, 2, 1))]

    first = play()
    assert first == play() and [step[2:] for step in first[1:]] == [(False, False), (False, False), (True, False)]
    if "noise" not in task:
        assert [step[1] for step in first[1:]] == [0.0, 2.0, 1.0]


def test_bsuite_errors(fake_bsuite):
    with pytest.raises(ValueError, match="cartpole/1"):
        make_env("bsuite:cartpole/9")
    with pytest.raises(ValueError, match="render_mode"):
        make_env("bsuite:cartpole/0", render_mode="rgb_array")


def test_seeding_finds_nested_random_states():
    inner = types.SimpleNamespace(step=None, _rng=np.random.RandomState(), itself=None)
    inner.itself = inner
    outer = types.SimpleNamespace(env=inner, _rng=np.random.RandomState(), other=3)
    assert seed_random_states(outer, 0) == 2
    first = (outer._rng.randint(1000), inner._rng.randint(1000))
    seed_random_states(outer, 0)
    assert first == (outer._rng.randint(1000), inner._rng.randint(1000)) and first[0] != first[1]
