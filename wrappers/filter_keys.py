"""Choose observation keys by pattern."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
from gymnasium import spaces


class FilterKeys(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Keep the ``Dict`` entries whose name matches a pattern, as the papers' configurations choose encoder keys.

    Gymnasium's ``FilterObservation`` takes exact names only and always returns a ``Dict``; here names are regular
    expressions that must match the whole key, and a single remaining entry can be returned alone.

    :param env: environment with a ``Dict`` observation
    :param include: pattern of the keys to keep (default: all)
    :param exclude: pattern of the keys to drop among those (default: none)
    :param unwrap_single: return the entry itself if only one is left (default False)
    :raises ValueError: for another space or something that is no pattern, or if no key is left
    """

    def __init__(self, env: gym.Env, include: str = ".*", exclude: str | None = None, unwrap_single: bool = False):
        space = env.observation_space
        if not isinstance(space, spaces.Dict):
            raise ValueError(f"FilterKeys needs a Dict observation, got {space}.")
        for name, pattern in (("include", include), ("exclude", exclude)):
            _check_pattern(name, pattern, list(space.spaces))
        gym.utils.RecordConstructorArgs.__init__(self, include=include, exclude=exclude, unwrap_single=unwrap_single)
        gym.ObservationWrapper.__init__(self, env)
        self.keys = [
            key
            for key in space.spaces
            if re.fullmatch(include, key) and not (exclude is not None and re.fullmatch(exclude, key))
        ]
        if not self.keys:
            raise ValueError(f"no key of {list(space.spaces)} matches include={include!r}, exclude={exclude!r}.")
        self._alone = unwrap_single and len(self.keys) == 1
        self.observation_space = (
            space[self.keys[0]] if self._alone else spaces.Dict({key: space[key] for key in self.keys})
        )

    def observation(self, observation: Any) -> Any:
        """Return the kept entries."""
        if self._alone:
            return observation[self.keys[0]]
        return {key: observation[key] for key in self.keys}


def _check_pattern(name: str, pattern: Any, keys: list[str]) -> None:
    """Refuse what is no regular expression, with one that is."""
    if pattern is None and name == "exclude":
        return
    if not isinstance(pattern, str):
        listed = isinstance(pattern, (list, tuple, set)) and all(isinstance(key, str) for key in pattern)
        example = "|".join(map(re.escape, pattern if listed else keys))
        raise ValueError(f"{name}={pattern!r}: write one pattern as a string, for example {example!r}.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}={pattern!r} is no regular expression ({error}); '.*' matches any key.") from None
