"""How the environments of a model were set up, and what is different in others. Needs the standard library only."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def suite_preset(env: Any) -> dict[str, Any] | None:
    """Return the settings that ``make_env`` gave an environment, as plain values; None for any other environment.

    :param env: VecEnv or None
    """
    if env is None or not env.has_attr("suite_preset"):  # asking a subprocess for a missing one would end it
        return None
    found = env.get_attr("suite_preset")[0]
    return dict(found) if isinstance(found, dict) else None


def compare_presets(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return one line per difference between two ``SuitePreset.to_dict()`` values, empty if the task is the same.

    Settings that only one of them has are those of another release, and not compared.

    :param stored: what the model was trained with
    :param current: what it is to be evaluated on
    """
    old, new = (
        {name: preset.get(name) for name in ("suite", "task")} | preset.get("settings", {})
        for preset in (stored, current)
    )
    return [f"{name}: {old[name]!r} -> {new[name]!r}" for name in old if name in new and old[name] != new[name]]


def warn_if_different(stored: Mapping[str, Any] | None, current: Mapping[str, Any] | None, stacklevel: int = 2) -> bool:
    """Warn (``UserWarning``) if a model is used on a task that is set up differently from its training task.

    :param stored: what the model was trained with
    :param current: what it is used on
    :param stacklevel: of the warning, as for ``warnings.warn``
    :return: True if they differ; False if they agree or one of them is unknown
    """
    differences = compare_presets(stored, current) if stored and current else []
    if differences:
        warnings.warn(
            f"the environment differs from the one the model was trained on ({'; '.join(differences)}): scores will "
            "not compare; make the environment with the model's suite_preset",
            stacklevel=stacklevel,
        )
    return bool(differences)
