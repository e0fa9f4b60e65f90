"""Whole files only: whatever fails, the old file stays and nothing else is left."""

import errno
import io
import os
import stat
import subprocess

import numpy as np
import pytest
import torch as th
from safetensors import SafetensorError

from sb3_dreamer.common.files import atomic
from sb3_dreamer.common.files.array_file import write_arrays
from sb3_dreamer.common.files.atomic import atomic_write

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import MIB, saved


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

    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(atomic, "open", lambda path, mode: io.BufferedWriter(Full(path, mode)), raising=False)
    monkeypatch.setattr("safetensors.numpy.serialize_file", full)
    yield tmp_path


def test_a_full_disk_leaves_the_old_file_and_nothing_else(full_disk):
    for name in ("model.zip", "buffer.pkl"):
        (full_disk / name).write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in full_disk.iterdir()}
    with pytest.raises(OSError, match="No space left"):
        saved(full_disk / "model.zip", tensors={"policy": {"w": th.randn(MIB)}})
    with pytest.raises(OSError, match="No space left"):
        write_arrays(full_disk / "buffer.pkl", {"a": np.ones((3, MIB))}, {})
    assert {path.name: path.read_bytes() for path in full_disk.iterdir()} == before
