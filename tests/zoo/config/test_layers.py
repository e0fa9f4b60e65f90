"""Arrows point down inside the zoo: programs -> runs -> config, counting imports inside functions."""

import ast
from pathlib import Path

import pytest

ZOO = Path(__file__).resolve().parents[3] / "zoo"
LEVELS = {"config": 0, "runs": 1, "speed": 2, "studies": 3, "programs": 3}
MODULES = [path for folder in LEVELS for path in sorted((ZOO / folder).glob("*.py"))]


def imported(path: Path) -> set[str]:
    """Names below ``sb3_dreamer.zoo`` that a file imports: ``config.plan``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sb3_dreamer.zoo."):
            for alias in node.names:
                module = f"{node.module}.{alias.name}".removeprefix("sb3_dreamer.zoo.")
                is_module = (ZOO / module.replace(".", "/")).with_suffix(".py").exists()
                found.add(module if is_module else module.rpartition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_imports_point_down(path: Path) -> None:
    for name in imported(path):
        assert LEVELS[name.partition(".")[0]] <= LEVELS[path.parent.name], name


def test_there_is_no_circle() -> None:
    edges = {f"{path.parent.name}.{path.stem}": imported(path) for path in MODULES}
    while edges:
        leaves = {name for name, targets in edges.items() if not targets & set(edges)}
        assert leaves, f"a circle among {', '.join(sorted(edges))}"
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
