"""The house of docs/architecture.md, enforced: imports point down, no circle, no folder too wide, no mixins."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "sb3_dreamer" / "core").rglob("*.py"))
FOLDERS = ("sb3_dreamer", "wrappers", "zoo")
WIDEST = 25  #: files of a folder
#: what each core module may import from core, from the bottom up
LAYERS = [
    {"types", "functional", "estimators", "baselines", "optim", "cem"},
    {"layers", "latents"},
    {"cells", "images.convs", "images.convs2024", "images.valid_convs", "heads", "objectives"},
    {"codecs", "action_heads", "ensemble", "images.image_bits", "state_space"},
    {"rssm", "representation"},
    {"overshooting"},
    {"world_model"},
    {"behavior", "open_loop"},
    {"planner", "imagination"},
    {"action_masks"},
]
ZOO = {"config": 0, "runs": 1, "speed": 2, "studies": 3, "programs": 3}  #: floors of the zoo's folders, from the bottom


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all modules that a file imports, and of what it imports from them: a module perhaps."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_knows_torch_only(path: Path) -> None:
    outside = {name for name in imports(path) if name.split(".")[0] in sys.stdlib_module_names or name == "torch"}
    outside |= {name for name in imports(path) if name.startswith(("torch.", "sb3_dreamer.core."))}
    assert imports(path) <= outside


def test_core_imports_point_down() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    for path in CORE:
        own = module_name(path).removeprefix("sb3_dreamer.core.")
        if path.stem == "__init__":
            continue
        assert own in level, f"{path} has no place in LAYERS"
        for name in imports(path):
            target = name.removeprefix("sb3_dreamer.core.")
            if name.startswith("sb3_dreamer.core.") and target in level:
                assert level[target] <= level[own], f"{own} imports {target} from above"


@pytest.mark.parametrize("folder", ["planet", "dreamer_v2", "dreamer_v3"])
def test_algorithms_do_not_know_each_other(folder: str) -> None:
    others = {"planet", "dreamer_v2", "dreamer_v3"} - {folder}
    for path in (ROOT / "sb3_dreamer" / folder).glob("*.py"):
        for name in imports(path):
            assert not name.startswith(tuple(f"sb3_dreamer.{other}" for other in others)), f"{path} imports {name}"
            assert not name.startswith(("sb3_dreamer.zoo", "sb3_dreamer.wrappers")), f"{path} imports {name}"


def test_common_does_not_know_the_algorithms() -> None:
    above = ("planet", "dreamer_v2", "dreamer_v3", "zoo", "wrappers")
    for path in (ROOT / "sb3_dreamer" / "common").rglob("*.py"):
        for name in imports(path):
            assert not name.startswith(tuple(f"sb3_dreamer.{folder}" for folder in above)), f"{path} imports {name}"


def test_wrappers_stand_alone() -> None:
    for path in (ROOT / "wrappers").rglob("*.py"):
        for name in imports(path):
            assert not name.startswith(("torch", "sb3_dreamer.core", "sb3_dreamer.common", "sb3_dreamer.zoo")), path
            assert name.split(".")[0] not in ("wrappers", "zoo"), f"{path} imports {name} by its bare name"


def test_nothing_imports_the_zoo() -> None:
    for path in [*(ROOT / "sb3_dreamer").rglob("*.py"), *(ROOT / "wrappers").rglob("*.py")]:
        assert not any(name.startswith("sb3_dreamer.zoo") for name in imports(path)), path


def test_imports_of_the_zoo_point_down() -> None:
    for path in [path for folder in ZOO for path in (ROOT / "zoo" / folder).glob("*.py")]:
        for name in imports(path):
            target = name.removeprefix("sb3_dreamer.zoo.").partition(".")[0]
            if name.startswith("sb3_dreamer.zoo."):
                assert ZOO[target] <= ZOO[path.parent.name], f"{path} imports {name} from above"


@pytest.mark.parametrize("text", ["import {0}.{1}", "from {0} import {1}", "def late():\n    from {0}.{1} import x"])
@pytest.mark.parametrize(
    ("file", "module", "check"),
    [
        ("sb3_dreamer/planet/x.py", "sb3_dreamer dreamer_v2", lambda: test_algorithms_do_not_know_each_other("planet")),
        ("sb3_dreamer/planet/x.py", "sb3_dreamer wrappers", lambda: test_algorithms_do_not_know_each_other("planet")),
        ("sb3_dreamer/common/x.py", "sb3_dreamer planet", test_common_does_not_know_the_algorithms),
        ("wrappers/x.py", "sb3_dreamer core", test_wrappers_stand_alone),
        ("wrappers/x.py", "wrappers check", test_wrappers_stand_alone),
        ("sb3_dreamer/core/x.py", "sb3_dreamer zoo", test_nothing_imports_the_zoo),
        ("zoo/config/x.py", "sb3_dreamer.zoo runs", test_imports_of_the_zoo_point_down),
        ("sb3_dreamer/core/x.py", "sb3_dreamer common", lambda: test_core_knows_torch_only(CORE[0])),
        ("sb3_dreamer/core/cells.py", "sb3_dreamer.core rssm", test_core_imports_point_down),
    ],
)
def test_a_breach_is_found(text: str, file: str, module: str, check, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text("import math")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "CORE", [path])
    check()
    path.write_text(text.format(*module.split()))
    imports.cache_clear(), nodes.cache_clear()
    with pytest.raises(AssertionError):
        check()


def test_wrappers_import_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import sb3_dreamer, sb3_dreamer.wrappers as w; w.make_env"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_of_the_package() -> None:
    import sb3_dreamer

    with pytest.raises(AttributeError, match="no attribute 'Dreamer4'"):
        _ = sb3_dreamer.Dreamer4


def module_name(path: Path) -> str:
    """Dotted name of a file; ``wrappers/`` and ``zoo/`` are part of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "sb3_dreamer" else ("sb3_dreamer", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph() -> dict[str, set[str]]:
    """Modules of the package that each module imports: at its top, under ``TYPE_CHECKING`` and inside functions."""
    files = {module_name(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    return {name: (imports(path) & files.keys()) - {name} for name, path in files.items()}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that import each other, directly or through others."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for name in graph[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    below = {name: reach(name) for name in graph}
    found = {frozenset(other for other in below[name] if name in below[other]) for name in graph if name in below[name]}
    return [set(circle) for circle in found]


def test_the_search_for_circles_finds_them() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) in ([{"b", "c"}, {"d"}], [{"d"}, {"b", "c"}])


def test_no_circle() -> None:
    assert circles(import_graph()) == []


def test_no_folder_is_too_wide() -> None:
    folders = {path.parent for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*.py")}
    wide = {str(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in wide.items() if count > WIDEST} == {}


@pytest.mark.parametrize("name", ["DreamerV2", "DreamerV3", "PlaNet"])
def test_an_algorithm_is_two_classes(name: str) -> None:
    """The base, read from top to bottom, and the algorithm: no mixins."""
    import sb3_dreamer

    own = [cls for cls in getattr(sb3_dreamer, name).__mro__ if cls.__module__.startswith("sb3_dreamer")]
    assert [cls.__name__ for cls in own] == [name, "WorldModelAlgorithm"]


def test_no_pickle_on_the_loading_path() -> None:
    """No file of the library can unpickle, evaluate or execute what it reads.

    One reads pickled arrays of the authors' code, where the user says so, with an unpickler that knows nothing else:
    ``tests/convert/test_checkpoint.py``.
    """
    folders = (ROOT / "sb3_dreamer", ROOT / "wrappers", ROOT / "zoo")
    forbidden = (
        "eval",
        "exec",
        "th.load",
        "torch.load",
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "yaml.unsafe_load",
        "yaml.full_load",
    )
    for path in [path for folder in folders for path in folder.rglob("*.py")]:
        pickles = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & imports(path)
        assert not pickles or path == ROOT / "sb3_dreamer" / "convert" / "checkpoint.py", path
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in forbidden, (path, called)
                if called == "yaml.load":  # with a loader of our own, which extends the safe one
                    text = path.read_text()
                    own = "from sb3_dreamer.zoo.config.yaml_files import StrictLoader"
                    assert "class StrictLoader(yaml.SafeLoader)" in text or own in text, path
                    assert [ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"] == ["StrictLoader"]
                if called in ("np.load", "numpy.load"):
                    allowed = [ast.unparse(k.value) for k in node.keywords if k.arg == "allow_pickle"]
                    assert allowed in ([], ["False"]), path
