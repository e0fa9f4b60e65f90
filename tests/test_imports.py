"""The import table of docs/architecture.md, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "sb3_dreamer" / "core").glob("*.py"))
#: what each core module may import from core, from the bottom up
LAYERS = [
    {"types", "functional", "estimators", "baselines", "optim", "cem"},
    {"layers", "latents"},
    {"cells", "convs", "convs2024", "valid_convs", "heads", "objectives"},
    {"codecs", "action_heads", "image_bits"},
    {"rssm", "ssm"},
    {"overshooting"},
    {"world_model"},
    {"behavior", "open_loop"},
    {"planner", "imagination"},
    {"action_masks"},
]


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_knows_torch_only(path: Path) -> None:
    outside = {name for name in imports(path) if name.split(".")[0] in sys.stdlib_module_names or name == "torch"}
    outside |= {name for name in imports(path) if name.startswith(("torch.", "sb3_dreamer.core."))}
    assert imports(path) <= outside


def test_core_imports_point_down() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    for path in CORE:
        if path.stem == "__init__":
            continue
        assert path.stem in level, f"{path} has no place in LAYERS (and in docs/architecture.md)"
        for name in imports(path):
            target = name.removeprefix("sb3_dreamer.core.")
            if name.startswith("sb3_dreamer.core.") and target in level:
                assert level[target] <= level[path.stem], f"{path.stem} imports {target} from above"


@pytest.mark.parametrize("folder", ["planet", "dreamer_v2", "dreamer_v3"])
def test_algorithms_do_not_know_each_other(folder: str) -> None:
    others = {"planet", "dreamer_v2", "dreamer_v3"} - {folder}
    for path in (ROOT / "sb3_dreamer" / folder).glob("*.py"):
        for name in imports(path):
            assert not name.startswith(tuple(f"sb3_dreamer.{other}" for other in others)), f"{path} imports {name}"
            assert not name.startswith(("sb3_dreamer.zoo", "sb3_dreamer.wrappers")), f"{path} imports {name}"


def test_common_does_not_know_the_algorithms() -> None:
    above = ("planet", "dreamer_v2", "dreamer_v3", "zoo", "wrappers")
    for path in (ROOT / "sb3_dreamer" / "common").glob("*.py"):
        for name in imports(path):
            assert not name.startswith(tuple(f"sb3_dreamer.{folder}" for folder in above)), f"{path} imports {name}"


def test_wrappers_stand_alone() -> None:
    for path in (ROOT / "wrappers").glob("*.py"):
        for name in imports(path):
            assert not name.startswith(("torch", "sb3_dreamer.core", "sb3_dreamer.common", "sb3_dreamer.zoo")), path
            assert name.split(".")[0] not in ("wrappers", "zoo"), f"{path} imports {name} by its bare name"


def test_nothing_imports_the_zoo() -> None:
    for path in [*(ROOT / "sb3_dreamer").rglob("*.py"), *(ROOT / "wrappers").glob("*.py")]:
        assert not any(name.startswith("sb3_dreamer.zoo") for name in imports(path)), path


def test_wrappers_import_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import sb3_dreamer, sb3_dreamer.wrappers as w; w.make_env"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_of_the_package() -> None:
    import sb3_dreamer

    with pytest.raises(AttributeError, match="no attribute 'Dreamer4'"):
        _ = sb3_dreamer.Dreamer4


def test_no_pickle_on_the_loading_path() -> None:
    """No file of the library can unpickle, evaluate or execute what it reads."""
    folders = (ROOT / "sb3_dreamer", ROOT / "wrappers", ROOT / "zoo")
    forbidden = ("eval", "exec", "th.load", "torch.load", "yaml.unsafe_load", "yaml.full_load")
    for path in [path for folder in folders for path in folder.rglob("*.py")]:
        tree = ast.parse(path.read_text())
        assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & imports(path), path
        for node in ast.walk(tree):
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
