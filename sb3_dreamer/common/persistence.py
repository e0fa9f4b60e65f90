"""Model and replay files: JSON and safetensors only, versioned, written atomically, checked before anything is read.

A model file is a zip of uncompressed members: ``format.json``, ``data.json``, ``system_info.txt`` and
``<name>.safetensors``. A replay file is one safetensors file, written and read in chunks (layout: https://github.com/huggingface/safetensors).
Nothing here can run code from a file: a file that holds a pickle is refused by name.
"""

import contextlib
import io
import itertools
import math
import os
import pathlib
import re
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import metadata as package_metadata
from typing import IO, Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.utils import get_device, get_system_info

from sb3_dreamer.common.json_codec import (
    MAX_JSON_BYTES,
    ModelFileError,
    NotEncodable,
    decode,
    dumps,
    encode,
    loads,
    one_line,
    register_type,
)

__all__ = [
    "FORMAT_VERSION",
    "MIGRATIONS",
    "ModelFile",
    "ModelFileError",
    "NotEncodable",
    "atomic_write",
    "decode",
    "encode",
    "load_optimizer",
    "optimizer_to_tensors",
    "read_arrays",
    "read_model",
    "register_type",
    "write_arrays",
    "write_model",
]

PathOrFile = str | os.PathLike[str] | IO[bytes]

FORMAT_VERSION = 1
# version -> function (data.json as parsed, tensors) -> the same in the layout of version + 1
MIGRATIONS: dict[
    int,
    Callable[[dict[str, Any], dict[str, dict[str, th.Tensor]]], tuple[dict[str, Any], dict[str, dict[str, th.Tensor]]]],
] = {}

_CHUNK = 4 * 2**20
_MAX_HEADER = 16 * 2**20
_MAX_MEMBERS = 1000
_SLACK = 16 * 2**20  # what a file may unpack to beyond four times its own size
_DTYPES: dict[str, tuple[str | None, th.dtype]] = {  # safetensors name -> numpy and torch types
    "BOOL": ("|b1", th.bool),
    "U8": ("|u1", th.uint8),
    "I8": ("|i1", th.int8),
    "U16": ("<u2", th.uint16),
    "I16": ("<i2", th.int16),
    "F16": ("<f2", th.float16),
    "BF16": (None, th.bfloat16),
    "U32": ("<u4", th.uint32),
    "I32": ("<i4", th.int32),
    "F32": ("<f4", th.float32),
    "U64": ("<u8", th.uint64),
    "I64": ("<i8", th.int64),
    "F64": ("<f8", th.float64),
}
_OF_NUMPY = {code: name for name, (code, _) in _DTYPES.items() if code}
_OF_TORCH = {dtype: name for name, (_, dtype) in _DTYPES.items()}
_SIZES = {name: dtype.itemsize for name, (_, dtype) in _DTYPES.items()}
_FIXED_MEMBERS = ("format.json", "data.json", "system_info.txt")
_TENSOR_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(\.[A-Za-z0-9_-]{1,100}){0,4}\.safetensors")
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".joblib", ".npy")
_FROM_SOURCE = "get the file again from its source, or use an earlier checkpoint"
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
    to ``write_model``, ``version`` the format version of the file, ``system_info`` the writer's machine in words.
    """

    kind: str
    version: int
    data: dict[str, Any]
    tensors: dict[str, dict[str, th.Tensor]]
    system_info: str


# ---- writing without ever leaving half a file ------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: PathOrFile) -> Iterator[IO[bytes]]:
    """
    Open a file that replaces ``path`` only when the block ends without an exception.

    The bytes go to a temporary file in the same folder, which is synced to disk and then renamed. On any exception, a
    full disk included, the previous file stays as it was and the temporary file is removed. A link is followed, not
    replaced.

    :param path: file name (parent folders are made), or an open binary file, which is written as it is
    :raises IsADirectoryError: when the path is a folder
    """
    if not isinstance(path, str | os.PathLike):
        _check_stream(path, "writable")
        yield path
        path.flush()
        return
    target = pathlib.Path(os.path.realpath(path))
    mode = target.stat().st_mode if target.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        raise IsADirectoryError(f"{path} is a folder or a device: give the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:200]}.{os.urandom(6).hex()}.tmp")
    try:
        with open(part, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if mode is not None:
            os.chmod(part, stat.S_IMODE(mode))
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder; the new file is in place
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextlib.contextmanager
def _open_to_read(path: PathOrFile, suffix: str = "") -> Iterator[tuple[IO[bytes], str]]:
    """Give the open file, at its start for a path, and the name to use in messages."""
    if not isinstance(path, str | os.PathLike):
        _check_stream(path, "readable")
        yield path, one_line(getattr(path, "name", "the file object"))
        return
    plain = pathlib.Path(path)
    tried = [plain, plain.with_name(plain.name + suffix)] if suffix and plain.name else [plain]
    for candidate in tried:
        if candidate.is_file():
            with open(candidate, "rb") as handle:
                yield handle, " ".join(str(candidate).splitlines())
            return
    names = " nor ".join(f"'{name}'" for name in tried)
    if plain.is_dir():
        raise ModelFileError(f"'{plain}' is a folder: give the name of a file in it")
    raise FileNotFoundError(f"there is no file {names}: check the path (the current folder is {pathlib.Path.cwd()})")


def _check_stream(stream: Any, ability: str) -> None:
    if isinstance(stream, io.TextIOBase) or not hasattr(stream, ability):
        raise TypeError(f"expected a path or a binary file, got {type(stream).__name__}: open the file in binary mode")
    if stream.closed or not getattr(stream, ability)() or not stream.seekable():
        raise ValueError(f"the file object must be open, {ability} and seekable")


# ---- safetensors -----------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Header(NamedTuple):
    names: list[str]  # as written
    entries: list[_Entry]  # as they follow in the file
    metadata: dict[str, str]
    data_start: int


def _dtype_name(item: Any, what: str) -> str:
    if isinstance(item, th.Tensor):
        known = _OF_TORCH.get(item.dtype) if item.layout == th.strided and not item.is_quantized else None
    elif not isinstance(item, np.ndarray):
        raise NotEncodable(f"{what} is a {type(item).__name__}, not a tensor or an array: convert it")
    else:
        known = _OF_NUMPY.get(item.dtype.newbyteorder("<").str)
    if known is None:
        raise NotEncodable(f"{what} has type {item.dtype}, which files do not store: convert it to numbers, dense")
    return known


def _layout(items: Mapping[str, Any], metadata: dict[str, str]) -> tuple[bytes, list[str], int]:
    """Give the header bytes, the order of the data (largest elements first: aligned), and the size of the data."""
    for name in items:
        if type(name) is not str or name == "__metadata__":
            raise NotEncodable(f"{name!r} is not a name for a tensor: use a string other than '__metadata__'")
    dtypes = {name: _dtype_name(item, name) for name, item in items.items()}
    order = sorted(items, key=lambda name: -_SIZES[dtypes[name]])
    begin, entries = 0, {}
    for name in order:
        shape = [int(size) for size in items[name].shape]
        end = begin + math.prod(shape) * _SIZES[dtypes[name]]
        entries[name] = {"dtype": dtypes[name], "shape": shape, "data_offsets": [begin, end]}
        begin = end
    header = dumps({"__metadata__": metadata, **{name: entries[name] for name in items}}, "the list of tensors")
    header += b" " * (-len(header) % 8)
    if len(header) > _MAX_HEADER:
        raise NotEncodable(f"the list of tensors and its metadata take {len(header) / 2**20:.0f} MiB, at most 16 fit")
    return struct.pack("<Q", len(header)) + header, order, begin


def _write_safetensors(handle: IO[bytes], items: Mapping[str, Any], layout: tuple[bytes, list[str], int]) -> None:
    header, order, _ = layout
    handle.write(header)
    for name in order:
        item = items[name]
        if isinstance(item, th.Tensor):  # bytes through torch: numpy has no bfloat16
            item = item.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy()
        little = item.dtype.newbyteorder("<")
        chunks = np.nditer(  # type: ignore[call-overload]  # the stubs lack "contig"
            item,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=[["readonly", "contig"]],
            op_dtypes=[little],
            casting="equiv",
            order="C",
            buffersize=max(1, _CHUNK // little.itemsize),
        )
        if item.size:
            for chunk in chunks:
                handle.write(chunk.view(np.uint8).data)


def _read_header(handle: IO[bytes], size: int, what: str) -> _Header:
    """Read and check a header: entries in file order, without gap or overlap, that take all bytes of the file."""
    start = handle.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 2 <= length <= min(_MAX_HEADER, size - 8):
        raise ModelFileError(f"{what} is truncated or not a safetensors file: {_FROM_SOURCE}")
    header = loads(handle.read(length), f"the header of {what}")
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ModelFileError(f"the header of {what} is not a safetensors header: {_FROM_SOURCE}")
    entries = sorted((_entry(name, fields, what) for name, fields in header.items()), key=lambda entry: entry[3:])
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise ModelFileError(f"{what} has a gap or an overlap before '{one_line(entry.name)}': {_FROM_SOURCE}")
        position = entry.end
    if position != size - 8 - length:
        raise ModelFileError(
            f"{what} is truncated or has extra bytes ({size - 8 - length} bytes of data for {position}): {_FROM_SOURCE}"
        )
    return _Header(list(header), entries, metadata, 8 + length)


def _entry(name: str, fields: Any, what: str) -> _Entry:
    shown = f"'{one_line(name)}' in {what}"
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{shown} has no valid description: {_FROM_SOURCE}")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ModelFileError(f"{shown} has the unknown dtype {one_line(dtype)}: upgrade sb3-dreamer, or {_FROM_SOURCE}")
    if not all(isinstance(numbers, list) and len(numbers) <= 32 for numbers in (shape, offsets)) or len(offsets) != 2:
        raise ModelFileError(f"{shown} has no valid shape and offsets: {_FROM_SOURCE}")
    if any(type(number) is not int or not 0 <= number < 2**48 for number in itertools.chain(shape, offsets)):
        raise ModelFileError(f"{shown} has no valid shape and offsets: {_FROM_SOURCE}")
    if offsets[1] - offsets[0] != math.prod(shape) * _SIZES[dtype]:
        raise ModelFileError(
            f"{shown} has {offsets[1] - offsets[0]} bytes for shape {shape[:8]} of {dtype}: {_FROM_SOURCE}"
        )
    return _Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _read_into(handle: IO[bytes], buffer: np.ndarray, entry: _Entry, what: str) -> None:
    """Fill a buffer of bytes with one entry, in chunks. The caller has checked that the file is long enough."""
    view, done = buffer.data, 0
    while done < len(view):
        count = handle.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise ModelFileError(f"{what} ends early, within '{one_line(entry.name)}': {_FROM_SOURCE}")
        if entry.dtype == "BOOL" and buffer[done : done + count].max() > 1:
            raise ModelFileError(f"'{one_line(entry.name)}' in {what} is not boolean: {_FROM_SOURCE}")
        done += count


def _is_pickle(start: bytes) -> bool:
    """Whether bytes begin as a pickle of protocol 2 or later; a safetensors file of 640-byte header does not count."""
    marked = len(start) >= 2 and start[0] == 0x80 and 2 <= start[1] <= 8
    return marked and not (len(start) > 8 and start[4:8] == b"\0\0\0\0" and start[8:9] == b"{")


# ---- model files -----------------------------------------------------------------------------------------------------


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
        if not _TENSOR_MEMBER.fullmatch(f"{name}.safetensors"):
            raise ValueError(
                f"{name!r} is not a name for tensors: use letters, digits, '_' and '.', as in 'model_optim'"
            )
        layouts[name] = _layout(items, {"format": "pt"})
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
                _write_safetensors(stream, tensors[name], layout)


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
    with _open_to_read(path, ".zip") as (handle, what):
        try:
            handle.seek(0)
            if _is_pickle(handle.read(9)):
                raise ModelFileError(
                    f"{what} contains pickled data, which can run code on load; it was not loaded. "
                    "Get the model as sb3-dreamer saves it; whatever wrote this file is not sb3-dreamer"
                )
            with zipfile.ZipFile(handle) as archive:
                size = handle.seek(0, os.SEEK_END)
                limit = 4 * size + _SLACK if max_bytes is None else max_bytes
                names = _check_members(archive, limit, what)
                found, version = _check_format(
                    loads(_read_text(archive, "format.json"), f"format.json in {what}"), kind, what
                )
                raw = loads(_read_text(archive, "data.json"), f"data.json in {what}")
                info = _read_text(archive, "system_info.txt").decode("utf-8", "replace")
                tensors = {name[: -len(".safetensors")]: _read_member(archive, name, what) for name in names}
        except ModelFileError:
            raise
        except _DAMAGE as error:
            reason = one_line(error) or type(error).__name__
            raise ModelFileError(
                f"{what} is truncated, damaged or not a model file ({reason}): {_FROM_SOURCE}"
            ) from error
    for step in range(version, FORMAT_VERSION):
        if step not in MIGRATIONS:
            raise ModelFileError(
                f"{what} has format version {version}, which is no longer read: load it with an older release"
            )
        raw, tensors = MIGRATIONS[step](raw, tensors)
    if not isinstance(raw, dict):
        raise ModelFileError(f"data.json in {what} is not a table of attributes: {_FROM_SOURCE}")
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


def _check_members(archive: zipfile.ZipFile, limit: int, what: str) -> list[str]:
    """Refuse what ``write_model`` never writes; give the names of the tensor members."""
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise ModelFileError(f"{what} has {len(members)} members, a model file at most {_MAX_MEMBERS}: {_FROM_SOURCE}")
    _refuse_pickles(archive, what)
    names = [info.orig_filename for info in members]
    for info in members:
        name, shown = info.orig_filename, one_line(info.orig_filename)
        if name not in _FIXED_MEMBERS and not _TENSOR_MEMBER.fullmatch(name):
            raise ModelFileError(
                f"{what} has a member '{shown}' that no model file has; it was not loaded: {_FROM_SOURCE}"
            )
        if names.count(name) > 1 or info.filename != name:
            raise ModelFileError(f"{what} has the member '{shown}' more than once: {_FROM_SOURCE}")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or info.external_attr & 0x10:
            raise ModelFileError(f"the member '{shown}' of {what} is a link or a folder: {_FROM_SOURCE}")
        if info.flag_bits & 0x61 or info.compress_type not in _PACKINGS:
            raise ModelFileError(
                f"the member '{shown}' of {what} is encrypted or packed in an unknown way: {_FROM_SOURCE}"
            )
        if name in _FIXED_MEMBERS and info.file_size > MAX_JSON_BYTES:
            raise ModelFileError(f"the member '{shown}' of {what} has more than 64 MiB: {_FROM_SOURCE}")
    total = sum(info.file_size for info in members)
    if total > limit:
        raise ModelFileError(
            f"{what} would unpack to {total / 2**20:.0f} MiB, above the limit of {limit / 2**20:.0f} MiB: "
            "if you trust its source, pass a higher max_bytes"
        )
    missing = [name for name in _FIXED_MEMBERS if name not in names]
    if missing:
        raise ModelFileError(f"{what} lacks {', '.join(missing)}, so sb3-dreamer did not write it: {_FROM_SOURCE}")
    return [name for name in names if name not in _FIXED_MEMBERS]


def _refuse_pickles(archive: zipfile.ZipFile, what: str) -> None:
    found = []
    for info in archive.infolist():
        suspect = info.orig_filename.lower().endswith(_PICKLE_SUFFIXES)
        if not suspect and not info.flag_bits & 1 and info.compress_type in _PACKINGS:
            with contextlib.suppress(*_DAMAGE), archive.open(info) as stream:
                suspect = _is_pickle(stream.read(9))
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


def _check_format(form: Any, kind: str | None, what: str) -> tuple[str, int]:
    known = isinstance(form, dict) and form.get("format") == "sb3-dreamer model"
    version, found = (form.get("version"), form.get("kind")) if known else (None, None)
    if type(version) is not int or version < 1 or not isinstance(found, str) or not found.isidentifier():
        raise ModelFileError(f"{what} is not a model of sb3-dreamer: {_FROM_SOURCE}")
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
        header = _read_header(stream, archive.getinfo(name).file_size, shown)
        tensors = {}
        for entry in header.entries:
            tensors[entry.name] = th.empty(entry.shape, dtype=_DTYPES[entry.dtype][1])
            _read_into(stream, tensors[entry.name].reshape(-1).view(th.uint8).numpy(), entry, shown)
        if stream.read(1):  # reading to the end also compares the checksum
            raise ModelFileError(f"{shown} has extra bytes: {_FROM_SOURCE}")
    return {key: tensors[key] for key in header.names}


# ---- optimizers ------------------------------------------------------------------------------------------------------

_DEVICE_CHOICES = ("foreach", "fused", "capturable", "differentiable")  # belong to the machine, not to the training


def optimizer_to_tensors(optimizer: th.optim.Optimizer) -> tuple[dict[str, th.Tensor], Any]:
    """
    Split an optimizer's state into tensors and JSON.

    :return: state tensors by ``"<parameter index>.<state key>"`` (and ``"group.<group index>.<option>"``), and JSON
        with the options of each group, the state that is not a tensor, and the shapes of the parameters
    :raises NotEncodable: for state that neither form holds
    """
    state = optimizer.state_dict()
    tensors: dict[str, th.Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for index, entries in state["state"].items():
        if type(index) is not int:
            raise NotEncodable(
                f"{type(optimizer).__name__} keeps state outside its parameters ({index!r}): not supported"
            )
        rest[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, th.Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                rest[str(index)][key] = encode(value, f"state of parameter {index}: {key}")
    for index, group in enumerate(state["param_groups"]):
        groups.append({})
        for key, value in group.items():
            if isinstance(value, th.Tensor):
                tensors[f"group.{index}.{key}"] = value
            else:
                groups[-1][key] = encode(value, f"parameter group {index}: {key}")
    shapes = [[list(param.shape) for param in group["params"]] for group in optimizer.param_groups]
    return tensors, {"class": type(optimizer).__name__, "param_groups": groups, "state": rest, "shapes": shapes}


def load_optimizer(optimizer: th.optim.Optimizer, tensors: Mapping[str, th.Tensor], json: Any) -> None:
    """
    Restore what ``optimizer_to_tensors`` gave, exactly: types of the state are kept even where torch would cast them.

    The options ``foreach, fused, capturable, differentiable`` stay as the given optimizer has them.

    :param optimizer: an optimizer of the same class over parameters of the same shapes; unchanged after an error
    :raises ModelFileError: when the state does not fit the optimizer
    """
    name = type(optimizer).__name__
    order = [param for group in optimizer.param_groups for param in group["params"]]
    try:
        state, groups = _optimizer_state(optimizer, tensors, json)
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ModelFileError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"the optimizer state in the file does not fit {name} ({one_line(error)})") from error
    for index, items in state.items():
        for key, value in items.items():
            loaded = optimizer.state[order[index]][key]
            if (
                isinstance(value, th.Tensor) and value.dtype != loaded.dtype
            ):  # torch casts state to the parameter's type
                optimizer.state[order[index]][key] = value.to(loaded.device)


def _optimizer_state(
    optimizer: th.optim.Optimizer, tensors: Mapping[str, th.Tensor], json: Any
) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """Join tensors and JSON to the two halves of a torch optimizer's state dict, checked against the optimizer."""
    name = type(optimizer).__name__
    if json["class"] != name:
        raise ModelFileError(f"the file holds the state of {one_line(json['class'])}, not of {name}: build that class")
    shapes = [[list(param.shape) for param in group["params"]] for group in optimizer.param_groups]
    if json["shapes"] != shapes:
        raise ModelFileError(
            f"the optimizer state in the file is of other parameters than {name} has: same model_size?"
        )
    groups = [{key: decode(value, f"{name}.{key}") for key, value in group.items()} for group in json["param_groups"]]
    state = {int(at): {key: decode(value) for key, value in items.items()} for at, items in json["state"].items()}
    for key, tensor in tensors.items():
        at, _, entry = key.partition(".")
        if at == "group":
            at, _, entry = entry.partition(".")
            groups[int(at)][entry] = tensor.detach().clone()
        else:
            state[int(at)][entry] = tensor.detach().clone()
    for group, current in zip(groups, optimizer.param_groups, strict=True):
        group.update({key: current[key] for key in _DEVICE_CHOICES if key in current})
        for key, value in current.items():
            if isinstance(value, th.Tensor) and key in group:
                group[key] = value.clone().fill_(group[key])
            elif isinstance(group.get(key), th.Tensor):
                group[key] = group[key].item()
    if not state.keys() <= set(range(sum(map(len, shapes)))):
        raise ModelFileError(f"the optimizer state in the file names parameters that {name} lacks: same model_size?")
    return state, groups


# ---- replay files ----------------------------------------------------------------------------------------------------


def write_arrays(path: PathOrFile, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    """
    Write arrays of any size and their metadata to one safetensors file, atomically and in chunks of 4 MiB.

    :param path: file name, used as it is (SB3's CheckpointCallback gives names that end in ``.pkl``), or a binary file
    :param arrays: numpy arrays or memory maps of numbers or booleans, in any memory layout
    :param metadata: what ``encode`` takes; at most 16 MiB of JSON
    :raises NotEncodable: naming the array or entry, before anything is written
    """
    encoded = {name: encode(value, name) for name, value in metadata.items()}
    text = dumps(encoded, "the metadata").decode("ascii")
    layout = _layout(arrays, {"format": "sb3-dreamer arrays", "version": str(FORMAT_VERSION), "metadata": text})
    with atomic_write(path) as handle:
        _write_safetensors(handle, arrays, layout)


def read_arrays(path: PathOrFile, mmap: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """
    Read what ``write_arrays`` wrote, in chunks.

    :param path: file name, or a binary file from its present position to its end
    :param mmap: leave the arrays on disk: read-only memory maps (paths only)
    :return: arrays by name, and the metadata
    :raises FileNotFoundError: when there is no such file
    :raises ModelFileError: when the file is damaged, hostile, a pickle, or not a file of arrays
    """
    if mmap and not isinstance(path, str | os.PathLike):
        raise ValueError("mmap=True needs a path, not a file object")
    with _open_to_read(path) as (handle, what):
        start = handle.tell()
        size = handle.seek(0, os.SEEK_END) - start
        handle.seek(start)
        first = handle.read(9)
        handle.seek(start)
        if _is_pickle(first):
            raise ModelFileError(
                f"{what} contains pickled data, which can run code on load; it was not loaded. "
                "Save the replay buffer again with sb3-dreamer; buffers that Stable-Baselines3 saved cannot be read"
            )
        if first.startswith(b"PK"):
            raise ModelFileError(f"{what} is a zip file, not a replay buffer: to load a model use load()")
        header = _read_header(handle, size, what)
        about = header.metadata
        if about.get("format") != "sb3-dreamer arrays" or "metadata" not in about:
            raise ModelFileError(f"{what} was not written by sb3-dreamer as a replay buffer: {_FROM_SOURCE}")
        if about.get("version") != str(FORMAT_VERSION):
            shown = one_line(about.get("version"))
            raise ModelFileError(f"{what} has format version {shown}, not {FORMAT_VERSION}: pip install -U sb3-dreamer")
        raw = loads(about["metadata"].encode("utf-8", "replace"), f"the metadata of {what}")
        if not isinstance(raw, dict):
            raise ModelFileError(f"the metadata of {what} is not a table: {_FROM_SOURCE}")
        arrays: dict[str, np.ndarray] = {}
        for entry in header.entries:
            code = _DTYPES[entry.dtype][0]
            if code is None:
                raise ModelFileError(f"'{one_line(entry.name)}' in {what} is {entry.dtype}, which numpy lacks")
            if mmap and entry.end > entry.begin:
                position = start + header.data_start + entry.begin
                arrays[entry.name] = np.memmap(handle, np.dtype(code), "r", position, entry.shape)
            else:
                arrays[entry.name] = np.empty(entry.shape, code)
                _read_into(handle, arrays[entry.name].reshape(-1).view(np.uint8), entry, what)
    arrays = {name: arrays[name] for name in header.names}
    return arrays, {name: decode(value, f"'{one_line(name)}' in {what}") for name, value in raw.items()}
