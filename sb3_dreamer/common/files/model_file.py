"""Model files: a zip of uncompressed members that are JSON and safetensors, checked before anything is read.

Members: ``format.json``, ``data.json``, ``system_info.txt`` and ``<name>.safetensors``. Nothing here can run code from
a file: a file that holds a pickle is refused by name.
"""

import contextlib
import os
import pathlib
import stat
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from importlib import metadata as package_metadata
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.utils import get_device, get_system_info

from sb3_dreamer.common.files.atomic import PathOrFile, atomic_write, open_to_read
from sb3_dreamer.common.files.json_codec import decode, encode
from sb3_dreamer.common.files.json_text import ModelFileError, dumps, loads, one_line
from sb3_dreamer.common.files.member_checks import DAMAGE, TENSOR_MEMBER, check_members
from sb3_dreamer.common.files.tensors import (
    DTYPES,
    FROM_SOURCE,
    is_pickle,
    layout_of,
    read_header,
    read_into,
    write_safetensors,
)

FORMAT_VERSION = 1
# version -> function (data.json as parsed, tensors) -> the same in the layout of version + 1
MIGRATIONS: dict[
    int,
    Callable[[dict[str, Any], dict[str, dict[str, th.Tensor]]], tuple[dict[str, Any], dict[str, dict[str, th.Tensor]]]],
] = {}

_SLACK = 16 * 2**20  # what a file may unpack to beyond four times its own size


class ModelFile(NamedTuple):
    """
    Contents of a model file.

    ``data`` holds the decoded attributes without the skipped ones, ``tensors`` one dict of tensors for each name given
    to ``write_model``, ``version`` the format version of the file, ``system_info`` the writer's machine in words.
    """

    kind: str
    version: int
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
    :raises NotEncodable: naming the attribute, before anything is written
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
        "format.json": dumps(form, "format.json"),
        "data.json": dumps(encoded, "the attributes"),
        "system_info.txt": get_system_info(print_info=False)[1].encode(),
    }
    layouts = {}
    for name, items in tensors.items():
        if not TENSOR_MEMBER.fullmatch(f"{name}.safetensors"):
            raise ValueError(
                f"{name!r} is not a name for tensors: use letters, digits, '_' and '.', as in 'model_optim'"
            )
        layouts[name] = layout_of(items, {"format": "pt"})
    if isinstance(path, str | os.PathLike):
        path = pathlib.Path(path)
        path = path.with_name(path.name + ".zip") if path.name and not path.suffix else path
        if verbose >= 2 and path.exists():
            warnings.warn(f"'{path}' exists and is replaced", stacklevel=2)
    with atomic_write(path) as handle, zipfile.ZipFile(handle, "w") as archive:
        for member, content in members.items():
            archive.writestr(_member(member), content)
        for name, layout in layouts.items():
            large = layout[2] > 2**30
            with archive.open(_member(f"{name}.safetensors"), "w", force_zip64=large) as stream:
                write_safetensors(stream, tensors[name], layout)


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
    max_bytes: int | None = None,
) -> ModelFile:
    """
    Read a model file after checking it; a file of unknown origin can at worst be refused.

    :param path: file name, with or without ``.zip``, or a binary file
    :param kind: class name that the file must hold; None takes any
    :param device: where the tensors go, ``"auto"`` as in SB3
    :param skip: names of data entries that are not decoded (those that ``custom_objects`` replaces)
    :param max_bytes: most bytes that the members may unpack to; None: four times the file's size plus 16 MiB
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
                limit = 4 * size + _SLACK if max_bytes is None else max_bytes
                names = check_members(archive, limit, what)
                found, version = _check_format(
                    loads(_read_text(archive, "format.json"), f"format.json in {what}"), kind, what
                )
                raw = loads(_read_text(archive, "data.json"), f"data.json in {what}")
                info = _read_text(archive, "system_info.txt").decode("utf-8", "replace")
                tensors = {name[: -len(".safetensors")]: _read_member(archive, name, what) for name in names}
        except ModelFileError:
            raise
        except DAMAGE as error:
            reason = one_line(error) or type(error).__name__
            raise ModelFileError(
                f"{what} is truncated, damaged or not a model file ({reason}): {FROM_SOURCE}"
            ) from error
    for step in range(version, FORMAT_VERSION):
        if step not in MIGRATIONS:
            raise ModelFileError(
                f"{what} has format version {version}, which is no longer read: load it with an older release"
            )
        raw, tensors = MIGRATIONS[step](raw, tensors)
    if not isinstance(raw, dict):
        raise ModelFileError(f"data.json in {what} is not a table of attributes: {FROM_SOURCE}")
    data = {name: _decode_entry(name, value, what) for name, value in raw.items() if name not in skip}
    moved = {name: {key: tensor.to(target) for key, tensor in items.items()} for name, items in tensors.items()}
    return ModelFile(found, version, data, moved, info)


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


def _read_text(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as stream:  # archive.read() would unpack all before it looks at the size it was told
        return stream.read(archive.getinfo(name).file_size + 1)


def _read_member(archive: zipfile.ZipFile, name: str, what: str) -> dict[str, th.Tensor]:
    shown = f"{one_line(name)} in {what}"
    with archive.open(name) as stream:
        header = read_header(stream, archive.getinfo(name).file_size, shown)
        tensors = {}
        for entry in header.entries:
            tensors[entry.name] = th.empty(entry.shape, dtype=DTYPES[entry.dtype][1])
            read_into(stream, tensors[entry.name].reshape(-1).view(th.uint8).numpy(), entry, shown)
        if stream.read(1):  # reading to the end also compares the checksum
            raise ModelFileError(f"{shown} has extra bytes: {FROM_SOURCE}")
    return {key: tensors[key] for key in header.names}
