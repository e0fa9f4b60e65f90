"""Files of models and replay: exact round trips, whole files only, and refusal of whatever else a file may hold."""

import ast
import collections
import contextlib
import copy
import dataclasses
import errno
import io
import json
import math
import os
import pathlib
import random
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import stable_baselines3 as sb3
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stable_baselines3.common import noise
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_dreamer.common import json_codec, persistence
from sb3_dreamer.common.persistence import (
    ModelFileError,
    NotEncodable,
    atomic_write,
    decode,
    encode,
    load_optimizer,
    optimizer_to_tensors,
    read_arrays,
    read_model,
    register_type,
    write_arrays,
    write_model,
)

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


# ---- values ----------------------------------------------------------------------------------------------------------

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


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_nesting_of_plain_values_comes_back_the_same(value):
    assert same(trip(value), value)


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


# ---- model files -----------------------------------------------------------------------------------------------------

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
    assert {name: list(items) for name, items in found.items()} == {name: list(x) for name, x in expected.items()}
    for name, items in expected.items():
        for key, tensor in items.items():
            assert found[name][key].dtype == tensor.dtype and th.equal(found[name][key], tensor), key


def test_model_comes_back_whole(tmp_path):
    write_model(tmp_path / "new" / "model", kind="DreamerV3", data=DATA, tensors=TENSORS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.zip"]
    for name in ("model", "model.zip"):
        found = read_model(str(tmp_path / "new" / name), kind="DreamerV3", skip=["nested"])
        assert_tensors_equal(found.tensors, TENSORS)
        assert list(found.data) == [name for name in DATA if name != "nested"]
        assert (
            same(found.data["ep_info_buffer"], DATA["ep_info_buffer"])
            and found.data["train_freq"] == DATA["train_freq"]
        )
        assert (found.kind, found.version) == ("DreamerV3", 1) and "PyTorch" in found.system_info
    saved(tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").read_bytes() == saved() == saved()  # equal state, equal file; a suffix is kept
    with (tmp_path / "b").open("wb") as file:
        saved(file)
    with (tmp_path / "b").open("rb") as file:
        assert_tensors_equal(read_model(file).tensors, TENSORS)


def test_members_are_plain_safetensors_and_foreign_ones_load():
    full = {
        name: tensor for name, tensor in TENSORS["policy"].items() if tensor.numel()
    }  # old releases fail on empty ones
    archive = zipfile.ZipFile(io.BytesIO(saved(tensors={"policy": full})))
    found = safetensors.torch.load(archive.read("policy.safetensors"))
    assert_tensors_equal({"policy": {name: found[name] for name in full}}, {"policy": full})
    foreign = {name: tensor.contiguous() for name, tensor in full.items()}
    found = read_model(rebuilt({"policy.safetensors": safetensors.torch.save(foreign)})).tensors["policy"]
    assert_tensors_equal({"policy": {name: found[name] for name in full}}, {"policy": full})


def test_paths_that_are_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*gone' nor '.*gone\.zip'"):
        read_model(tmp_path / "gone")
    with pytest.raises(ModelFileError, match="is a folder"):
        read_model(tmp_path)
    with pytest.raises(IsADirectoryError, match="folder"):
        write_arrays(tmp_path, {}, {})
    with pytest.raises(TypeError, match="binary"):
        saved(io.StringIO())
    (tmp_path / "empty.zip").touch()
    with pytest.raises(ModelFileError, match="truncated, damaged or not a model"):
        read_model(tmp_path / "empty.zip")


def test_kind_and_version(tmp_path, monkeypatch):
    path = saved(tmp_path / "model.zip", kind="DreamerV2")
    with pytest.raises(
        ModelFileError, match=r"model\.zip holds a DreamerV2 model, not a DreamerV3: use DreamerV2\.load$"
    ):
        read_model(path, kind="DreamerV3")
    monkeypatch.setattr(persistence, "FORMAT_VERSION", 2)
    with pytest.raises(ModelFileError, match="no longer read"):
        read_model(path)
    migrate = {1: lambda data, tensors: ({**data, "added": 5}, {**tensors, "extra": {}})}
    monkeypatch.setattr(persistence, "MIGRATIONS", migrate)
    found = read_model(path)
    assert found.data["added"] == 5 and found.tensors["extra"] == {} and found.version == 1
    newer = saved(tmp_path / "newer.zip")
    monkeypatch.setattr(persistence, "FORMAT_VERSION", 1)
    with pytest.raises(ModelFileError, match=r"version 2, this release reads 1: pip install -U sb3-dreamer"):
        read_model(newer)


def test_files_of_stable_baselines3_are_refused_with_an_explanation(tmp_path):
    model = sb3.DQN("MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"net_arch": [4]}, device="cpu")
    model.save(tmp_path / "dqn")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    with pytest.raises(
        ModelFileError, match=r"dqn\.zip contains pickled data \(.*policy\.pth.*Stable-Baselines3 wrote it"
    ):
        read_model(tmp_path / "dqn")
    with pytest.raises(
        ModelFileError, match=r"buffer\.pkl contains pickled data, which can run code on load; it was not"
    ):
        read_arrays(tmp_path / "buffer.pkl")
    with pytest.raises(ModelFileError, match=r"buffer\.pkl contains pickled data"):
        read_model(tmp_path / "buffer.pkl")
    with pytest.raises(ModelFileError, match=r"'evil' in .* contains pickled data"):
        read_model(rebuilt({"data.json": b'{"evil": {":type:": "x", ":serialized:": "gASV"}}'}))


def test_names_and_values_are_checked_before_writing(tmp_path):
    path = saved(tmp_path / "model.zip")
    before = path.read_bytes()
    for bad in (
        {"data": {"callback": print}},
        {"tensors": {"../x": {}}},
        {"tensors": {"policy": {"s": th.eye(2).to_sparse()}}},
        {"tensors": {"policy": {"c": th.zeros(2, dtype=th.complex64)}}},
        {"kind": "no name"},
    ):
        with pytest.raises((NotEncodable, ValueError)):
            saved(path, **bad)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.zip"]


# ---- whole files only ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace", "body"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    (tmp_path / "f").write_bytes(b"old")

    def fail(*args):
        raise KeyboardInterrupt

    if step != "body":
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "f") as handle:
        handle.write(b"new")
        if step == "body":
            fail()
    assert (tmp_path / "f").read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX")
def test_a_link_is_followed_and_the_mode_kept(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "f")
    with atomic_write(tmp_path / "link") as handle:
        handle.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "f").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


@pytest.fixture(params=["tmpfs", "patched"])
def full_disk(request, tmp_path, monkeypatch):
    """A folder of 1 MiB: a real small file system where mounting is permitted, and a patched ``open`` anywhere."""
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a tmpfs is not permitted here; the patched variant runs")
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)
        return

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > MIB:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(persistence, "open", lambda path, mode: io.BufferedWriter(Full(path, mode)), raising=False)
    yield tmp_path


def test_a_full_disk_leaves_the_old_file_and_nothing_else(full_disk):
    saved(full_disk / "model.zip")
    write_arrays(full_disk / "buffer.pkl", {"a": np.arange(3)}, {})
    before = {path.name: path.read_bytes() for path in full_disk.iterdir()}
    with pytest.raises(OSError, match="No space left"):
        saved(full_disk / "model.zip", tensors={"policy": {"w": th.randn(MIB)}})
    with pytest.raises(OSError, match="No space left"):
        write_arrays(full_disk / "buffer.pkl", {"a": np.ones((3, MIB))}, {})
    assert {path.name: path.read_bytes() for path in full_disk.iterdir()} == before


# ---- optimizers ------------------------------------------------------------------------------------------------------


class Odd(th.optim.Optimizer):
    """State that is not a tensor, and moments in float32 for bfloat16 parameters."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})

    def step(self):
        for param in self.param_groups[0]["params"]:
            state = self.state[param]
            state["count"] = state.get("count", 0) + 1
            state["seen"] = (*state.get("seen", ()), state["count"] / 3)
            state["moment"] = state.get("moment", th.zeros(param.shape)) + param.grad.float() / 3
            param.data -= (self.param_groups[0]["lr"] * state["moment"]).to(param.dtype)


OPTIMIZERS = [
    (
        lambda params: th.optim.Adam([{"params": params[:1], "lr": 1e-2}, {"params": params[1:]}], amsgrad=True),
        th.float32,
    ),
    (lambda params: th.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True), th.float64),
    (lambda params: th.optim.AdamW(params, lr=th.tensor(0.01)), th.float32),
    (Odd, th.bfloat16),
]


@pytest.mark.parametrize(("make", "dtype"), OPTIMIZERS)
def test_an_optimizer_goes_on_exactly(make, dtype):
    def steps(module, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            sum((param**2).sum() for param in module.parameters()).backward()
            optimizer.step()

    first = th.nn.Linear(3, 4).to(dtype)
    one = make(list(first.parameters()))
    steps(first, one, 3)
    for group in one.param_groups:
        group["lr"] = group["lr"] * 0.5
    tensors, extra = optimizer_to_tensors(one)
    assert all(isinstance(tensor, th.Tensor) for tensor in tensors.values())
    file = read_model(io.BytesIO(saved(data={"o": extra}, tensors={"optim": tensors, "policy": first.state_dict()})))
    second = th.nn.Linear(3, 4).to(dtype)
    second.load_state_dict(file.tensors["policy"])
    two = make(list(second.parameters()))
    load_optimizer(two, file.tensors["optim"], file.data["o"])
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert one.state[left].keys() == two.state[right].keys()
        for key, value in one.state[left].items():
            other = two.state[right][key]
            exact = isinstance(value, th.Tensor) and value.dtype == other.dtype and th.equal(value, other)
            assert exact or same(value, other), key
    steps(first, one, 3), steps(second, two, 3)
    assert all(th.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(th.equal(tensor, file.tensors["optim"][key]) for key, tensor in optimizer_to_tensors(two)[0].items()
                   if key.endswith(("exp_avg", "momentum_buffer", "moment")))  # fmt: skip


def test_an_optimizer_of_other_parameters_is_refused():
    tensors, extra = optimizer_to_tensors(th.optim.Adam(th.nn.Linear(3, 4).parameters()))
    other = th.optim.Adam(th.nn.Linear(3, 5).parameters())
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ModelFileError, match="other parameters"):
        load_optimizer(other, tensors, extra)
    with pytest.raises(ModelFileError, match="not of SGD"):
        load_optimizer(th.optim.SGD(th.nn.Linear(3, 4).parameters()), tensors, extra)
    fitting = th.optim.Adam(th.nn.Linear(3, 4).parameters())
    for broken in (None, [], {**extra, "state": 3}, {**extra, "param_groups": []}, {**extra, "state": {"7": {}}}):
        with pytest.raises(ModelFileError):
            load_optimizer(fitting, tensors, broken)
    for key in ("9.exp_avg", "x", "group.4.lr"):
        with pytest.raises(ModelFileError):
            load_optimizer(fitting, {key: th.zeros(1)}, extra)
    assert other.state_dict() == before


# ---- replay files ----------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("mmap", [False, True])
def test_arrays_come_back_exactly(tmp_path, mmap):
    path = tmp_path / "deep" / "rl_model_replay_buffer_100_steps.pkl"
    write_arrays(path, ARRAYS, {"pos": 3, "shape": (1, 2), "space": SPACES[0]})
    found, metadata = read_arrays(path, mmap=mmap)
    assert os.listdir(path.parent) == [path.name] and metadata == {"pos": 3, "shape": (1, 2), "space": SPACES[0]}
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert same(np.array(found[name]), np.ascontiguousarray(array).reshape(array.shape)), name
        assert isinstance(found[name], np.memmap) == (mmap and array.size > 0) and found[name].flags.aligned
    reference = safetensors.numpy.load_file(path)
    assert all(same(reference[name], np.array(found[name])) for name in ARRAYS)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5).filter(lambda s: s != "__metadata__"), arrays, max_size=4), values)
def test_any_arrays_come_back_from_a_stream(named, extra):
    named = {name: array for name, array in named.items() if array.dtype.kind != "c"}
    file = io.BytesIO(b"before")
    file.seek(6)
    write_arrays(file, named, {"extra": extra})
    file.seek(6)
    found, metadata = read_arrays(file)
    assert same(metadata, {"extra": extra}) and found.keys() == named.keys()
    assert all(same(found[name], array.astype(array.dtype.newbyteorder("="))) for name, array in named.items())


def test_arrays_stream_without_a_second_copy(tmp_path):
    big = np.random.default_rng(0).integers(0, 255, (64, MIB), np.uint8)
    for array in (big, big[:, ::2], big.view(">u4")):
        tracemalloc.start()
        try:
            write_arrays(tmp_path / "b", {"big": array}, {})
            written = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            found, _ = read_arrays(tmp_path / "b")
            read = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert np.array_equal(found["big"], array)
        assert written < 12 * MIB and read < array.nbytes + 12 * MIB, (written / MIB, read / MIB)


# ---- files of unknown origin -----------------------------------------------------------------------------------------

BASE = saved()


def rebuilt(changes, compress=zipfile.ZIP_STORED, base=BASE):
    """The model file with members replaced or added: valid checksums, so that the checks behind them are reached."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(base)) as old, zipfile.ZipFile(file, "w", compress) as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return file


def boxed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def run_code(path):
    """A pickle of protocol 2 that makes a folder when it is loaded."""
    name = str(path).encode()
    return b"\x80\x02cposix\nmkdir\nX" + struct.pack("<I", len(name)) + name + b"\x85R."


NASTY = [
    *(None, True, -1, 2**63, 2**70, 1e308, "", "a" * 5000, [], {}, [[]], "<f8", "|O", {"$": "Box"}, {"$": 1, "v": 2}),
    {"$": "deque", "v": [[1], -5]},
    {"$": "ndarray", "v": ["<f8", [2**40, 0], ""]},
    {"$": "ndarray", "v": ["<f8", [2**40], ""]},
    {"$": "device", "v": "x"},
    {"$": "MultiBinary", "v": 10**12},
    {"$": "Discrete", "v": [0, 0, 0]},
    {"$": "VectorizedActionNoise", "v": [None, 10**9]},
    {"$": "class", "v": "os.system"},
    {"$": "dict", "v": [[[], 1]]},
    {"$": "dict", "v": [[1]]},
    {"$": "FloatSchedule", "v": "x"},
    {":serialized:": "gASV"},
]


def mutate(rng, tree):
    """Replace, remove or move one random node of a JSON tree."""
    tree = copy.deepcopy(tree)
    nodes = [(None, None)]
    queue = [tree]
    for node in queue:
        for key in node if isinstance(node, dict) else range(len(node)):
            nodes.append((node, key))
            if isinstance(node[key], dict | list):
                queue.append(node[key])
    holder, key = rng.choice(nodes)
    if holder is None:
        return rng.choice(NASTY)
    holder[key] = rng.choice([*NASTY, holder, copy.deepcopy(tree)]) if rng.random() < 0.9 else tree
    try:
        json.dumps(tree)
    except ValueError:  # it holds itself
        holder[key] = {"$": "tuple", "v": {}}
    return tree


def flipped(rng, raw):
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 8])):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def cut(rng, raw):
    at = rng.randrange(len(raw))
    return rng.choice(
        [raw[:at], raw[at:], raw[:at] + raw[at + 1 :], raw + b"x", raw[:at] + rng.randbytes(9) + raw[at:]]
    )


NAMES = "../x.safetensors /etc/x.safetensors a/b.safetensors c:\\x.safetensors x/ x.sh .. a..safetensors é.safetensors"
NAMES = [*NAMES.split(), "more.safetensors_.txt", "-.safetensors", "__init__.py", "format.json ", "\n.safetensors"]


def hostile_names(rng, _):
    form = rng.choice(["name", "name", "link", "twice"])
    if form == "name":  # the underscore becomes a zero byte, at which zipfile cuts the name
        return rebuilt({rng.choice(NAMES): boxed({})}).getvalue().replace(b"safetensors_", b"safetensors\0")
    file, info = rebuilt({}), zipfile.ZipInfo("link.safetensors")
    info.external_attr = rng.choice([(stat.S_IFLNK | 0o777) << 16, stat.S_IFIFO << 16, 0x10])
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        twice = rng.choice(archive.namelist())
        archive.writestr(*((info, boxed({})) if form == "link" else (twice, archive.read(twice))))
    return file.getvalue()


def hostile_tensors(rng, _):
    good = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    entry = good["a"]
    field = rng.choice(["dtype", "shape", "data_offsets"])
    wrong = {
        "dtype": ["F64", "F4", "object", None, 3, "O", [], "BOOL", "U8"],
        "shape": [[3], [-2], [2**62, 0], [2**40, 2**40], 2, None, [[2]], [2.0], [1] * 99, [True, 2], [2**60], "2"],
        "data_offsets": [[0, 2**62], [8, 0], [-8, 0], [4, 12], [0], [0, 4], "08", None, [0, 8, 8], [0.0, 8]],
    }
    bad = boxed({"a": {**entry, field: rng.choice(wrong[field])}}, bytes(8))
    other = [
        struct.pack("<Q", rng.choice([2**63, 2**64 - 1, 2**32, 10**9, 0, 1, 200])) + b"{}",
        boxed({"a": entry, "b": entry}, bytes(16)),
        boxed({**good, "b": {**entry, "data_offsets": [12, 20]}}, bytes(20)),
        boxed({"a": {**entry, "dtype": "BOOL", "shape": [8]}}, b"\2" * 8),
        boxed(b'{"a": 1, "a": 1}'),
        boxed(b"[" * 100_000),
        boxed(good, bytes(7)),
        boxed(good, bytes(9)),
        boxed({"__metadata__": 3}),
        b"",
    ]
    content = bad if rng.random() < 0.6 else rng.choice(other)
    return rebuilt({"policy.safetensors": content}).getvalue() if rng.random() < 0.6 else content


def planted(rng, path):
    payload, choice = run_code(path / "pwned"), rng.random()
    if choice < 0.3:
        return rebuilt({rng.choice(["policy.pth", "data.pkl", "x.pt", "archive/data.PKL"]): payload}).getvalue()
    if choice < 0.7:
        return rebuilt(
            {rng.choice(["policy.safetensors", "data.json", "format.json", "more.safetensors"]): payload}
        ).getvalue()
    return b"\x80" + bytes([rng.choice([2, 3, 4, 5])]) + payload[2:] + rng.randbytes(rng.randrange(20))


def bombs(rng, _):
    member = rng.choice(["policy.safetensors", "data.json", "format.json", "system_info.txt", "big.safetensors"])
    size = rng.choice([20 * MIB, 65 * MIB])
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    content = boxed(header, bytes(size)) if "safe" in member else b"[" + b"[]," * (size // 3) + b"1]"
    raw = bytearray(rebuilt({member: content}, zipfile.ZIP_DEFLATED).getvalue())
    if rng.random() < 0.5:  # a central directory that understates the size
        at = raw.rindex(b"PK\x01\x02")
        raw[at + 24 : at + 28] = struct.pack("<I", rng.choice([2, 1000]))
    return bytes(raw)


def deep(rng, _):
    levels = rng.choice([300, 1000, 10_000, 100_000, 1_000_000])
    form = rng.choice(["[%s]", '{"a":%s}', '{"$":"tuple","v":[%s]}', '["\\"",%s]'])
    left, right = form.split("%s")
    return rebuilt(
        {rng.choice(["data.json", "format.json"]): (left * levels + "1" + right * levels).encode()}
    ).getvalue()


def wide(rng, _):
    return rebuilt({"data.json": b'{"a":[' + b"{}," * 499_000 + b"1]}"}, zipfile.ZIP_DEFLATED).getvalue()


def json_model(rng, _):
    name = rng.choice(["data.json", "data.json", "data.json", "format.json"])
    return rebuilt({name: json.dumps(mutate(rng, TREES[name])).encode()}).getvalue()


def json_arrays(rng, _):
    length = struct.unpack("<Q", ARRAY_BASE[:8])[0]
    header = json.loads(ARRAY_BASE[8 : 8 + length])
    if rng.random() < 0.5:
        return boxed(mutate(rng, header), ARRAY_BASE[8 + length :])
    header["__metadata__"]["metadata"] = json.dumps(mutate(rng, json.loads(header["__metadata__"]["metadata"])))
    return boxed(header, ARRAY_BASE[8 + length :])


with zipfile.ZipFile(io.BytesIO(BASE)) as _archive:
    TREES = {_name: json.loads(_archive.read(_name)) for _name in ("data.json", "format.json")}
_file = io.BytesIO()
write_arrays(_file, ARRAYS, {"pos": 3, "space": SPACES[-1], "seen": collections.deque([1, 2], 5)})
ARRAY_BASE = _file.getvalue()
CASES = [  # how many, what, and whether every one of them must be refused
    (449, lambda rng, _: flipped(rng, BASE), False),
    (1, wide, False),
    (250, lambda rng, _: cut(rng, BASE), False),
    (250, lambda rng, _: flipped(rng, ARRAY_BASE), False),
    (150, lambda rng, _: cut(rng, ARRAY_BASE), False),
    (322, json_model, False),
    (150, json_arrays, False),
    (200, hostile_tensors, True),
    (90, hostile_names, True),
    (100, planted, True),
    (14, bombs, True),
    (24, deep, True),
]
UNPICKLED = []
sys.addaudithook(lambda event, args: UNPICKLED.append(args) if event == "pickle.find_class" else None)


def peak_kib():
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        if resource
        else 0
    )


def test_2000_hostile_files_load_or_are_refused_in_bounded_time_and_memory(tmp_path):
    rng, slowest, largest, loaded, count, unpickled = random.Random(0), 0.0, 0, 0, 0, len(UNPICKLED)
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from the present size
    resident = peak_kib()
    for number, make, refused in CASES:
        for _ in range(number):
            raw = make(rng, tmp_path)
            is_zip = raw[:2] == b"PK" if rng.random() < 0.95 else rng.random() < 0.5
            path = tmp_path / "f.zip"
            path.write_bytes(raw)
            start, message = time.perf_counter(), None
            try:
                found = read_model(path) if is_zip else read_arrays(path)
            except ModelFileError as error:
                message = str(error)
            slowest = max(slowest, time.perf_counter() - start)
            if number <= 200:  # again with tracing, which is too slow for all
                tracemalloc.start()
                with contextlib.suppress(ModelFileError):
                    read_model(path) if is_zip else read_arrays(path)
                largest = max(largest, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
            count += 1
            if message is None:
                loaded += 1
                assert not refused, (make.__name__, raw[:200])
                if is_zip and make not in (json_model, wide):  # the checksums hold: what loads is the true model
                    assert_tensors_equal(found.tensors, TENSORS)
            else:
                assert str(path) in message and message.isprintable() and len(message) < 700, message
                assert make is not planted or "pickled data" in message or (raw[:2] == b"PK" and not is_zip), message
    assert count == 2000 and os.listdir(tmp_path) == ["f.zip"] and len(UNPICKLED) == unpickled
    resident = peak_kib() - resident
    print(
        f"{loaded} loaded, slowest {slowest:.2f} s, peak {largest / MIB:.0f} MiB, resident +{resident / 1024:.0f} MiB"
    )
    assert slowest < 5 and largest < 128 * MIB and resident < 256 * 1024


def test_a_header_length_that_looks_like_a_pickle_is_read():
    for size in range(400, 640):
        file = io.BytesIO()
        write_arrays(file, {"a": np.arange(3)}, {"text": "x" * size})
        if file.getvalue().startswith(b"\x80\x02"):
            file.seek(0)
            assert read_arrays(file)[1] == {"text": "x" * size}
            return
    pytest.fail("no header of 640 bytes was written")


@pytest.mark.parametrize("offsets", [(0, 8, 4, 12), (0, 8, 12, 20), (4, 12, 12, 20)])
@pytest.mark.parametrize("mmap", [False, True])
def test_arrays_that_overlap_or_leave_gaps_are_refused(tmp_path, offsets, mmap):
    write_arrays(tmp_path / "b", {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}, {})
    raw = (tmp_path / "b").read_bytes()
    header = json.loads(raw[8:-16])
    header["a"]["data_offsets"], header["b"]["data_offsets"] = offsets[:2], offsets[2:]
    (tmp_path / "b").write_bytes(boxed(header, bytes(offsets[3])))
    with pytest.raises(ModelFileError, match="gap or an overlap"):
        read_arrays(tmp_path / "b", mmap=mmap)


def test_depth_is_counted_before_parsing_and_outside_strings():
    with pytest.raises(ModelFileError, match="x is nested too deeply"):
        json_codec.loads(b"[" * 300 + b"]" * 300, "x")  # Python's own parser takes this
    text = ["[" * 1000, '\\"' + "{" * 1000, [[]] * 500]
    assert json_codec.loads(json.dumps(text).encode(), "x") == text


def test_the_modules_name_nothing_that_runs_code_from_files():
    banned = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "importlib.import_module", "runpy"}
    calls = {"eval", "exec", "compile", "__import__", "import_module"}
    for module in (persistence, json_codec):
        for node in ast.walk(ast.parse(pathlib.Path(module.__file__).read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & banned, names
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                owner = getattr(getattr(node.func, "value", None), "id", "")
                assert name not in calls or owner == "re", name
                assert not (name == "load" and owner in ("th", "torch", "np", "numpy")), name
