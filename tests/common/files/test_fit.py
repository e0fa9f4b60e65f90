"""Settings that ask for more than the weights beside them are refused before memory and time are spent."""

import time

import pytest
import torch as th
from gymnasium import spaces

from sb3_dreamer.common.files.fit import only_stored
from sb3_dreamer.common.files.json_text import ModelFileError
from tests.algorithms import ALGORITHMS, tiny

try:
    import resource
except ImportError:  # Windows
    resource = None
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda cls: cls.__name__)
HOSTILE = [
    {"model_size": "S"},
    {"model_size": 5},
    {"layers": 20_000, "head_layers": 20_000},
    {"deter": 20_000},
    {"deter": 50_000},
    {"net_arch": [10**9]},
    {"net_arch": [4] * 10**5},
    {"units": 10**12},
    {"observation_space": spaces.Discrete(10**9)},
    {"observation_space": spaces.MultiBinary(10**9)},
    {"observation_space": None},
    {"action_space": spaces.Discrete(10**8)},
    {"action_space": 3},
]


@algorithms
def test_settings_beyond_the_weights_are_refused_at_once(algorithm):
    policy = tiny(algorithm, "MlpPolicy", "Pendulum-v1").policy
    settings, weights = policy._get_constructor_parameters(), policy.state_dict()
    with only_stored(weights, "f.zip"):
        type(policy)(**settings).load_state_dict(weights)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resource else 0
    for change in HOSTILE:
        start = time.process_time()
        with (
            pytest.raises(ModelFileError, match=r"f\.zip (do not fit the settings|has settings)") as caught,
            only_stored(weights, "f.zip"),
        ):
            type(policy)(**{**settings, **change})
        assert time.process_time() - start < 2 and str(caught.value).isprintable(), change
    if resource:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    th.nn.Linear(7, 9)  # outside the block nothing is refused


def test_many_parameters_of_one_stored_shape_are_refused():
    weights = {str(index): th.zeros(3, 3) for index in range(4)}
    with pytest.raises(ModelFileError, match="weight of shape"), only_stored(weights, "f.zip"):
        [th.nn.Linear(3, 3, bias=False) for _ in range(9)]
