"""The one list of what the algorithms refuse in observation and action spaces. Needs gymnasium and numpy only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

MIN_IMAGE, MAX_IMAGE = 16, 512  #: pixels a side
SINGLE = "the observation"  #: name of one that is not a Dict, in messages
IGNORE = "policy_kwargs={'ignore_keys': [...]}"  #: in advice


class SpaceFault(NamedTuple):
    """One reason why a space is refused; ``str(fault)`` is the message.

    :param what: what is the case
    :param advice: what to do about it
    :param error: kind of exception to raise, the one that Stable-Baselines3 raises where it refuses the same
    """

    what: str
    advice: str
    error: type[Exception] = ValueError

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


def observation_faults(
    space: spaces.Space[Any], ignore: Collection[str] = (), *, normalize_images: bool = True
) -> list[SpaceFault]:
    """Return why an observation space cannot be modeled, empty if it can.

    :param space: observation space of one environment, before or after Stable-Baselines3 moved image channels
    :param ignore: keys of a Dict that the agent neither sees nor reconstructs; they may hold anything
    :param normalize_images: see :func:`image_size`
    """
    if not isinstance(space, spaces.Dict):
        return _leaf_faults(SINGLE, space, normalize_images)
    kept = {key: sub for key, sub in space.items() if key not in ignore}
    if not kept:
        why = f"ignore_keys={list(ignore)} leaves" if space.spaces else f"{space} has"
        return [SpaceFault(f"{why} no observation key", "keep at least one")]
    return [fault for key, sub in kept.items() for fault in _leaf_faults(f"observation {key!r}", sub, normalize_images)]


def _leaf_faults(name: str, space: spaces.Space[Any], normalize_images: bool) -> list[SpaceFault]:
    """Return what is wrong with a single observation."""
    leave_out = "" if name == SINGLE else f", or leave the key out with {IGNORE}"
    if isinstance(space, spaces.Dict):
        what = f"{name} is a Dict inside a Dict (Nested observation spaces are not supported)"
        advice = f"flatten it with gymnasium.wrappers.FlattenObservation, or leave it out with {IGNORE}"
        return [SpaceFault(what, advice, NotImplementedError)]
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        what = f"{name} is a {type(space).__name__} space, which is not supported"
        advice = f"use Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these{leave_out}"
        return [SpaceFault(what, advice)]
    if 0 in (space.shape or ()):
        advice = f"leave it out with {IGNORE}, or with sb3_dreamer.wrappers.TidyObservation"
        if name == SINGLE:
            advice = "an agent needs at least one number"
        return [SpaceFault(f"{name} has no entries (shape {space.shape})", advice)]
    size = image_size(space, normalize_images=normalize_images)
    if size is not None and space.dtype != np.uint8 and int(np.argmin(space.shape or ())) != 0:
        what = f"{name} of shape {space.shape} has its channels last, and normalize_images=False needs them first"
        return [SpaceFault(what, "move the channel axis to the front in a gymnasium.ObservationWrapper")]
    if size is not None and not MIN_IMAGE <= min(size) <= max(size) <= MAX_IMAGE:
        what = f"{name} is an image of {size[0]}x{size[1]} pixels, outside {MIN_IMAGE} to {MAX_IMAGE}"
        return [SpaceFault(what, "resize it, for example with gymnasium.wrappers.ResizeObservation(env, (64, 64))")]
    return []


def image_size(space: spaces.Space[Any], *, normalize_images: bool = True) -> tuple[int, int] | None:
    """Return height and width of an image, None for what is modeled as a vector.

    An image is what Stable-Baselines3 takes for one: a uint8 Box of three axes from 0 to 255, whose channels are in
    front where that axis is the smallest.

    :param space: a single observation
    :param normalize_images: False: a Box of floats of three axes is an image, too
    """
    if not (isinstance(space, spaces.Box) and len(space.shape) == 3):
        return None
    is_uint8 = space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all()
    if not is_uint8 and (normalize_images or not np.issubdtype(space.dtype, np.floating)):
        return None
    size = space.shape[1:] if int(np.argmin(space.shape)) == 0 else space.shape[:2]
    return int(size[0]), int(size[1])


def action_faults(space: spaces.Space[Any]) -> list[SpaceFault]:
    """Return why an action space is refused, empty if it is not.

    :param space: action space of one environment
    """
    if isinstance(space, spaces.Box):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            what = f"action space {space} has an infinite bound"
            advice = "the Continuous action space must have a finite lower and upper bound, in the environment's Box"
            return [SpaceFault(what, advice, AssertionError)]
        middle = np.asarray(space.low / 2 + space.high / 2).astype(space.dtype)
        if not space.contains(middle):  # a Box that holds some of its points only; actors propose any
            what = f"action space {space} is a Box that does not contain every point between its bounds"
            advice = (
                "leave out the wrapper that made it. Discrete actions need no OneHotAction (in make_env: one_hot): the "
                "algorithms turn them into one-hot vectors themselves"
            )
            return [SpaceFault(what, advice)]
    elif isinstance(space, spaces.MultiBinary) and len(space.shape) > 1:
        # The words of Stable-Baselines3, which refuses it as well.
        what = f"Multi-dimensional {space} action space is not supported. You can flatten it instead"
        advice = f"use MultiBinary({int(np.prod(space.shape))}) and reshape in the environment"
        return [SpaceFault(what, advice, AssertionError)]
    elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        advice = "use Box, Discrete, MultiDiscrete or MultiBinary"
        return [SpaceFault(f"action space {space} is not supported", advice, AssertionError)]
    return []
