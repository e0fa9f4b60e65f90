"""Files of arrays: exact, in chunks, from streams and memory maps."""

import io
import json
import os
import pathlib
import sys

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dreamer.common.files.array_file import read_arrays, write_arrays
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable
from sb3_dreamer.common.files.model_file import read_model
from sb3_dreamer.common.replay.storage import DiskRows

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import ARRAYS, MIB, SPACES, arrays, boxed, rebuilt, same, values


def test_arrays_come_back_exactly(tmp_path):
    path = tmp_path / "deep" / "rl_model_replay_buffer_100_steps.pkl"
    write_arrays(path, ARRAYS, {"pos": 3, "shape": (1, 2), "space": SPACES[0]})
    found, metadata = read_arrays(path)
    assert os.listdir(path.parent) == [path.name] and metadata == {"pos": 3, "shape": (1, 2), "space": SPACES[0]}
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert same(np.array(found[name]), np.ascontiguousarray(array).reshape(array.shape)), name
        assert found[name].flags.aligned and found[name].flags.writeable
    reference = safetensors.numpy.load_file(path)
    assert all(same(reference[name], np.array(found[name])) for name in ARRAYS)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_mode_of_a_new_file_follows_the_umask(tmp_path):
    write_arrays(tmp_path / "b", {"a": np.zeros(3)}, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resets the peak of resident memory")
def test_rows_are_written_without_a_copy_and_read_once(tmp_path):
    def peak(work):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    rows = np.random.default_rng(0).integers(0, 255, (2, 96, MIB), np.uint8)
    written = peak(lambda: write_arrays(tmp_path / "b", {str(env): rows[env, :64] for env in range(2)}, {}))
    found = {}
    read = peak(lambda: found.update(read_arrays(tmp_path / "b")[0]))
    assert all(np.array_equal(found[str(env)], rows[env, :64]) for env in range(2))
    assert written < 32 and read < 128 + 32, (written, read)


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
def test_arrays_that_overlap_or_leave_gaps_are_refused(tmp_path, offsets):
    write_arrays(tmp_path / "b", {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}, {})
    raw = (tmp_path / "b").read_bytes()
    header = json.loads(raw[8:-16])
    header["a"]["data_offsets"], header["b"]["data_offsets"] = offsets[:2], offsets[2:]
    (tmp_path / "b").write_bytes(boxed(header, bytes(offsets[3])))
    with pytest.raises(ModelFileError, match="damaged or not a safetensors file"):
        read_arrays(tmp_path / "b")


def test_no_flipped_bit_is_read_as_other_arrays():
    file = io.BytesIO()
    write_arrays(file, {"reward": np.arange(5, dtype=np.float32), "done": np.array([True, False])}, {"cursor": 3})
    whole = file.getvalue()
    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ModelFileError) as caught:
            read_arrays(io.BytesIO(bytes(raw)))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("levels", [5000, 100_000])
def test_deep_lists_are_refused_wherever_json_stands(tmp_path, levels):
    deep = "[" * levels + "]" * levels
    for header in (
        deep,
        f'{{"a": {deep}}}',
        json.dumps({"__metadata__": {"format": "sb3-dreamer arrays", "version": "1", "metadata": deep}}),
    ):
        with pytest.raises(ModelFileError, match="nested too deeply"):
            read_arrays(io.BytesIO(boxed(header.encode())))
    for name in ("format.json", "data.json"):
        with pytest.raises(ModelFileError, match="nested too deeply"):
            read_model(rebuilt({name: deep.encode()}))
    with pytest.raises(ModelFileError, match="nested too deeply"):
        read_model(rebuilt({"policy.safetensors": boxed(deep.encode())}))
    (tmp_path / "journal.json").write_text(f'{{"version": {deep}}}')
    with pytest.raises(ModelFileError, match="nested too deeply"):
        DiskRows(tmp_path).read_journal()
    value = []
    for _ in range(levels):
        value = [value]
    with pytest.raises(NotEncodable, match="nested more than"):
        write_arrays(io.BytesIO(), {}, {"value": value})
