"""One list of refused spaces: the checker and the algorithms agree on every space, and each refusal says what to do."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_dreamer import DreamerV3
from sb3_dreamer.supported_spaces import action_faults, image_size, observation_faults
from sb3_dreamer.wrappers import check_dreamer_env


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-1, 1, shape, np.float32)


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


OBSERVATIONS = {
    "nested": spaces.Dict(a=spaces.Dict(b=box(2))),
    "one of": spaces.OneOf([spaces.Discrete(2), box(2)]),
    "tuple": spaces.Tuple([box(2)]),
    "text": spaces.Text(4),
    "small image": image(8, 8, 3),
    "large image": image(3, 600, 600),
    "narrow image": image(64, 2, 3),
    "small image in a dict": spaces.Dict(a=image(8, 8, 3), b=box(2)),
    "no key": spaces.Dict(),
    "image": image(64, 64, 3),
    "smallest image": image(1, 16, 16),
    "grid": spaces.Box(0, 5, (8, 8, 3), np.uint8),
    "uint8 table": image(8, 8),
    "scalar": box(),
    "table": box(4, 4),
    "negative start": spaces.Discrete(3, start=-1),
    "bits": spaces.MultiBinary((2, 2)),
    "counts": spaces.MultiDiscrete([2, 3]),
    "dict": spaces.Dict(a=image(16, 16, 1), b=box(2), c=spaces.Discrete(3)),
}
#: fail later than at construction as long as the algorithms do not ask for this list
LATE = {
    "empty": box(0),
    "empty in a dict": spaces.Dict(a=box(0), b=box(2)),
}
ACTIONS = {
    "dict": spaces.Dict(a=spaces.Discrete(2)),
    "tuple": spaces.Tuple([spaces.Discrete(2)]),
    "one of": spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
    "unbounded": spaces.Box(-np.inf, 1, (2,)),
    "bits 2-D": spaces.MultiBinary((2, 2)),
    "bits": spaces.MultiBinary(3),
    "counts 2-D": spaces.MultiDiscrete([[2, 3], [2, 2]]),
    "box 2-D": box(2, 2),
    "scalar": box(),
    "start": spaces.Discrete(3, start=5),
}


class Sampled(gym.Env):
    """Any spaces; observations are samples."""

    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def accepted_by_the_algorithm(env: gym.Env) -> bool:
    if isinstance(env.observation_space, spaces.Dict):
        policy = "MultiInputPolicy"
    else:
        policy = "CnnPolicy" if image_size(env.observation_space) else "MlpPolicy"
    try:
        DreamerV3(policy, env, model_size="debug", buffer_size=200, device="cpu")
    except (ValueError, AssertionError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_are_accepted_by_both_or_none(name) -> None:
    env = Sampled(OBSERVATIONS[name], spaces.Discrete(2))
    assert check_dreamer_env(env, steps=3).ok == accepted_by_the_algorithm(env)


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_are_accepted_by_both_or_none(name) -> None:
    env = Sampled(box(3), ACTIONS[name])
    assert check_dreamer_env(env, steps=3).ok == accepted_by_the_algorithm(env)


@pytest.mark.parametrize("name", LATE)
def test_what_fails_in_training_is_refused(name) -> None:
    assert observation_faults(LATE[name])


def test_messages_name_the_key_and_the_kind_of_error() -> None:
    nested, small = observation_faults(spaces.Dict(a=spaces.Dict(b=box(2)), cam=image(8, 8, 3), ok=box(1)))
    assert nested.error is NotImplementedError and "observation 'a'" in str(nested) and "flatten" in str(nested)
    assert small.error is ValueError and "'cam' is an image of 8x8 pixels" in str(small) and "64" in small.advice
    (unbounded,) = action_faults(spaces.Box(0, np.inf, (1,)))
    assert unbounded.error is AssertionError and "must have a finite lower and upper bound" in str(unbounded)


def test_ignored_keys_may_hold_anything() -> None:
    space = spaces.Dict(words=spaces.Text(4), a=box(2))
    assert not observation_faults(space, ignore=["words"])
    assert "ignore_keys" in str(observation_faults(space, ignore=["words", "a"])[0])


def test_image_size_is_that_of_stable_baselines3() -> None:
    from stable_baselines3.common.preprocessing import is_image_space

    for space in [*OBSERVATIONS.values(), *LATE.values()]:
        assert (image_size(space) is not None) == is_image_space(space)
    assert image_size(image(64, 48, 3)) == image_size(image(3, 64, 48)) == (64, 48)
