"""Files of unknown origin: 2,000 mutated ones load or are refused, in bounded time and memory."""

import ast
import collections
import contextlib
import copy
import io
import json
import os
import pathlib
import random
import stat
import struct
import sys
import time
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np

from sb3_dreamer.common.files import atomic
from sb3_dreamer.common.files.array_file import read_arrays, write_arrays
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.files.model_file import read_model

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import ARRAYS, BASE, MIB, SPACES, TENSORS, assert_tensors_equal, boxed, rebuilt, same


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
    about = header["__metadata__"]
    about["metadata"] = json.dumps(mutate(rng, json.loads(about["metadata"])))
    sums = json.loads(about["checksums"]) | {"__metadata__": zlib.crc32(about["metadata"].encode())}
    about["checksums"] = json.dumps(sums, sort_keys=True)
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


def reset_peak():
    """Let the peak start again from the present size; only Linux can."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_kib():
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        if resource
        else 0
    )


def test_2000_hostile_files_load_or_are_refused_in_bounded_time_and_memory(tmp_path):
    rng, slowest, largest, resident, loaded, count = random.Random(0), 0.0, 0, 0, 0, 0
    unpickled = len(UNPICKLED)
    for number, make, refused in CASES:
        for _ in range(number):
            raw = make(rng, tmp_path)
            is_zip = raw[:2] == b"PK" if rng.random() < 0.95 else rng.random() < 0.5
            path = tmp_path / "f.zip"
            path.write_bytes(raw)
            reset_peak()
            before, start, message = peak_kib(), time.process_time(), None
            try:
                found = read_model(path) if is_zip else read_arrays(path)
            except ModelFileError as error:
                message = str(error)
            resident = max(resident, peak_kib() - before)
            slowest = max(slowest, time.process_time() - start)
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
                elif not is_zip:
                    assert all(same(found[0][name], np.asarray(array, order="C")) for name, array in ARRAYS.items())
            else:
                assert str(path) in message and message.isprintable() and len(message) < 700, message
                assert make is not planted or "pickled data" in message or (raw[:2] == b"PK" and not is_zip), message
    assert count == 2000 and os.listdir(tmp_path) == ["f.zip"] and len(UNPICKLED) == unpickled
    print(
        f"{loaded} loaded, slowest {slowest:.2f} s, peak {largest / MIB:.0f} MiB, resident +{resident / 1024:.0f} MiB"
    )
    assert slowest < 5 and largest < 128 * MIB and resident < 128 * 1024


def test_the_modules_name_nothing_that_runs_code_from_files():
    banned = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "importlib.import_module", "runpy"}
    calls = {"eval", "exec", "compile", "__import__", "import_module"}
    folder = pathlib.Path(atomic.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & banned, names
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                owner = getattr(getattr(node.func, "value", None), "id", "")
                assert name not in calls or owner == "re", name
                safe = [ast.unparse(k.value) for k in node.keywords if k.arg == "allow_pickle"] == ["False"]
                assert not (name == "load" and owner in ("th", "torch", "np", "numpy")) or safe, name
