"""The result file of :mod:`sb3_dreamer.zoo.studies.learning_check`: settings, runs by seed, command, versions."""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

VERSIONS = ("sb3-dreamer", "stable-baselines3", "gymnasium", "torch", "numpy")


def read_results(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The stored results, or an empty set.

    :raises ValueError: if the file holds results of other settings
    """
    if not path.exists():
        return {"settings": settings, "runs": {}}
    stored: dict[str, Any] = json.loads(path.read_text())
    plain = json.loads(json.dumps(settings))
    changed = [key for key in plain if stored["settings"].get(key) != plain[key]]
    if changed:
        raise ValueError(f"{path} holds results with other {', '.join(changed)}: use another --name, or remove it")
    return stored


def store(path: Path, settings: dict[str, Any], run: dict[str, Any] | None, command: str) -> dict[str, Any]:
    """Add one run (or none) and the command to the file, whole or not at all, and give all results."""
    results = read_results(path, settings)
    if run is not None:
        results["runs"][str(run["seed"])] = run
    results["runs"] = dict(sorted(results["runs"].items(), key=lambda item: int(item[0])))
    results["command"] = command
    results["versions"] = {name: importlib.metadata.version(name) for name in VERSIONS}
    results["python"] = sys.version.split()[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(results, indent=1) + "\n")
    draft.replace(path)
    return results
