"""Refusals of values that would poison the replay, naming where they came from."""

import warnings
from typing import Any

import numpy as np

from sb3_dreamer.common.spaces import SINGLE_KEY, as_dict


def check_observation(obs: Any, step: int) -> None:
    """Refuse NaN and infinity in an observation.

    :param obs: batch of observations, ``(n_envs, ...)``
    :param step: agent step, for the message
    :raises ValueError: naming environment index, key and step
    """
    for key, value in as_dict(obs).items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            env = int(np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(1))[0])
            bad = value[env][~np.isfinite(value[env])].flat[0] if value[env].ndim else value[env]
            name = "the observation" if key == SINGLE_KEY else f"observation {key!r}"
            raise ValueError(
                f"{name} of environment {env} is {bad} at step {step}: nothing of this step was stored. "
                "Find the cause in the environment, or clip with gymnasium.wrappers.TransformObservation"
            )


def check_reward(reward: np.ndarray, step: int) -> None:
    """Refuse a NaN or infinite reward.

    :param reward: ``(n_envs,)``
    :param step: agent step, for the message
    :raises ValueError: naming environment index and step
    """
    if not np.isfinite(reward).all():
        env = int(np.flatnonzero(~np.isfinite(reward))[0])
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
