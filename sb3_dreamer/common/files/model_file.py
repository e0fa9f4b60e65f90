"""Model files: a zip of uncompressed members that are JSON and safetensors, checked before anything is read.

Members: ``data.json``, ``system_info.txt``, ``<name>.safetensors``, and ``format.json``, which lists size and CRC-32 of
the others: none can be lost or changed without a word. Nothing here can run code from a file: a file that holds a
pickle is refused by name.
"""

import contextlib
import os
import pathlib
import re
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Mapping
from importlib import metadata as package_metadata
from typing import IO, Any, NamedTuple

import torch as th
from stable_baselines3.common.utils import get_device, get_system_info

from sb3_dreamer.common.files.atomic import PathOrFile, atomic_write, open_to_read
from sb3_dreamer.common.files.json_codec import decode, encode
from sb3_dreamer.common.files.json_text import MAX_JSON_BYTES, ModelFileError, dumps, loads, one_line
from sb3_dreamer.common.files.tensors import FROM_SOURCE, is_pickle, tensors_from_bytes, tensors_to_bytes

FORMAT_VERSION = 2  #: 1 had no list of members
FINITE = ("policy", "carry")  #: names of tensors that must hold neither NaN nor infinity
_SLACK = 16 * 2**20  # what a file may unpack to beyond four times its own size
_MAX_MEMBERS = 1000
_FIXED_MEMBERS = ("format.json", "data.json", "system_info.txt")
_TENSOR_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(\.[A-Za-z0-9_-]{1,100}){0,4}\.safetensors")
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".joblib", ".npy")
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA would reserve what memory the file says
_DAMAGE = (
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


class ModelFile(NamedTuple):
    """
    Contents of a model file.

    ``data`` holds the decoded attributes without the skipped ones, ``tensors`` one dict of tensors for each name given
    to ``write_model``, ``system_info`` the writer's machine in words.
    """

    kind: str
    data: dict[str, Any]
    tensors: dict[str, dict[str, th.Tensor]]
    system_info: str


def write_model(
    path: PathOrFile,
    *,
    kind: str,
    data: Mapping[str, object],
    tensors: Mapping[str, Mapping[str, th.Tensor]],
    verbose: int = 0,
) -> None:
    """
    Write a model file, atomically.

    :param path: file name, to which ``.zip`` is added when it has no suffix (as SB3 does), or a binary file
    :param kind: class name, such as ``"DreamerV3"``
    :param data: attributes; see ``encode`` for what they may hold
    :param tensors: for each name, such as ``"policy"`` or ``"model_optim"``, a dict of dense tensors
    :param verbose: 2 warns when a file is replaced
    :raises NotEncodable: naming the attribute or tensor; the file stays as it was
    """
    if not kind.isidentifier():
        raise ValueError(f"kind={kind!r} is not a class name: give one such as 'DreamerV3'")
    versions = {}
    for name in ("sb3-dreamer", "torch", "stable-baselines3", "gymnasium", "numpy"):
        with contextlib.suppress(package_metadata.PackageNotFoundError):  # run from a source tree
            versions[name] = package_metadata.version(name)
    form = {"format": "sb3-dreamer model", "version": FORMAT_VERSION, "kind": kind, "libraries": versions}
    encoded = {name: encode(value, name) for name, value in data.items()}
    members = {
        "data.json": dumps(encoded, "the attributes"),
        "system_info.txt": get_system_info(print_info=False)[1].encode(),
    }
    for name in tensors:
        if not _TENSOR_MEMBER.fullmatch(f"{name}.safetensors"):
            raise ValueError(
                f"{name!r} is not a name for tensors: use letters, digits, '_' and '.', as in 'model_optim'"
            )
    if isinstance(path, str | os.PathLike):
        path = pathlib.Path(path)
        path = path.with_name(path.name + ".zip") if path.name and not path.suffix else path
        if verbose >= 2 and path.exists():
            warnings.warn(f"'{path}' exists and is replaced", stacklevel=2)
    with atomic_write(path) as handle, zipfile.ZipFile(handle, "w") as archive:
        for member, content in members.items():
            archive.writestr(_member(member), content)
        for name, items in tensors.items():
            archive.writestr(_member(f"{name}.safetensors"), tensors_to_bytes(items))
        archive.writestr(_member("format.json"), dumps(form | {"members": _members(archive)}, "format.json"))


def _members(archive: zipfile.ZipFile) -> dict[str, list[int]]:
    return {info.filename: [info.file_size, info.CRC] for info in archive.infolist() if info.filename != "format.json"}


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # a fixed date: equal models give equal files
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def read_model(
    path: PathOrFile,
    *,
    kind: str | None = None,
    device: th.device | str = "cpu",
    skip: Collection[str] = (),
) -> ModelFile:
    """
    Read a model file after checking it; a file of unknown origin can at worst be refused.

    :param path: file name, with or without ``.zip``, or a binary file
    :param kind: class name that the file must hold; None takes any
    :param device: where the tensors go, ``"auto"`` as in SB3
    :param skip: names of data entries that are not decoded (those that ``custom_objects`` replaces)
    :raises FileNotFoundError: naming the names tried
    :raises ModelFileError: when the file is damaged, hostile, of another kind or of a newer version
    """
    target = get_device(device)
    with open_to_read(path, ".zip") as (handle, what):
        try:
            handle.seek(0)
            if is_pickle(handle.read(9)):
                raise ModelFileError(
                    f"{what} contains pickled data, which can run code on load; it was not loaded. "
                    "Get the model as sb3-dreamer saves it; whatever wrote this file is not sb3-dreamer"
                )
            with zipfile.ZipFile(handle) as archive:
                size = handle.seek(0, os.SEEK_END)
                _check_directory(handle, len(archive.infolist()), what)
                names = _check_members(archive, 4 * size + _SLACK, what)
                form = loads(_read_member(archive, "format.json"), f"format.json in {what}")
                found, version = _check_format(form, kind, what)
                if version > 1 and form.get("members") != _members(archive):
                    raise ModelFileError(f"{what} has not the members that its format.json lists: {FROM_SOURCE}")
                raw = loads(_read_member(archive, "data.json"), f"data.json in {what}")
                info = _read_member(archive, "system_info.txt").decode("utf-8", "replace")
                tensors = {
                    name.removesuffix(".safetensors"): tensors_from_bytes(
                        _read_member(archive, name), f"{name} in {what}"
                    )
                    for name in names
                }
        except ModelFileError:
            raise
        except _DAMAGE as error:
            reason = one_line(error) or type(error).__name__
            raise ModelFileError(
                f"{what} is truncated, damaged or not a model file ({reason}): {FROM_SOURCE}"
            ) from error
    if not isinstance(raw, dict):
        raise ModelFileError(f"data.json in {what} is not a table of attributes: {FROM_SOURCE}")
    data = {name: _decode_entry(name, value, what) for name, value in raw.items() if name not in skip}
    for name in FINITE:
        _check_finite(tensors.get(name, {}), f"{name} in {what}")
    moved = {name: {key: tensor.to(target) for key, tensor in items.items()} for name, items in tensors.items()}
    return ModelFile(found, data, moved, info)


def _check_directory(handle: IO[bytes], members: int, what: str) -> None:
    """Compare with the count at the end of a zip: an entry of damaged length swallows those behind it."""
    handle.seek(-22, os.SEEK_END)
    end = handle.read(22)
    if end[:4] != b"PK\5\6" or struct.unpack_from("<H", end, 10)[0] != members:
        raise ModelFileError(f"{what} is truncated or damaged: its list of members does not end as it should")


def _check_finite(tensors: Mapping[str, th.Tensor], what: str) -> None:
    for name, tensor in tensors.items():
        if not th.isfinite(tensor).all():
            raise ModelFileError(
                f"'{one_line(name)}' of {what} holds NaN or infinity, so training had failed when it was saved: "
                "use an earlier checkpoint"
            )


def _decode_entry(name: str, value: Any, what: str) -> Any:
    shown = one_line(name)
    try:
        return decode(value, f"'{shown}' in {what}")
    except ModelFileError as error:
        raise ModelFileError(
            f"{error}; load(..., custom_objects={{'{shown}': ...}}) puts another value there"
        ) from error


def _check_format(form: Any, kind: str | None, what: str) -> tuple[str, int]:
    known = isinstance(form, dict) and form.get("format") == "sb3-dreamer model"
    version, found = (form.get("version"), form.get("kind")) if known else (None, None)
    if type(version) is not int or version < 1 or not isinstance(found, str) or not found.isidentifier():
        raise ModelFileError(f"{what} is not a model of sb3-dreamer: {FROM_SOURCE}")
    if kind is not None and found != kind:
        found = one_line(found)
        raise ModelFileError(f"{what} holds a {found} model, not a {kind}: use {found}.load")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{what} has format version {version}, this release reads {FORMAT_VERSION}: pip install -U sb3-dreamer"
        )
    return found, version


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as stream:  # archive.read() would unpack all before it looks at the size it was told
        return stream.read(archive.getinfo(name).file_size + 1)  # reading to the end also compares the checksum


def _check_members(archive: zipfile.ZipFile, limit: int, what: str) -> list[str]:
    """Refuse what ``write_model`` never writes; give the names of the tensor members."""
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise ModelFileError(f"{what} has {len(members)} members, a model file at most {_MAX_MEMBERS}: {FROM_SOURCE}")
    _refuse_pickles(archive, what)
    names = [info.orig_filename for info in members]
    for info in members:
        name, shown = info.orig_filename, one_line(info.orig_filename)
        if name not in _FIXED_MEMBERS and not _TENSOR_MEMBER.fullmatch(name):
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
        if name in _FIXED_MEMBERS and info.file_size > MAX_JSON_BYTES:
            raise ModelFileError(f"the member '{shown}' of {what} has more than 64 MiB: {FROM_SOURCE}")
    total = sum(info.file_size for info in members)
    if total > limit:
        raise ModelFileError(
            f"{what} would unpack to {total / 2**20:.0f} MiB, above the limit of {limit / 2**20:.0f} MiB: {FROM_SOURCE}"
        )
    missing = [name for name in _FIXED_MEMBERS if name not in names]
    if missing:
        raise ModelFileError(f"{what} lacks {', '.join(missing)}, so sb3-dreamer did not write it: {FROM_SOURCE}")
    return [name for name in names if name not in _FIXED_MEMBERS]


def _refuse_pickles(archive: zipfile.ZipFile, what: str) -> None:
    found = []
    for info in archive.infolist():
        suspect = info.orig_filename.lower().endswith(_PICKLE_SUFFIXES)
        if not suspect and not info.flag_bits & 1 and info.compress_type in _PACKINGS:
            with contextlib.suppress(*_DAMAGE), archive.open(info) as stream:
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
