"""Files of arrays: exact, in chunks, from streams and memory maps."""

import io
import json
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dreamer.common.files.array_file import read_arrays, write_arrays
from sb3_dreamer.common.files.json_text import ModelFileError

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import ARRAYS, MIB, SPACES, arrays, boxed, same, values


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
