"""Read YAML strictly: plain values only, no key twice, no alias bombs, and ``1e-3`` is a number."""

import re
from pathlib import Path
from typing import Any

import yaml

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.zoo.config.errors import UsageError, one_line

LARGEST = 100_000  #: values in a file; those behind an alias count wherever the alias stands


class StrictLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` that refuses duplicate keys and alias bombs, and reads ``1e-3`` as YAML 1.2 does."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Build a node and count the values in it."""
        alias = self.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        if alias and node not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "a value contains itself", node.start_mark)
        if not alias:
            parts = [] if isinstance(node, yaml.ScalarNode) else node.value
            inside = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
            self._sizes[node] = 1 + sum(self._sizes[part] for part in inside)
        if self._sizes[node] > LARGEST:
            raise yaml.composer.ComposerError(None, None, f"more than {LARGEST:,} values", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Build a mapping; a key that is written twice is an error (a merged ``<<`` may be overridden)."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} appears twice", key.start_mark)
            seen.add(str(key.value))
        return node


def _pairs(loader: StrictLoader, node: Any) -> dict[Any, Any]:
    """Read an ``OrderedDict`` of rl_zoo3's config.yml as the list of pairs that it is; nothing is run."""
    (pairs,) = loader.construct_sequence(node, deep=True)
    return dict(pairs)


StrictLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _pairs)


class StrictDumper(yaml.SafeDumper):
    """``yaml.SafeDumper`` that quotes the texts which ``StrictLoader`` would read as numbers (``"12e4"``)."""


_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
for _class in (StrictLoader, StrictDumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a file; an empty file is an empty mapping.

    :raises UsageError: if there is no such file, or it is not YAML of plain values
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {one_line(error)}") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # also for dates that do not exist
        raise UsageError(f"{path} is not plain YAML: {one_line(error)}") from error
    except RecursionError:
        raise UsageError(f"{path} is not plain YAML: it is nested too deeply") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold a mapping (name: value), not {type(content).__name__}")
    return content


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping of plain values in its own order."""
    text = yaml.dump(content, Dumper=StrictDumper, sort_keys=False, allow_unicode=True)
    with atomic_write(path) as file:
        file.write(text.encode())
