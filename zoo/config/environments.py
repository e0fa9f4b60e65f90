"""Make the environments of a run from its entry and flags."""

import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.action_repeat import ActionRepeat
from sb3_dreamer.wrappers.benchmarks.errors import SuiteNotInstalledError
from sb3_dreamer.wrappers.benchmarks.suites import SUITES, is_atari
from sb3_dreamer.zoo.config.errors import UsageError, one_line

EXTRAS = {
    "ale_py": "atari",
    "shimmy": "dmc",
    "dm_control": "dmc",
    "mujoco": "dmc",
    "crafter": "crafter",
    "bsuite": "bsuite",
    "box2d": "box2d",
}


def import_packages(names: Sequence[str]) -> None:
    """Import packages that register environments, also from the current folder.

    :raises UsageError: if one cannot be imported
    """
    for name in names:
        try:
            look_here(name)
            importlib.import_module(name)
        except Exception as error:  # whatever the package does when it is imported
            raise UsageError(f"--gym-packages {name}: cannot be imported ({one_line(error)})") from error


def look_here(module: str) -> None:
    """Let Python import a module from the current folder, too, if it is nowhere else.

    Only ``python -m`` has that folder on its path. It stays there: worker processes and later imports need it.

    :param module: dotted name
    """
    here = os.getcwd()
    if here not in sys.path and importlib.util.find_spec(module.partition(".")[0]) is None:
        sys.path.append(here)


def make_envs(
    name: str,
    n_envs: int,
    seed: int,
    *,
    preset: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    env_wrapper: Any = None,
    vec_env: str | None = None,
    render_mode: str | None = None,
) -> Any:
    """Make a monitored vector environment.

    :param name: as in ``sb3_dreamer.wrappers.make_env``
    :param n_envs: copies
    :param seed: of the first copy
    :param preset: the paper whose settings are used
    :param env_kwargs: settings, or arguments for ``gymnasium.make``
    :param env_wrapper: dotted path of a wrapper class, or a list of paths and ``{path: {argument: value}}``
    :param vec_env: ``dummy``, ``subproc`` or None to choose by the environment's speed
    :param render_mode: as in ``gymnasium.make``
    :raises UsageError: in one line, whatever the environment's own error looks like
    """
    from stable_baselines3.common.vec_env import DummyVecEnv

    from sb3_dreamer.wrappers.vec.make import make_vec_env
    from sb3_dreamer.wrappers.vec.restarting_vec_env import RestartingVecEnv

    classes = {None: None, "dummy": DummyVecEnv, "subproc": RestartingVecEnv}
    wrappers = find_wrappers(env_wrapper)
    if "render_mode" in (env_kwargs or {}):
        raise UsageError(
            "--env-kwargs render_mode: the programs choose it; leave it out (enjoy opens a window, record_video writes "
            "a video)"
        )
    module, colon, _ = name.partition(":")
    try:
        if colon and module and module not in SUITES:
            look_here(module)
        return make_vec_env(
            name,
            n_envs=n_envs,
            seed=seed,
            vec_env_cls=classes[vec_env],
            preset=preset,
            render_mode=render_mode,
            wrapper_class=functools.partial(apply_wrappers, wrappers=wrappers) if wrappers else None,
            **(env_kwargs or {}),
        )
    except Exception as error:
        raise UsageError(explain(name, error)) from error


def explain(name: str, error: Exception) -> str:
    """Say in one line why an environment could not be made, with the nearest name or what to install."""
    text = one_line(error)
    in_worker = re.match(r".*failed in its worker: (\w+): ?(.*)", text)
    if in_worker:
        text = in_worker[2]
        if in_worker[1] == "SuiteNotInstalledError":
            return text
    if isinstance(error, SuiteNotInstalledError):
        return text
    package = missing_package(error)
    if package in EXTRAS:
        return f'{name!r} needs the package {package}: pip install "sb3-dreamer[{EXTRAS[package]}]"'
    if isinstance(error, gym.error.UnregisteredEnv):
        where = (
            "sb3-dreamer list shows the suites' tasks, gymnasium.pprint_registry() in Python the other ids, "
            "--gym-packages imports a package that registers more"
        )
        return f"unknown environment {name!r}{near(name, known_names(), cutoff=0.7)}: {where}"
    return f"environment {name!r} cannot be made: {text}"


def missing_package(error: Exception) -> str:
    """Return the package that an environment could not import; empty if that was not the problem."""
    if isinstance(error, gym.error.DependencyNotInstalled):
        return "box2d" if "box2d" in str(error).lower() else ""
    return (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""


def known_names() -> list[str]:
    """List every name that could have been meant: registered ids, suite tasks with and without their suite."""
    with_suite = [f"{suite}:{task}" for suite, entry in SUITES.items() for task in entry.tasks]
    ids = [env_id for env_id in gym.registry if not env_id.startswith(("phys2d/", "tabular/"))]
    return [*ids, *with_suite, *(name.partition(":")[2] for name in with_suite)]


def find_wrappers(env_wrapper: Any) -> list[tuple[Callable[..., gym.Env], dict[str, Any]]]:
    """Find wrapper classes with their arguments, innermost first.

    :param env_wrapper: None, a dotted path, or a list of paths and one-entry mappings from path to arguments
    :raises UsageError: if there is no such class
    """
    found: list[tuple[Callable[..., gym.Env], dict[str, Any]]] = []
    for item in [env_wrapper] if isinstance(env_wrapper, str | dict) else env_wrapper or []:
        path, kwargs = next(iter(item.items())) if isinstance(item, dict) and item else (item, {})
        module, _, attribute = str(path).rpartition(".")
        try:
            look_here(module)
            wrapper = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"env_wrapper={path!r}: there is no such class ({one_line(error)})") from error
        if not (isinstance(wrapper, type) and issubclass(wrapper, gym.Wrapper)):
            raise UsageError(f"env_wrapper={path!r} is not a gymnasium.Wrapper")
        found.append((wrapper, {name: _as_annotated(wrapper, name, value) for name, value in (kwargs or {}).items()}))
    return found


def _as_annotated(wrapper: type[gym.Wrapper], name: str, value: Any) -> Any:
    """Turn a list into an array where the wrapper expects one: YAML has no arrays."""
    wanted = inspect.signature(wrapper.__init__).parameters.get(name)
    if isinstance(value, list) and wanted is not None and "ndarray" in str(wanted.annotation):
        return np.asarray(value, np.float32)
    return value


def apply_wrappers(env: gym.Env, wrappers: list[tuple[Callable[..., gym.Env], dict[str, Any]]]) -> gym.Env:
    """Wrap an environment, first wrapper innermost."""
    for wrapper, kwargs in wrappers:
        env = wrapper(env, **kwargs)
    return env


def frames_per_step(preset: dict[str, Any] | None, env_wrapper: Any = None) -> int:
    """Count the environment frames of one agent step: the suite's action repeat times those of the entry's wrappers.

    :param preset: as from :func:`suite_preset`
    :param env_wrapper: as in :func:`make_envs`
    """
    frames = int(preset["settings"]["action_repeat"]) if preset else 1
    for wrapper, kwargs in find_wrappers(env_wrapper):
        if issubclass(wrapper, ActionRepeat):  # type: ignore[arg-type]
            frames *= int(kwargs.get("amount", 1))
    return frames


def choose_policy(policy: str, space: gym.Space) -> str:
    """Choose the policy; ``auto`` goes by the observation space."""
    from stable_baselines3.common.preprocessing import is_image_space

    if policy != "auto":
        return policy
    if isinstance(space, gym.spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(space) else "MlpPolicy"


def has_display() -> bool:
    """Return whether a window can be opened."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def deterministic_by_default(name: str) -> bool:
    """Return whether evaluation takes the most likely action: everywhere except on Atari, as in rl_zoo3."""
    return not is_atari(name)
