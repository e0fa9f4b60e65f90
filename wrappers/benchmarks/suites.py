"""Make every benchmark environment of the papers, and any gymnasium id, by name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.action_repeat import ActionRepeat
from sb3_dreamer.wrappers.benchmarks import atari, dmc, tasks
from sb3_dreamer.wrappers.benchmarks.bsuite import make_bsuite
from sb3_dreamer.wrappers.benchmarks.crafter import make_crafter
from sb3_dreamer.wrappers.benchmarks.dmlab import make_dmlab
from sb3_dreamer.wrappers.benchmarks.minecraft import make_minecraft
from sb3_dreamer.wrappers.benchmarks.presets import (
    SETTING_NAMES,
    Settings,
    SuiteInfo,
    SuitePreset,
    apply_overrides,
    find_preset,
)
from sb3_dreamer.wrappers.benchmarks.rendering import check_renderer, choose_backend
from sb3_dreamer.wrappers.discount_info import DiscountInfo
from sb3_dreamer.wrappers.frame_counter import FrameCounter
from sb3_dreamer.wrappers.life_loss import LifeLoss
from sb3_dreamer.wrappers.noop_reset import NoopReset
from sb3_dreamer.wrappers.normalize_action import NormalizeAction
from sb3_dreamer.wrappers.one_hot_action import OneHotAction
from sb3_dreamer.wrappers.pixel_observation import PixelObservation
from sb3_dreamer.wrappers.resize_frame import ResizeFrame
from sb3_dreamer.wrappers.squash_reward import SquashReward
from sb3_dreamer.wrappers.stack_channels import StackChannels
from sb3_dreamer.wrappers.tidy_observation import TidyObservation

Builder = Callable[[str, Settings, "str | None"], gym.Env]
GENERAL = ("frame_stack", "reward", "reward_scale", "timeout_terminates", "one_hot", "flatten", "normalize_action")


class Suite(NamedTuple):
    """One benchmark suite.

    :param title: what it is, for the table
    :param builder: makes one environment from task, settings and render mode
    :param tasks: task names of the paper (the suite may know more)
    :param slow: True where an environment is worth a process of its own
    :param options: settings that mean something here, beside the general ones
    """

    title: str
    builder: Builder
    tasks: list[str]
    slow: bool
    options: tuple[str, ...]


_ATARI_OPTIONS = (
    "action_repeat", "time_limit", "size", "resize", "grayscale", "sticky", "noops", "lives", "all_actions", "max_pool",
)  # fmt: skip
_DMC_OPTIONS = ("action_repeat", "time_limit", "size", "pixels", "camera")
SUITES: dict[str, Suite] = {
    "atari": Suite("Atari, 200M frames", atari.make_atari, tasks.ATARI_55, True, _ATARI_OPTIONS),
    "atari100k": Suite("Atari 100k", atari.make_atari, tasks.ATARI_26, True, _ATARI_OPTIONS),
    "dmc_vision": Suite("Control Suite from pixels", dmc.make_dmc, tasks.DMC_20, True, _DMC_OPTIONS),
    "dmc_proprio": Suite("Control Suite from states", dmc.make_dmc, tasks.DMC_18, False, _DMC_OPTIONS),
    "planet": Suite("PlaNet's control tasks", dmc.make_dmc, list(tasks.PLANET_REPEATS), True, _DMC_OPTIONS),
    "crafter": Suite("Crafter", make_crafter, tasks.CRAFTER, True, ("size", "time_limit")),
    "bsuite": Suite("Behaviour Suite", make_bsuite, tasks.BSUITE_23, False, ()),
    "dmlab": Suite("DMLab", make_dmlab, tasks.DMLAB_30, True, ("action_repeat", "size", "action_set")),
    "minecraft": Suite("Minecraft", make_minecraft, tasks.MINECRAFT, True, ("size", "time_limit", "break_speed")),
}
# What a plain gymnasium id may have beside the general ones; an Atari game and a dm_control task have more.
_ID_OPTIONS = ("action_repeat", "time_limit", "size", "resize", "grayscale", "pixels", "lives", "max_pool")
_ALE_OPTIONS = ("sticky", "noops", "all_actions")
NAMESPACES = {"ALE": "ale_py", "dm_control": "shimmy", "bsuite": "shimmy", "meltingpot": "shimmy"}


def split_name(name: str) -> tuple[str, str]:
    """Return suite and task of an environment name.

    :param name: ``"suite:task"``, an Atari game (``"Pong"``), or a gymnasium id (also ``"module:Id-v0"``)
    :return: suite name (``"gymnasium"`` for an id) and task
    :raises ValueError: for an empty name
    :raises TypeError: for anything but a string
    """
    if not isinstance(name, str):
        raise TypeError(
            f"make_env() and make_vec_env() take the name of an environment as a string, not {name!r}: for a class or "
            "function of your own, use stable_baselines3.common.env_util.make_vec_env."
        )
    suite, colon, task = name.partition(":")
    if colon and suite in SUITES:
        if not task:
            raise ValueError(f"{name!r} names no task; for example {suite}:{SUITES[suite].tasks[0]}.")
        return suite, task
    if not name:
        raise ValueError("the environment's name is empty.")
    if name not in gym.registry and atari.squeeze_name(name) in atari.PAPER_GAMES:
        return "atari", name
    return "gymnasium", name


def make_env(name: str, preset: str | None = None, render_mode: str | None = None, **kwargs: Any) -> gym.Env:
    """Make one environment, set up as a paper does.

    :param name: ``"Pong"``, ``"atari100k:pong"``, ``"dmc_vision:walker_walk"``, ``"dmc_proprio:..."``,
        ``"planet:cartpole_swingup"``, ``"crafter:reward"``, ``"bsuite:cartpole/0"``, ``"dmlab:..."``,
        ``"minecraft:diamond"``, or any gymnasium id (``"CartPole-v1"``, ``"ALE/Pong-v5"``), which is left as it
        is but for the settings passed here
    :param preset: ``"planet"``, ``"dreamerv2"``, ``"dreamerv3-2023"`` (the default where a suite has it) or
        ``"dreamerv3-2024"``; gymnasium ids have none
    :param render_mode: as in ``gymnasium.make``
    :param kwargs: settings that replace the preset's (see ``Settings``; ``pixels=True`` means ``"only"``); for a
        gymnasium id, other names go to ``gymnasium.make``
    :return: environment whose ``suite_preset`` attribute holds every setting as plain JSON values
    :raises ValueError: for an unknown suite, task, preset or setting
    :raises SuiteNotInstalledError: if the suite's package is missing, with what to install
    """
    suite, task = split_name(name)
    if "pixels" in kwargs and isinstance(kwargs["pixels"], bool):
        kwargs["pixels"] = "only" if kwargs["pixels"] else None
    if suite == "gymnasium":
        if preset is not None:
            raise ValueError(f"{name!r} is a plain gymnasium id and has no preset; write for example 'atari:pong'.")
        _check_module(task)
        chosen = {key: kwargs.pop(key) for key in list(kwargs) if key in SETTING_NAMES}
        settings = _fit_pool(apply_overrides(Settings(), chosen), chosen)
        env = _make_gymnasium(task, settings, chosen, render_mode, kwargs)
        settings = replace(settings, **_own_settings(env))
        return SuiteInfo(_finish(env, settings), SuitePreset(suite, task, "none", settings, tuple(sorted(chosen))))
    preset_name, settings = find_preset(suite, preset)
    if suite == "planet" and task in tasks.PLANET_REPEATS:
        settings = replace(settings, action_repeat=tasks.PLANET_REPEATS[task])
    changed = _changes(suite, settings, kwargs)
    settings = _fit_pool(apply_overrides(settings, changed), changed)
    env = SUITES[suite].builder(task, settings, render_mode)
    return SuiteInfo(_finish(env, settings), SuitePreset(suite, task, preset_name, settings, tuple(sorted(changed))))


def _changes(suite: str, settings: Settings, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that differ from the preset, after checking that the suite has such settings."""
    asked = apply_overrides(settings, overrides)
    allowed = (*SUITES[suite].options, *GENERAL)
    for key in overrides:
        if key not in allowed:
            raise ValueError(f"suite {suite!r} has no setting {key!r}; it has {', '.join(allowed)}.")
    changed = {key: getattr(asked, key) for key in overrides if getattr(asked, key) != getattr(settings, key)}
    if "size" in changed and "pixels" in allowed and asked.pixels is None:
        raise ValueError(f"size={asked.size!r} needs images: write pixels=True, too, or leave it out.")
    return changed


def _fit_pool(settings: Settings, chosen: Collection[str]) -> Settings:
    """Return the settings with no more frames pooled than an agent step has; refuse that if it was asked for.

    :param chosen: names of the settings that were asked for
    """
    if settings.max_pool <= settings.action_repeat:
        return settings
    if "max_pool" in chosen:
        raise ValueError(
            f"max_pool={settings.max_pool} merges more frames than action_repeat={settings.action_repeat} has: "
            "write a larger action_repeat, or leave max_pool out."
        )
    return replace(settings, max_pool=settings.action_repeat)


def _make_gymnasium(
    env_id: str, settings: Settings, chosen: Collection[str], render_mode: str | None, kwargs: dict[str, Any]
) -> gym.Env:
    """Make a registered environment and apply the settings that are not the default."""
    namespace = env_id.split("/", maxsplit=1)[0]
    if namespace == "dm_control":
        choose_backend()  # before the first import: dm_control binds its renderer then
    if namespace in NAMESPACES and env_id not in gym.registry:
        module = importlib.import_module(NAMESPACES[namespace])
        gym.register_envs(module)
    _register_older_games(env_id)
    if settings.pixels is not None and render_mode is None:
        render_mode = "rgb_array"
    if render_mode is not None and namespace == "dm_control":
        check_renderer()
    elif render_mode is not None and is_from(env_id, "mujoco"):
        choose_backend()
    _check_settings(env_id, settings, chosen, render_mode)
    env = _make_registered(env_id, render_mode, _add_keywords(env_id, settings, chosen, kwargs))
    if hasattr(env.unwrapped, "ale"):
        atari.set_frame_rate(env)
    if namespace == "dm_control":
        dmc.set_frame_rate(env)
        env = TidyObservation(env)
    if settings.noops[1] > 0:
        env = NoopReset(env, *settings.noops)
    if settings.lives != "unused":
        env = LifeLoss(env, settings.lives)
    if settings.action_repeat > 1:
        env = ActionRepeat(env, settings.action_repeat, settings.max_pool)
    grayscale = bool(settings.grayscale)
    if settings.pixels is not None:
        keep = settings.pixels == "both"
        env = PixelObservation(env, settings.size or (64, 64), settings.resize, grayscale, keep_state=keep)
    elif settings.size is not None or grayscale:
        env = ResizeFrame(env, settings.size, settings.resize, grayscale)
    return env


def _check_settings(env_id: str, settings: Settings, chosen: Collection[str], render_mode: str | None) -> None:
    """Refuse settings that would change nothing in a registered environment, so that none is recorded in vain."""
    is_ale = is_from(env_id, "ale_py")
    allowed = (*_ID_OPTIONS, *(_ALE_OPTIONS if is_ale else ()), *GENERAL)
    if env_id.startswith("dm_control/"):
        allowed = (*allowed, "camera")
    for key in chosen:
        if key not in allowed:
            raise ValueError(f"{env_id!r} has no setting {key!r}; it has {', '.join(allowed)}.")
    if "camera" in chosen and render_mode is None:
        raise ValueError(f"camera={settings.camera!r} needs images: write pixels=True or render_mode='rgb_array', too.")
    if "resize" in chosen and settings.pixels is None and settings.size is None:
        raise ValueError(f"resize={settings.resize!r} needs a size: write for example size=64, too.")
    if settings.grayscale == "screen" and (not is_ale or settings.pixels is not None):
        raise ValueError(
            f"grayscale='screen' is the palette of Atari's emulator: write grayscale='luma' for {env_id!r}."
        )


def _add_keywords(env_id: str, settings: Settings, chosen: Collection[str], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``gymnasium.make``: the ones passed, and those that carry out settings."""
    own: dict[str, Any] = {}
    if settings.time_limit is not None:  # instead of the limit that the environment comes with
        own = {"max_episode_steps": settings.time_limit}
        if is_from(env_id, "ale_py"):
            own["max_num_frames_per_episode"] = 0
        elif dmc.is_control_task(env_id):
            own["task_kwargs"] = {**kwargs.pop("task_kwargs", {}), "time_limit": float("inf")}
    if "sticky" in chosen:
        own["repeat_action_probability"] = settings.sticky
    if "all_actions" in chosen:
        own["full_action_space"] = settings.all_actions
    if settings.grayscale == "screen":
        own["obs_type"] = "grayscale"
    if settings.camera is not None:
        own["render_kwargs"] = {**kwargs.pop("render_kwargs", {}), "camera_id": settings.camera}
    if twice := own.keys() & kwargs.keys():
        raise ValueError(
            f"{', '.join(sorted(twice))} of gymnasium.make is set by time_limit, sticky, all_actions or grayscale."
        )
    return {**kwargs, **own}


def _own_settings(env: gym.Env) -> dict[str, Any]:
    """Return what an Atari game has of settings that were not asked for; nothing for other environments."""
    if not hasattr(env.unwrapped, "ale"):
        return {}
    sticky = env.unwrapped.ale.getFloat("repeat_action_probability")
    spec = env.unwrapped.spec
    return {"sticky": round(float(sticky), 6), "all_actions": bool(spec and spec.kwargs.get("full_action_space"))}


def _make_registered(env_id: str, render_mode: str | None, kwargs: dict[str, Any]) -> gym.Env:
    """Make an environment, or say which setting an argument that it does not have may have meant."""
    try:
        return gym.make(env_id, render_mode=render_mode, **kwargs)
    except TypeError as error:
        for key in kwargs:
            if key in str(error) and (hint := near(key, SETTING_NAMES)):
                raise ValueError(f"{env_id} has no argument {key!r}{hint}") from error
        raise


def _check_module(env_id: str) -> None:
    """Refuse ``prefix:name`` where the prefix is neither a suite nor a module, with the nearest suite."""
    prefix, colon, _ = env_id.partition(":")
    if colon and importlib.util.find_spec(prefix.split(".")[0]) is None:
        hint = near(prefix, SUITES)
        raise ValueError(f"{prefix!r} of {env_id!r} is neither a suite{hint} nor a module: {', '.join(SUITES)}")


def is_atari(name: str) -> bool:
    """Return whether an environment is an Atari game: of a suite, or an id that is made by ale_py.

    :param name: as in ``make_env``
    """
    suite, task = split_name(name)
    return is_from(task, "ale_py") if suite == "gymnasium" else SUITES[suite].builder is atari.make_atari


def is_from(env_id: str, package: str) -> bool:
    """Return whether an environment is made by code in a package, such as ale_py or gymnasium's mujoco.

    :param env_id: gymnasium id, also ``"module:Id-v0"``
    :param package: part of the name of the module that the registry has for it; of an id that is not registered yet,
        the module that registers it
    """
    _register_older_games(env_id)
    module, _, plain = env_id.rpartition(":")
    if plain not in gym.registry:
        return package in (module or NAMESPACES.get(plain.partition("/")[0], ""))
    entry = gym.registry[plain].entry_point
    return package in (entry if isinstance(entry, str) else getattr(entry, "__module__", ""))


def _register_older_games(env_id: str) -> None:
    """Import ale_py for an id that nobody registered: ids such as ``PongNoFrameskip-v4`` have no namespace to tell."""
    named = ":" in env_id or "/" in env_id
    if not named and env_id not in gym.registry and importlib.util.find_spec("ale_py") is not None:
        gym.register_envs(importlib.import_module("ale_py"))


def _finish(env: gym.Env, settings: Settings) -> gym.Env:
    """Apply what every suite has in common: flattening, stacking, reward and action forms, discount and counts."""
    if settings.flatten:
        if not isinstance(env.observation_space, spaces.Dict):
            raise ValueError(f"flatten=True needs a Dict observation, got {env.observation_space}: leave it out.")
        env = gym.wrappers.FlattenObservation(env)
    if settings.frame_stack > 1:
        env = StackChannels(env, settings.frame_stack)
    if settings.reward is not None or settings.reward_scale != 1.0:
        env = SquashReward(env, settings.reward, settings.reward_scale)
    if settings.normalize_action:
        env = NormalizeAction(env)
    if settings.one_hot:
        env = OneHotAction(env)
    return FrameCounter(DiscountInfo(env, settings.timeout_terminates))
