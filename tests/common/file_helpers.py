"""Values, models and arrays that the tests of files share, and comparisons that forgive nothing."""

import collections
import dataclasses
import io
import json
import math
import struct
import zipfile

import numpy as np
import torch as th
from gymnasium import spaces
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import FloatSchedule

from sb3_dreamer.common.files.json_codec import decode, encode, register_type
from sb3_dreamer.common.files.model_file import write_model

try:
    import resource
except ImportError:  # Windows
    resource = None
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Spec:
    """A registered spec with a check of its own."""

    size: int
    widths: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size must not be negative")


register_type("tests.Spec", Spec)


def trip(value):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


def same(a, b):
    """Equality that also compares types, signs of zero and NaN, at every level."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple | collections.deque):
        lengths = len(a) == len(b) and getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
        return lengths and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


scalars = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=8) | st.just("$")
arrays = hnp.arrays(
    hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
keys = st.integers() | st.text(max_size=4) | st.tuples(st.integers(), st.text(max_size=2))
values = st.recursive(
    scalars | arrays | arrays.filter(lambda a: a.size).map(lambda a: a.reshape(-1)[0]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(collections.deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 9))
    ),
    max_leaves=12,
)

SPACES = [
    spaces.Box(0, 255, (3, 4, 4), np.uint8),
    spaces.Box(-np.inf, np.inf, (2,), np.float64),
    spaces.Box(np.array([-1, -np.inf], np.float32), np.array([0.1, 7], np.float32)),
    spaces.Box(-np.inf, 5, (2,), np.int32),
    spaces.Box(-(2**63), 2**62, (), np.int64),
    spaces.Box(0, 1, (2,), np.bool_),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([2, 5]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int32, start=np.array([[0, 1], [-2, 3]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
    spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.Tuple((spaces.MultiBinary(1), spaces.Box(-1, 1, ()))))]),
]

TENSORS = {
    "policy": {
        "w": th.randn(5, 7),
        "scalar": th.tensor(3.5, dtype=th.bfloat16),
        "empty": th.empty(0, 3, dtype=th.float16),
        "t": th.randn(3, 4).t(),
        "mask": th.tensor([True, False]),
        "ints": th.arange(3),
        "é.weight": th.ones(2, dtype=th.float64),
    },
    "model_optim": {"0.step": th.tensor(2.0), "0.exp_avg": th.randn(4)},
}
DATA = {
    "observation_space": SPACES[-1],
    "learning_rate": FloatSchedule(3e-4),
    "train_freq": TrainFreq(1, TrainFrequencyUnit.STEP),
    "ep_info_buffer": collections.deque([{"r": 1.5, "l": 3}], maxlen=100),
    "_last_obs": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "nested": [(1, 2.5, None), {"a": math.inf}],
}


def saved(path=None, **changes):
    file = io.BytesIO() if path is None else path
    write_model(file, **{"kind": "DreamerV3", "data": DATA, "tensors": TENSORS, **changes})
    return file.getvalue() if path is None else path


def assert_tensors_equal(found, expected):
    assert {name: items.keys() for name, items in found.items()} == {name: x.keys() for name, x in expected.items()}
    for name, items in expected.items():
        for key, tensor in items.items():
            assert found[name][key].dtype == tensor.dtype and th.equal(found[name][key], tensor), key


ARRAYS = {
    "obs/image": np.arange(48, dtype=np.uint8).reshape(2, 3, 8),
    "reward": np.array([1.5, np.nan, -0.0], np.float32),
    "done": np.array([True, False]),
    "step": np.arange(12).reshape(3, 4)[:, ::2],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "half": np.ones((1, 2), np.float16),
    "empty": np.zeros((0, 4), np.int32),
    "zero_d": np.array(7, np.uint64),
}

BASE = saved()


def rebuilt(changes, compress=zipfile.ZIP_STORED, base=BASE):
    """The model file with members replaced or added: valid checksums, so that the checks behind them are reached."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(base)) as old, zipfile.ZipFile(file, "w", compress, compresslevel=1) as new:
        for name in old.namelist():
            if name not in changes and name != "format.json":
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
        if "format.json" not in changes:
            members = {info.filename: [info.file_size, info.CRC] for info in new.infolist()}
            new.writestr("format.json", json.dumps(json.loads(old.read("format.json")) | {"members": members}))
    return file


def boxed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
