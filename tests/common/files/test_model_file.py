"""Model files: exact round trips, versions, and refusal of what is not a model."""

import io
import os
import zipfile

import pytest
import safetensors.numpy
import safetensors.torch
import stable_baselines3 as sb3
import torch as th

from sb3_dreamer.common.files import model_file
from sb3_dreamer.common.files.array_file import read_arrays, write_arrays
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable
from sb3_dreamer.common.files.model_file import FORMAT_VERSION, read_model, write_model

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import DATA, TENSORS, assert_tensors_equal, rebuilt, same, saved


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
        assert found.kind == "DreamerV3" and "PyTorch" in found.system_info
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
    later = FORMAT_VERSION + 1
    monkeypatch.setattr(model_file, "FORMAT_VERSION", later)
    newer = saved(tmp_path / "newer.zip")
    monkeypatch.setattr(model_file, "FORMAT_VERSION", FORMAT_VERSION)
    with pytest.raises(ModelFileError, match=rf"version {later}, this release reads {FORMAT_VERSION}: pip install -U"):
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


def test_no_flipped_bit_is_read_as_another_model():
    """Every bit of the list of members at the end: a damaged length there hid members from zipfile."""
    whole = saved()
    start = whole.index(b"PK\x01\x02")
    for bit in range(8 * start, 8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            found = read_model(io.BytesIO(bytes(raw)))
        except ModelFileError as error:
            assert str(error).isprintable()
        else:
            assert_tensors_equal(found.tensors, TENSORS)
            assert list(found.data) == list(DATA)


@pytest.mark.parametrize("name", ["policy.safetensors", "model_optim.safetensors", "system_info.txt"])
def test_a_member_that_is_missing_or_another_is_refused(name):
    form = zipfile.ZipFile(io.BytesIO(saved())).read("format.json")
    for content in (None, b"other"):
        with pytest.raises(ModelFileError, match=r"lacks|has not the members that its format\.json lists"):
            read_model(rebuilt({name: content, "format.json": form}))
    with pytest.raises(ModelFileError, match="has not the members"):
        read_model(rebuilt({"carry.safetensors": safetensors.torch.save({}), "format.json": form}))


@pytest.mark.parametrize("value", [th.nan, th.inf, -th.inf])
@pytest.mark.parametrize("part", ["policy", "carry"])
def test_weights_that_are_not_finite_are_refused_by_name(value, part):
    file = io.BytesIO(saved(tensors={**TENSORS, part: {"a": th.ones(3), "b": th.tensor([1.0, value])}}))
    with pytest.raises(ModelFileError, match=f"'b' of {part} in .* holds NaN or infinity.*earlier checkpoint"):
        read_model(file)
    assert read_model(io.BytesIO(saved(tensors={**TENSORS, "metrics": {"m": th.tensor(value)}}))).tensors["metrics"]
