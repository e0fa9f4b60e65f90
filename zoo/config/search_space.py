"""Search spaces of ``tune``: a built-in one per algorithm, or a YAML file."""

from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.errors import UsageError, near, quote
from sb3_dreamer.zoo.config.values import check_value, constructor_arguments
from sb3_dreamer.zoo.config.yaml_files import read_yaml

_RATES = {"low": 1e-5, "high": 3e-3, "log": True}
_SHARED: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 3e-3, "log": True},
    "batch_size": [8, 16, 32],
    "batch_length": [16, 32, 64],
}
_DREAMER = _SHARED | {
    "ent_coef": {"low": 1e-4, "high": 1e-2, "log": True},
    "train_ratio": [64, 128, 256, 512],
    "gamma": [0.98, 0.99, 0.995, 0.997],
    "horizon": [5, 10, 15],
}
SPACES: dict[str, dict[str, Any]] = {
    "dreamerv3": _DREAMER,
    "dreamerv2": _DREAMER | {"actor_learning_rate": _RATES, "critic_learning_rate": _RATES},
    "planet": _SHARED
    | {
        "planning_horizon": {"low": 6, "high": 20},
        "planning_iterations": [3, 5, 10],
        "exploration_noise": {"low": 0.1, "high": 0.5},
        "free_nats": {"low": 0.5, "high": 5.0},
    },
}


def load_space(algo: str, path: str) -> dict[str, Any]:
    """Load a space: hyperparameter to a list of choices or to ``{low, high, log}``.

    :param path: YAML file; empty for the built-in space
    :raises UsageError: for an unknown hyperparameter or an empty range
    """
    space = read_yaml(Path(path)) if path else SPACES[algo]
    hints = constructor_arguments(algorithm_class(algo))
    where = path or "search space"
    for name, choices in space.items():
        if name not in hints:
            raise UsageError(f"{where}: unknown hyperparameter {name!r}{near(str(name), hints)}")
        if isinstance(choices, dict):
            if set(choices) - {"low", "high", "log"} or not {"low", "high"} <= set(choices):
                raise UsageError(
                    f"{where}: {name}={quote(choices)}: a range has low and high, and log: true if it is wide"
                )
            if not choices["low"] < choices["high"]:
                raise UsageError(f"{where}: {name}={quote(choices)}: low must be less than high")
        elif not isinstance(choices, list) or not choices:
            raise UsageError(f"{where}: {name}={quote(choices)} must be a list of choices or a range with low and high")
        else:
            for choice in choices:
                check_value(name, choice, hints[name], where)
    return space


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Suggest the hyperparameters of a trial.

    :param trial: Optuna's
    """
    values = {}
    for name, choices in space.items():
        if isinstance(choices, list):
            values[name] = trial.suggest_categorical(name, choices)
        elif isinstance(choices["low"], int) and isinstance(choices["high"], int):
            values[name] = trial.suggest_int(name, choices["low"], choices["high"], log=bool(choices.get("log")))
        else:
            values[name] = trial.suggest_float(
                name, float(choices["low"]), float(choices["high"]), log=bool(choices.get("log"))
            )
    return values
