"""What the spaces alone tell about an environment's fitness for training."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Finding(NamedTuple):
    """One thing the check found.

    :param level: ``"error"`` (training would fail or learn nothing), ``"warning"`` or ``"note"``
    :param what: what is the case
    :param advice: what to do about it
    """

    level: str
    what: str
    advice: str


def leaves(space: spaces.Space[Any], prefix: str = "") -> dict[str, spaces.Space[Any]]:
    """Return the members of a space by name; a plain one is called ``observation``."""
    if isinstance(space, spaces.Dict):
        return {name: leaf for key, sub in space.items() for name, leaf in leaves(sub, f"{prefix}{key}/").items()}
    return {prefix.rstrip("/") or "observation": space}


def check_spaces(env: gym.Env) -> list[Finding]:
    """Return what is wrong or noteworthy in an environment's spaces."""
    found: list[Finding] = []
    for name, space in leaves(env.observation_space).items():
        if isinstance(space, (spaces.Tuple, spaces.Sequence, spaces.Graph, spaces.Text)):
            found.append(Finding("error", f"{name} is a {type(space).__name__} space", "use Dict, Box or Discrete"))
        elif isinstance(space, spaces.Box) and len(space.shape) == 3:
            if space.dtype != np.uint8:
                advice = "return uint8 from 0 to 255 if it is a picture; a float grid is treated as numbers"
                found.append(Finding("warning", f"{name} has a picture's shape but dtype {space.dtype}", advice))
            elif space.high.max() < 255:
                advice = "a grid of categories is no picture: flatten it or encode it as one-hot"
                found.append(Finding("warning", f"{name} is uint8 only up to {space.high.max()}", advice))
        elif isinstance(space, spaces.Box) and space.dtype == np.float64:
            found.append(Finding("note", f"{name} is float64", "wrap in TidyObservation: float32 halves the replay"))
        if isinstance(space, spaces.Box) and 0 in space.shape:
            found.append(Finding("error", f"{name} is empty", "wrap in TidyObservation, which drops it"))
    action = env.action_space
    if isinstance(action, spaces.Box):
        if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
            found.append(
                Finding("error", f"the action space is unbounded: {action}", "give it finite bounds (ClipAction)")
            )
        elif not (np.allclose(action.low, -1) and np.allclose(action.high, 1)):
            found.append(
                Finding("note", f"actions are in {action}", "scaled by the algorithm; NormalizeAction does it here")
            )
    elif not isinstance(action, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Dict)):
        found.append(Finding("error", f"unsupported action space {action}", "use Box, Discrete or MultiDiscrete"))
    return found
