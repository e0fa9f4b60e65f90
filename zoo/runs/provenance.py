"""Record where a run came from: versions, git state, machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("sb3-dreamer", "stable-baselines3", "torch", "gymnasium", "numpy", "safetensors", "ale-py", "dm_control")


def describe_system() -> dict[str, Any]:
    """Collect versions of Python and packages, git commit, processor count."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": versions,
        "git": git_state(),
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit of the source tree and the number of changed files; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "changed_files": len(_git(root, "status", "--porcelain").splitlines())}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
