"""Refusals of values that would poison the replay, naming where they came from."""

import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise

from sb3_dreamer.common.spaces import SINGLE_KEY, as_dict, space_dict


def check_observation(obs: Any, space: spaces.Space, step: int, ignore: tuple[str, ...] = ()) -> None:
    """Refuse an observation that would poison replay: NaN, infinity, or values that do not fit its space.

    :param obs: batch of observations, ``(n_envs, ...)``
    :param space: of one observation
    :param step: agent step, for the message
    :param ignore: keys of a Dict observation that are not looked at
    :raises ValueError: naming environment index, key and step
    """
    values = as_dict(obs)
    for key, sub_space in space_dict(space).items():
        if key in ignore:
            continue
        name = "the observation" if key == SINGLE_KEY else f"observation {key!r}"
        if key not in values:
            raise ValueError(f"{name} is missing at step {step}: the environment's reset() and step() must return it")
        value = np.asarray(values[key])
        _check_form(value, sub_space, name, step)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            env = int(np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(1))[0])
            bad = value[env][~np.isfinite(value[env])].flat[0] if value[env].ndim else value[env]
            raise ValueError(
                f"{name} of environment {env} is {bad} at step {step}: nothing of this step was stored. "
                "Find the cause in the environment, or clip with gymnasium.wrappers.TransformObservation"
            )


def _check_form(value: np.ndarray, space: spaces.Space, name: str, step: int) -> None:
    """Refuse another shape, a type that would be cut, and categories that do not exist."""
    shape = space.shape or ()
    if value.shape[1:] != shape:
        raise ValueError(
            f"{name} has shape {value.shape[1:]} at step {step}, but its space {space} has {shape}: return arrays "
            "of the declared shape, or declare the shape that the environment returns"
        )
    if space.dtype is not None and not np.can_cast(value.dtype, space.dtype, "same_kind"):
        raise ValueError(
            f"{name} is {value.dtype} at step {step}, but its space {space} is {space.dtype}, which would cut its "
            f"values: declare the space with dtype={value.dtype}, or return {space.dtype}"
        )
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        outside = (value < space.start) | (value >= space.start + count)
        if outside.any():
            env = int(np.flatnonzero(outside.reshape(len(value), -1).any(1))[0])
            raise ValueError(
                f"{name} of environment {env} is {value[env]} at step {step}, outside its space {space}: nothing of "
                "this step was stored"
            )


def terminal_observation(info: dict[str, Any], env: int) -> Any:
    """The last observation of an episode that a VecEnv ended and reset.

    :param info: of the step that ended the episode
    :param env: index of the environment, for the message
    :raises ValueError: if the VecEnv left it out
    """
    if "terminal_observation" not in info:
        raise ValueError(
            f"an episode of environment {env} ended, but its info has no 'terminal_observation' (it has "
            f"{sorted(info) or 'nothing'}): a VecEnv that resets by itself must put the last observation there, as "
            "Stable-Baselines3's DummyVecEnv and SubprocVecEnv do"
        )
    return info["terminal_observation"]


def reset_noise(noise: ActionNoise | None, dones: np.ndarray) -> None:
    """Begin action noise anew where an episode ended.

    :param dones: ``(n_envs,)`` bool
    """
    if isinstance(noise, VectorizedActionNoise):
        if dones.any():
            noise.reset(indices=np.flatnonzero(dones).tolist())
    elif noise is not None and dones.any():
        noise.reset()


def check_reward(reward: np.ndarray, step: int) -> None:
    """Refuse a reward that is NaN, infinite, or too large for float32.

    :param reward: ``(n_envs,)``
    :param step: agent step, for the message
    :raises ValueError: naming environment index and step
    """
    reward = np.asarray(reward)
    with np.errstate(over="ignore"):
        stored = reward.astype(np.float32)
    if not np.isfinite(stored).all():
        env = int(np.flatnonzero(~np.isfinite(stored))[0])
        raise ValueError(
            f"the reward of environment {env} is {reward[env]} at step {step}: nothing of this step was stored. "
            "Find the cause in the environment, or clip with gymnasium.wrappers.ClipReward"
        )


def suite_preset(env: Any) -> dict[str, Any] | None:
    """The settings that ``make_env`` gave an environment, as plain values; None for any other environment.

    :param env: VecEnv or None
    """
    if env is None or not env.has_attr("suite_preset"):  # asking a subprocess for a missing one would end it
        return None
    found = env.get_attr("suite_preset")[0]
    return dict(found) if isinstance(found, dict) else None


def warn_other_preset(stored: dict[str, Any] | None, env: Any) -> None:
    """Warn if an environment is set up in another way than the one that the model was trained on.

    :param stored: what :func:`suite_preset` gave for the training environment
    :param env: VecEnv to train or evaluate with
    """
    current = suite_preset(env)
    if stored is None or current is None or stored.get("hash") == current.get("hash"):
        return
    before, after = ({**preset, **preset.get("settings", {})} for preset in (stored, current))
    names = [
        name for name in before if name not in ("settings", "hash", "overrides") and before[name] != after.get(name)
    ]
    changes = ", ".join(f"{name} {before[name]!r} -> {after.get(name)!r}" for name in names)
    warnings.warn(
        f"the model was trained on {stored.get('suite')}:{stored.get('task')} under other settings ({changes}): "
        "scores will not compare; make the environment with the model's suite_preset",
        stacklevel=3,
    )
