"""Typed JSON: every value comes back the same, and what cannot be stored is named."""

import collections
import dataclasses
import io
import json
import pathlib

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from stable_baselines3.common import noise
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_dreamer.common.files import json_text
from sb3_dreamer.common.files.json_codec import decode, encode, register_type
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import MIB, SPACES, Spec, same, trip, values


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_nesting_of_plain_values_comes_back_the_same(value):
    assert same(trip(value), value)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_come_back_exactly(space):
    back = trip(space)
    assert type(back) is type(space) and back == space and repr(back) == repr(space)
    assert back.dtype == space.dtype and back.shape == space.shape
    if isinstance(space, spaces.Box):
        assert back.low.dtype == space.low.dtype and same(back.low, space.low) and same(back.high, space.high)
        assert np.array_equal(back.bounded_below, space.bounded_below)
        assert np.array_equal(back.bounded_above, space.bounded_above)
    if isinstance(space, spaces.Dict):
        assert list(back.spaces) == ["b", "a"]
    space.seed(3), back.seed(3)
    assert str(back.sample()) == str(space.sample())


@pytest.mark.parametrize(
    "value",
    [
        pathlib.Path("logs") / "run 1",
        th.device("cuda", 1),
        TrainFreq(4, TrainFrequencyUnit.EPISODE),
        RolloutReturn(8, 1, True),
        Spec(3, (7,)),
        Spec,
        th.nn.ReLU,
        np.float32,
        np.dtype(">f4"),
        {1, 2},
        frozenset({"a"}),
        collections.OrderedDict(b=1, a=2),
    ],
    ids=repr,
)
def test_special_values_come_back_exactly(value):
    assert same(trip(value), value)


def test_schedules_and_noise_come_back_with_their_numbers_and_state():
    for schedule in (
        ConstantSchedule(3e-4),
        LinearSchedule(1.0, 0.1, 0.5),
        FloatSchedule(LinearSchedule(1.0, 0.0, 0.9)),
    ):
        back = trip(schedule)
        assert type(back) is type(schedule) and [back(x) for x in (0, 0.3, 1)] == [schedule(x) for x in (0, 0.3, 1)]
    ou = noise.OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2), theta=0.3, dt=0.1, dtype=np.float64)
    vector = noise.VectorizedActionNoise(ou, 3)
    for each in (noise.NormalActionNoise(np.zeros(2), np.ones(2)), ou, vector):
        each()
        back = trip(each)
        np.random.seed(0)
        expected = [each() for _ in range(3)]
        np.random.seed(0)
        assert same([back() for _ in range(3)], expected)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (lambda x: x, "attr['a'][1]"),
        (io.BytesIO(), "BytesIO"),
        (th.zeros(2), "Tensor"),
        (np.array([object()]), "dtype object"),
        (np.zeros(17 * MIB, np.uint8), "17 MiB"),
        (spaces.Text(4), "Text"),
        (th.nn.Conv2d, "Conv2d"),
        (TrainFreq, "attr['a'][1] holds"),
        (1 << 5000, "int"),
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_what_cannot_be_stored_is_named(value, place):
    if value is TrainFreq:
        value = dataclasses.make_dataclass("Unknown", ["x"])(1)
    with pytest.raises(NotEncodable) as caught:
        encode({"a": [0, value]}, "attr")
    assert "attr['a'][1]" in str(caught.value) and place in str(caught.value) and "\n" not in str(caught.value)


def test_cycles_and_bad_registrations_are_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(NotEncodable, match="contain itself"):
        encode(loop)
    with pytest.raises(ValueError, match="taken"):
        register_type("tests.Spec", TrainFreq)
    with pytest.raises(ValueError, match="taken"):
        register_type("deque", TrainFreq)
    with pytest.raises(ValueError, match="frozen"):
        register_type("tests.Open", dataclasses.make_dataclass("Open", ["x"]))
    with pytest.raises(ModelFileError, match="size must not be negative"):
        decode({"$": "tests.Spec", "v": {"size": -1, "widths": []}})


def test_depth_is_counted_before_parsing_and_outside_strings():
    with pytest.raises(ModelFileError, match="x is nested too deeply"):
        json_text.loads(b"[" * 300 + b"]" * 300, "x")  # Python's own parser takes this
    text = ["[" * 1000, '\\"' + "{" * 1000, [[]] * 500]
    assert json_text.loads(json.dumps(text).encode(), "x") == text
