"""What the zip of a model file may hold: refusals by name, size and kind before any member is read."""

import contextlib
import re
import stat
import struct
import zipfile
import zlib

from sb3_dreamer.common.files.json_text import MAX_JSON_BYTES, ModelFileError, one_line
from sb3_dreamer.common.files.tensors import FROM_SOURCE, is_pickle

_MAX_MEMBERS = 1000
FIXED_MEMBERS = ("format.json", "data.json", "system_info.txt")
TENSOR_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(\.[A-Za-z0-9_-]{1,100}){0,4}\.safetensors")
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".joblib", ".npy")
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA would reserve what memory the file says
DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
)


def check_members(archive: zipfile.ZipFile, limit: int, what: str) -> list[str]:
    """Refuse what ``write_model`` never writes; give the names of the tensor members."""
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise ModelFileError(f"{what} has {len(members)} members, a model file at most {_MAX_MEMBERS}: {FROM_SOURCE}")
    _refuse_pickles(archive, what)
    names = [info.orig_filename for info in members]
    for info in members:
        name, shown = info.orig_filename, one_line(info.orig_filename)
        if name not in FIXED_MEMBERS and not TENSOR_MEMBER.fullmatch(name):
            raise ModelFileError(
                f"{what} has a member '{shown}' that no model file has; it was not loaded: {FROM_SOURCE}"
            )
        if names.count(name) > 1 or info.filename != name:
            raise ModelFileError(f"{what} has the member '{shown}' more than once: {FROM_SOURCE}")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or info.external_attr & 0x10:
            raise ModelFileError(f"the member '{shown}' of {what} is a link or a folder: {FROM_SOURCE}")
        if info.flag_bits & 0x61 or info.compress_type not in _PACKINGS:
            raise ModelFileError(
                f"the member '{shown}' of {what} is encrypted or packed in an unknown way: {FROM_SOURCE}"
            )
        if name in FIXED_MEMBERS and info.file_size > MAX_JSON_BYTES:
            raise ModelFileError(f"the member '{shown}' of {what} has more than 64 MiB: {FROM_SOURCE}")
    total = sum(info.file_size for info in members)
    if total > limit:
        raise ModelFileError(
            f"{what} would unpack to {total / 2**20:.0f} MiB, above the limit of {limit / 2**20:.0f} MiB: "
            "if you trust its source, pass a higher max_bytes"
        )
    missing = [name for name in FIXED_MEMBERS if name not in names]
    if missing:
        raise ModelFileError(f"{what} lacks {', '.join(missing)}, so sb3-dreamer did not write it: {FROM_SOURCE}")
    return [name for name in names if name not in FIXED_MEMBERS]


def _refuse_pickles(archive: zipfile.ZipFile, what: str) -> None:
    found = []
    for info in archive.infolist():
        suspect = info.orig_filename.lower().endswith(_PICKLE_SUFFIXES)
        if not suspect and not info.flag_bits & 1 and info.compress_type in _PACKINGS:
            with contextlib.suppress(*DAMAGE), archive.open(info) as stream:
                suspect = is_pickle(stream.read(9))
        if suspect:
            found.append(one_line(info.orig_filename))
    names = set(archive.namelist())
    if not found and not {"data", "_stable_baselines3_version"} <= names:
        return
    shown = ", ".join(found[:8]) or "data"
    text = f"{what} contains pickled data ({shown}), which can run code on load; it was not loaded. "
    if "_stable_baselines3_version" in names:
        text += (
            "Stable-Baselines3 wrote it: load it there with the class that saved it, or train a model with sb3-dreamer"
        )
    else:
        text += "Get the model as sb3-dreamer saves it; whatever wrote this file is not sb3-dreamer"
    raise ModelFileError(text)
