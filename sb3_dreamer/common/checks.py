"""Refusals of values that would poison the replay, naming where they came from."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise

from sb3_dreamer.common.spaces import SINGLE_KEY, as_dict, outside_choices, space_dict
from sb3_dreamer.suite_presets import suite_preset, warn_if_different


class Place(NamedTuple):
    """Where rows come from, for messages.

    :param row: what axis 0 counts: ``environment`` or ``row``
    :param where: ``at step 7``, ``in episode 3``
    :param whole: of which nothing is stored: ``step`` or ``episode``
    """

    row: str
    where: str
    whole: str

    @classmethod
    def step(cls, step: int) -> "Place":
        """The environments at an agent step."""
        return cls("environment", f"at step {step}", "step")

    @classmethod
    def episode(cls, index: int) -> "Place":
        """The rows of a recorded episode."""
        return cls("row", f"in episode {index}", "episode")

    def refusal(self, name: str, index: int, value: Any) -> str:
        """What is wrong with the value of a row, and that nothing was stored."""
        return f"{name} of {self.row} {index} is {value} {self.where}: nothing of this {self.whole} was stored"


def check_observation(obs: Any, space: spaces.Space, place: Place, ignore: tuple[str, ...] = ()) -> None:
    """Refuse observations that would poison replay: NaN, infinity, or values that do not fit their space.

    :param obs: batch of observations, ``(n, ...)``
    :param space: of one observation
    :param place: for the message
    :param ignore: keys of a Dict observation that are not looked at
    :raises ValueError: naming environment or row, key and place
    """
    values = as_dict(obs)
    for key, sub_space in space_dict(space).items():
        if key in ignore:
            continue
        name = "the observation" if key == SINGLE_KEY else f"observation {key!r}"
        if key not in values:
            who = "the environment's reset() and step() must return it" if place.whole == "step" else "record it"
            raise ValueError(f"{name} is missing {place.where}: {who}")
        value = np.asarray(values[key])
        _check_form(value, sub_space, name, place)
        if value.dtype.kind == "f" and (faulty := _not_float32(value)) is not None:
            index, bad = faulty
            raise ValueError(
                f"{place.refusal(name, index, bad)}. {_beyond_float32(bad)}"
                "Find the cause in the environment, or clip with gymnasium.wrappers.TransformObservation"
            )


def _not_float32(value: np.ndarray) -> tuple[int, Any] | None:
    """The first entry, with its row, that is not finite or too large for the float32 of replay."""
    with np.errstate(over="ignore"):
        faulty = ~np.isfinite(value.astype(np.float32))
    if not faulty.any():
        return None
    place = tuple(int(index) for index in np.argwhere(faulty)[0])
    return place[0], value[place]


def _beyond_float32(bad: Any) -> str:
    return "It is too large for float32. " if isinstance(bad, float | np.floating) and np.isfinite(bad) else ""


def _check_form(value: np.ndarray, space: spaces.Space, name: str, place: Place) -> None:
    """Refuse another shape, a type that would be cut, and categories that do not exist."""
    shape = space.shape or ()
    if value.shape[1:] != shape:
        advice = "return arrays of the declared shape, or declare the shape that the environment returns"
        if len(shape) == 3 and value.shape[1:] == (*shape[1:], shape[0]):
            advice = (
                "a wrapper returns the channels last, before SB3 has moved them: move them inside of it, for example "
                "VecNormalize(VecTransposeImage(venv))"
            )
        raise ValueError(
            f"{name} has shape {value.shape[1:]} {place.where}, but its space {space} has {shape}: {advice}"
        )
    if space.dtype is not None and not np.can_cast(value.dtype, space.dtype, "same_kind"):
        raise ValueError(
            f"{name} is {value.dtype} {place.where}, but its space {space} is {space.dtype}, which would cut its "
            f"values: declare the space with dtype={value.dtype}, or return {space.dtype}"
        )
    outside = outside_choices(value, space)
    if outside.any():
        index = int(np.flatnonzero(outside)[0])
        raise ValueError(place.refusal(name, index, f"{value[index]}, outside its space {space},"))


def check_reward(reward: np.ndarray, place: Place) -> None:
    """Refuse a reward that is NaN, infinite, or too large for float32.

    :param reward: ``(n,)``
    :param place: for the message
    :raises ValueError: naming environment or row, and place
    """
    if (faulty := _not_float32(np.asarray(reward))) is not None:
        index, bad = faulty
        raise ValueError(
            f"{place.refusal('the reward', index, bad)}. {_beyond_float32(bad)}"
            "Find the cause in the environment, or clip with gymnasium.wrappers.ClipReward"
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


def check_noise(noise: th.Tensor, action: th.Tensor) -> None:
    """Refuse action noise of another size than the actions ``(n, A)``."""
    if noise.numel() != action.numel():
        raise ValueError(
            f"action_noise gives {noise.numel()} numbers for {action.shape[0]} environment(s) with actions of "
            f"{action.shape[1]}: give mean and sigma the shape ({action.shape[1]},)"
        )


def noise_for(noise: ActionNoise, count: int) -> ActionNoise:
    """Action noise for so many environments, each with a process of its own."""
    if isinstance(noise, VectorizedActionNoise):
        if noise.n_envs == count:
            return noise
        noise = noise.base_noise
    return noise if count == 1 else VectorizedActionNoise(noise, count)


def reset_noise(noise: ActionNoise | None, dones: np.ndarray) -> None:
    """Begin action noise anew where an episode ended.

    :param dones: ``(n_envs,)`` bool
    """
    if isinstance(noise, VectorizedActionNoise):
        if dones.any():
            noise.reset(indices=np.flatnonzero(dones).tolist())
    elif noise is not None and dones.any():
        noise.reset()


def warn_other_preset(stored: dict[str, Any] | None, env: Any) -> None:
    """Warn if an environment is set up in another way than the one that the model was trained on.

    :param stored: preset of the training environment
    :param env: VecEnv to train or evaluate with
    """
    warn_if_different(stored, suite_preset(env), stacklevel=4)
