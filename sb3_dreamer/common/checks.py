"""Refusals of values that would poison the replay, naming where they came from."""

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
