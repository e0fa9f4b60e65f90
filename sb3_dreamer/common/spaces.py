"""From gymnasium spaces to what the core knows: observation keys and action layouts, and values to and fro."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.supported_spaces import MIN_IMAGE, action_faults, image_size, observation_faults

SINGLE_KEY = "obs"  #: name under which an observation that is not a dict is stored and modeled


def observation_keys(
    space: spaces.Space, ignore: tuple[str, ...] = (), *, normalize_images: bool = True
) -> tuple[ObsKey, ...]:
    """Choose how each key of an observation space is modeled.

    :param space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these
    :param ignore: keys of a Dict space that the agent neither sees nor reconstructs
    :param normalize_images: False: Boxes of floats with three axes are images as well, with values of about 0 to 1
    :raises ValueError: for a space that is not supported, naming the key
    """
    if not isinstance(space, spaces.Dict):
        check_observation_space(space, normalize_images=normalize_images)
        return (_observation_key(SINGLE_KEY, space, normalize_images),)
    check_observation_space(space, ignore, normalize_images=normalize_images)
    kept = {name: sub for name, sub in space.spaces.items() if name not in ignore}
    return tuple(_observation_key(name, sub, normalize_images) for name, sub in kept.items())


def check_ignore_keys(space: spaces.Space, ignore: Iterable[str]) -> None:
    """Refuse anything but a list of keys of the observation.

    :raises ValueError: naming the key and those that there are
    """
    if isinstance(ignore, str):
        raise ValueError(f"ignore_keys={ignore!r} is one name: pass a list, [{ignore!r}]")
    known = list(space.spaces) if isinstance(space, spaces.Dict) else []
    for key in ignore:
        if key not in known:
            raise ValueError(
                f"ignore_keys has {key!r}, which is not a key of the observation: {known or f'{space} has no keys'}"
            )


def without_unstackable(env: Any, ignore: Iterable[str]) -> Any:
    """Leave out ignored keys whose spaces SB3 cannot stack (Text, a Dict inside a Dict, ...).

    :param env: a gymnasium environment; anything else is returned as it is
    :param ignore: keys of its Dict observation that the agent neither sees nor reconstructs
    """
    if not isinstance(env, gym.Env) or not isinstance(env.observation_space, spaces.Dict):
        return env
    lost = {key for key in ignore if key in env.observation_space.spaces and env.observation_space[key].shape is None}
    kept = [key for key in env.observation_space.spaces if key not in lost]
    return gym.wrappers.FilterObservation(env, kept) if lost and kept else env


def check_observation_space(
    space: spaces.Space, ignore: tuple[str, ...] = (), *, normalize_images: bool = True
) -> None:
    """Refuse a space that is not supported, before SB3 wraps the environment and fails on it.

    :param ignore: keys of a Dict space that are not looked at
    :param normalize_images: see :func:`observation_keys`
    :raises ValueError: naming the key and what to do; NotImplementedError for a Dict inside a Dict, as in SB3
    """
    for fault in observation_faults(space, ignore, normalize_images=normalize_images):
        raise fault.error(str(fault))


def _observation_key(name: str, space: spaces.Space, normalize_images: bool) -> ObsKey:
    shape = space.shape or ()
    if isinstance(space, spaces.Discrete):
        return ObsKey(name, "discrete", (), (int(space.n),), (int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        return ObsKey(name, "discrete", shape, _integers(space.nvec), _integers(space.start))
    if isinstance(space, spaces.MultiBinary):
        return ObsKey(name, "vector", shape)
    if image_size(space, normalize_images=normalize_images) is None:
        return ObsKey(name, "vector", shape)
    return ObsKey(name, "image", shape, white=255.0 if space.dtype == np.uint8 else 1.0)


def advise_on_image(name: str, space: spaces.Space) -> None:
    """Warn of a Box that looks like an image and is learned as a vector."""
    shape = space.shape or ()
    if not isinstance(space, spaces.Box) or is_image_space(space) or len(shape) < 2 or sorted(shape)[-2] < MIN_IMAGE:
        return
    if len(shape) == 2:
        advice = f"add a channel axis: gymnasium.wrappers.ReshapeObservation(env, {(*shape, 1)})"
    elif len(shape) == 3 and space.dtype != np.uint8:
        advice = "declare it as uint8 from 0 to 255, or pass policy_kwargs={'normalize_images': False}"
    elif len(shape) == 3:
        advice = "declare low=0, high=255 and put the channels first or last"
    else:
        advice = "join its frames as channels, as sb3_dreamer.wrappers.StackChannels does"
    warnings.warn(
        f"observation {name!r} of shape {shape} and dtype {space.dtype} is learned as a vector of {np.prod(shape)} "
        f"numbers. If it is an image, {advice}",
        UserWarning,
        stacklevel=4,
    )


def _integers(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(values).flatten())


def as_dict(obs: Any) -> dict[str, Any]:
    """An observation as a dict, whatever it was."""
    return obs if isinstance(obs, dict) else {SINGLE_KEY: obs}


def space_dict(space: spaces.Space) -> dict[str, spaces.Space]:
    """The sub-spaces by key; one entry for a space that is not a Dict."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {SINGLE_KEY: space}


def outside_choices(value: np.ndarray, space: spaces.Space) -> np.ndarray:
    """Which rows ``(n, *shape)`` hold an index outside a discrete space: ``(n,)`` bool, all False for a Box."""
    if isinstance(space, spaces.Discrete):
        low, count = space.start, space.n
    elif isinstance(space, spaces.MultiDiscrete):
        low, count = space.start, space.nvec
    elif isinstance(space, spaces.MultiBinary):
        low, count = 0, 2
    else:
        return np.zeros(len(value), bool)
    outside = (value < low) | (value >= low + count) | (value != np.floor(value))
    return outside.any(tuple(range(1, outside.ndim)))


def check_action_space(space: spaces.Space) -> None:
    """Refuse an action space that is not supported.

    :raises AssertionError: as SB3 does, naming the space and what to do
    """
    for fault in action_faults(space):
        raise fault.error(str(fault))


class ActionCodec:
    """Translates actions between the environment, replay and the model.

    =============  =================================  ==========================  ===================================
    space          environment                        replay (compact)            model
    =============  =================================  ==========================  ===================================
    Box            [low, high], its dtype and shape   [-1, 1] float32, flat       [-1, 1], flat
    Discrete       start .. start + n - 1             0 .. n - 1                  one-hot of n
    MultiDiscrete  from their starts on               from 0 on, flat             one-hot blocks
    MultiBinary    0 or 1                             0 or 1, flat                one-hot blocks of 2
    =============  =================================  ==========================  ===================================

    :param space: action space
    :raises AssertionError: for other spaces and for infinite bounds
    """

    def __init__(self, space: spaces.Space):
        self.space = space
        check_action_space(space)
        self.intervals: np.ndarray | None = None  #: of a Box of integers: its steps from one bound to the other, flat
        if isinstance(space, spaces.Box):
            self.layout = ActionLayout("continuous", (int(np.prod(space.shape)),))
            self.low, self.high = (bound.astype(np.float64).reshape(1, -1) for bound in (space.low, space.high))
            if np.issubdtype(space.dtype, np.integer):
                self.intervals = self.high - self.low
        elif isinstance(space, spaces.Discrete):
            self.layout = ActionLayout("discrete", (int(space.n),))
        elif isinstance(space, spaces.MultiDiscrete):
            self.layout = ActionLayout("discrete", _integers(space.nvec))
        else:
            self.layout = ActionLayout("discrete", (2,) * int(np.prod(space.shape or ())))

    @property
    def parts(self) -> int:
        """Width of an action in replay."""
        return self.layout.size if self.layout.kind == "continuous" else len(self.layout.sizes)

    @property
    def replay_dtype(self) -> np.dtype:
        """Dtype of an action in replay."""
        return np.dtype(np.float32 if self.layout.kind == "continuous" else np.int64)

    def from_env(self, action: np.ndarray) -> np.ndarray:
        """Environment actions ``(n, *shape)`` to replay form ``(n, parts)``.

        :raises ValueError: for another shape, what is no number, NaN, infinity, or an index outside a discrete space
        """
        action, shape = np.asarray(action), self.space.shape or ()
        size = math.prod(shape)
        if action.dtype.kind not in "biuf" or not action.ndim or action.size != len(action) * size:
            wanted = f"{('n', *shape)}".replace("'", "")
            raise ValueError(
                f"the actions are an array of {action.dtype} and shape {action.shape}: pass numbers of shape {wanted} "
                f"for {self.space}"
            )
        flat = action.reshape(len(action), size)
        faulty = outside_choices(action.reshape(len(action), *shape), self.space)
        faulty |= ~np.isfinite(flat).all(1)
        if faulty.any():
            row = int(faulty.argmax())
            raise ValueError(f"action {row} is {action[row]}, which is outside {self.space}")
        if isinstance(self.space, spaces.Box):
            unit = np.maximum(1.0, np.maximum(np.abs(self.low), np.abs(self.high)))  # so that no difference overflows
            low, high = self.low / unit, self.high / unit
            span = np.where(high > low, high - low, 1.0)
            return (2.0 * (flat / unit - low) / span - 1.0).astype(np.float32)
        return flat.astype(np.int64) - self._start()

    def to_env(self, action: np.ndarray) -> np.ndarray:
        """Replay form ``(n, parts)`` to environment actions ``(n, *shape)``, within bounds; rounds integers."""
        shape, dtype = (len(action), *(self.space.shape or ())), self.space.dtype
        if isinstance(self.space, spaces.Box):
            scaled = self._scaled(action.astype(np.float64), self.low, self.high).reshape(shape)
            # A float64 bound may round to a float32 outside the space.
            return np.clip(scaled.astype(dtype), self.space.low, self.space.high)
        return (action + self._start()).reshape(shape).astype(dtype)

    def to_env_tensor(self, action: th.Tensor) -> th.Tensor:
        """The model's executed actions ``(n, A)`` to environment actions ``(n, *shape)``: :meth:`to_env` on tensors."""
        shape, dtype = (action.shape[0], *(self.space.shape or ())), getattr(th, np.dtype(self.space.dtype).name)
        action = self.from_model(action)
        if isinstance(self.space, spaces.Box):
            bounds = (th.as_tensor(bound, device=action.device) for bound in (self.low, self.high))
            scaled = self._scaled(action.double(), *bounds).reshape(shape).to(dtype)
            if self.intervals is not None:
                return scaled
            bounds = (th.as_tensor(bound, device=action.device) for bound in (self.space.low, self.space.high))
            return scaled.clip(*bounds)
        return (action + th.as_tensor(self._start(), device=action.device)).reshape(shape).to(dtype)

    def _scaled(self, action: Any, low: Any, high: Any) -> Any:
        """Box actions from [-1, 1] to their bounds, and to the nearest integer of integers; arrays or tensors."""
        share = 0.5 * (action.clip(-1.0, 1.0) + 1.0)
        scaled = (low * (1.0 - share) + high * share).clip(low, high)
        if self.intervals is None:
            return scaled
        below_overflow = np.nextafter(float(np.iinfo(self.space.dtype).max) + 1.0, 0.0)
        return scaled.round().clip(None, below_overflow)

    def _start(self) -> np.ndarray:
        """Smallest value of each part."""
        return np.asarray(getattr(self.space, "start", 0)).reshape(1, -1)

    def to_model(self, action: th.Tensor) -> th.Tensor:
        """Replay form ``(..., parts)`` to the model's ``(..., A)``."""
        if self.layout.kind == "continuous":
            return action
        return th.cat([F.one_hot(action[..., i], n) for i, n in enumerate(self.layout.sizes)], -1).float()

    def from_model(self, action: th.Tensor) -> th.Tensor:
        """The model's ``(..., A)`` to replay form ``(..., parts)``: clipped to [-1, 1], or indices."""
        if self.layout.kind == "continuous":
            return action.clamp(-1.0, 1.0)
        return th.stack([part.argmax(-1) for part in action.split(self.layout.sizes, -1)], -1)

    def executed(self, action: th.Tensor) -> th.Tensor:
        """The action that an environment executes when the model chooses ``action (..., A)``, as the model sees it.

        Box: clipped to [-1, 1], and the nearest integer of a Box of integers.
        """
        executed = self.to_model(self.from_model(action))
        if self.intervals is None:
            return executed
        half = th.as_tensor(0.5 * self.intervals[0], dtype=executed.dtype, device=executed.device)
        return th.where(half > 0, ((executed + 1.0) * half).round() / half.clamp(min=0.5) - 1.0, -1.0)

    def to_replay(self, action: th.Tensor) -> np.ndarray:
        """The model's ``(n, A)`` to an array in replay form ``(n, parts)``."""
        return self.from_model(action).cpu().numpy()
