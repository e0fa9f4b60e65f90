"""Every study and every part of the bench can be imported, those that no other test runs included."""

import importlib
from pathlib import Path

import pytest

ZOO = Path(__file__).resolve().parents[3] / "zoo"
MODULES = [f"{folder}.{path.stem}" for folder in ("speed", "studies") for path in sorted((ZOO / folder).glob("*.py"))]


@pytest.mark.parametrize("name", MODULES)
def test_module_can_be_imported(name: str) -> None:
    importlib.import_module(f"sb3_dreamer.zoo.{name}")
