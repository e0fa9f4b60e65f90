"""Make vector environments for Stable-Baselines3, which is imported when a function here is first called."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from sb3_dreamer.wrappers.arguments import whole_number
from sb3_dreamer.wrappers.benchmarks.suites import SUITES, is_from, make_env, split_name
from sb3_dreamer.wrappers.vec.worker import WorkerError

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


SB3_ONLY = {  #: arguments of Stable-Baselines3's make_vec_env, and what to write here
    "env_kwargs": "pass them directly, as in make_vec_env(name, key=value)",
    "start_index": "environment i is seeded with seed + i, so write seed=seed + start_index",
    "monitor_kwargs": "leave it out; monitor_dir= says where monitor.csv goes",
}


def build_env(
    name: str,
    preset: str | None,
    render_mode: str | None,
    kwargs: dict[str, Any],
    wrapper_class: Callable[..., gym.Env] | None,
    wrapper_kwargs: dict[str, Any],
    action_seed: int | None,
    spec: str | None = None,
) -> gym.Env:
    """Make one environment of a vector environment; module-level so that a worker can import it by name.

    :param spec: what the parent's registry knows of the id, as JSON; a worker may not know it
    """
    if spec is not None:
        known = EnvSpec.from_json(spec)
        if known.id not in gym.registry and isinstance(known.entry_point, str):
            with contextlib.suppress(ImportError):  # which gymnasium.make reports
                importlib.import_module(known.entry_point.partition(":")[0])  # it may register the id itself
        gym.registry.setdefault(known.id, known)
    env = make_env(name, preset, render_mode, **kwargs)
    if wrapper_class is not None:
        env = wrapper_class(env, **wrapper_kwargs)
    if action_seed is not None:
        env.action_space.seed(action_seed)
    return env


def is_slow(name: str, kwargs: dict[str, Any]) -> bool:
    """Return whether stepping an environment costs more than sending it to another process and back (about 0.1 ms).

    :param name: as in ``make_env``
    :param kwargs: its settings; pixels of any environment are slow
    """
    suite, task = split_name(name)
    if kwargs.get("pixels"):
        return True
    if suite == "gymnasium":
        return is_from(task, "ale_py") or task.startswith("dm_control/")
    return SUITES[suite].slow


def spec_as_json(name: str) -> str | None:
    """Return what gymnasium's registry knows of an id; None for a suite's task, or if it holds more than plain values.

    :param name: as in ``make_env``
    """
    suite, env_id = split_name(name)
    spec = copy.copy(gym.registry.get(env_id)) if suite == "gymnasium" else None
    if spec is None:
        return None
    if isinstance(spec.entry_point, type):
        spec.entry_point = f"{spec.entry_point.__module__}:{spec.entry_point.__qualname__}"
    try:
        return spec.to_json()
    except (TypeError, ValueError):  # an entry point or argument that is a function
        return None


def make_vec_env(
    name: str,
    n_envs: int = 1,
    seed: int | None = None,
    vec_env_cls: type[VecEnv] | None = None,
    preset: str | None = None,
    render_mode: str | None = None,
    monitor_dir: str | Path | None = None,
    wrapper_class: Callable[..., gym.Env] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    vec_env_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> VecEnv:
    """Make several copies of an environment, monitored, as a Stable-Baselines3 vector environment.

    Environment i is seeded with ``seed + i`` at its first reset (SB3's rule, so that a ``DummyVecEnv`` and worker
    processes give the same episodes), its action space too. Episode returns are recorded by ``ScoreMonitor`` in
    this process, so that workers need no torch: in the task's own rewards, as Stable-Baselines3's function does it.

    :param name: as in ``make_env``
    :param n_envs: number of copies
    :param seed: first seed; None for random ones
    :param vec_env_cls: ``DummyVecEnv``, ``SubprocVecEnv``, ``RestartingVecEnv`` or alike; None chooses
        ``RestartingVecEnv`` for several copies of a slow environment, else ``DummyVecEnv``
    :param preset: as in ``make_env``
    :param render_mode: as in ``make_env``
    :param monitor_dir: folder for ``monitor.csv``; None writes none
    :param wrapper_class: outermost wrapper of each environment
    :param wrapper_kwargs: its arguments
    :param vec_env_kwargs: arguments of ``vec_env_cls``
    :param kwargs: settings, as in ``make_env``
    :raises ValueError: if ``n_envs`` is no positive whole number, or for arguments that only SB3's function has
    """
    n_envs = whole_number("n_envs", n_envs, 1, what="number of copies")
    split_name(name)  # refuses what is no name
    for key, advice in SB3_ONLY.items():
        if key in kwargs:
            raise ValueError(f"make_vec_env() has no argument {key!r}: {advice}.")
    from stable_baselines3.common.vec_env import DummyVecEnv

    from sb3_dreamer.wrappers.vec.score_monitor import ScoreMonitor

    if vec_env_cls is None:
        from sb3_dreamer.wrappers.vec.restarting_vec_env import RestartingVecEnv

        vec_env_cls = RestartingVecEnv if n_envs > 1 and is_slow(name, kwargs) else DummyVecEnv
    spec = spec_as_json(name)
    makers = [
        functools.partial(
            build_env, name, preset, render_mode, dict(kwargs), wrapper_class, wrapper_kwargs or {},
            None if seed is None else seed + rank, spec,
        )
        for rank in range(n_envs)
    ]  # fmt: skip
    try:
        vec_env = vec_env_cls(makers, **(vec_env_kwargs or {}))  # type: ignore[arg-type]
    except (TypeError, ValueError, WorkerError) as error:
        known = list(inspect.signature(make_vec_env).parameters)
        for key in kwargs:
            if repr(key) in str(error) and (near := difflib.get_close_matches(key, known, 1, 0.8)):
                raise ValueError(f"make_vec_env() has no argument {key!r}: did you mean {near[0]!r}?") from error
        raise
    vec_env.seed(seed)
    if monitor_dir is not None:
        Path(monitor_dir).mkdir(parents=True, exist_ok=True)
    return ScoreMonitor(vec_env, None if monitor_dir is None else str(Path(monitor_dir) / "0"))
