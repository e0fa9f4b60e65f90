"""Reading YAML strictly: safe types only, no key twice, numbers such as ``1e-3`` are numbers."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from sb3_dreamer.zoo.programs.errors import UsageError, one_line


class StrictLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` that refuses duplicate keys and reads ``1e-3`` as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Make a dict; a key that is written twice is an error (a merged ``<<`` may be overridden)."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key, str) and key != "<<" and key in seen and key_node.start_mark.line >= 0:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge ``<<``, dropping what the mapping itself overrides, so that only real duplicates are left."""
        own = {key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"}
        count = sum(key.tag != "tag:yaml.org,2002:merge" for key, _ in node.value)
        super().flatten_mapping(node)
        merged, written = node.value[: len(node.value) - count], node.value[len(node.value) - count :]
        node.value = [(key, value) for key, value in merged if key.value not in own] + written


class StrictDumper(yaml.SafeDumper):
    """``yaml.SafeDumper`` that quotes the texts which ``StrictLoader`` would read as numbers (``"12e4"``)."""


_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
for _class in (StrictLoader, StrictDumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file; an empty file is an empty mapping.

    :raises UsageError: if there is no such file, or it is not YAML of plain values
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {one_line(error)}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not plain YAML: {one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold a mapping of task names, not {type(content).__name__}")
    return content


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping of plain values in its own order."""
    text = yaml.dump(content, Dumper=StrictDumper, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
