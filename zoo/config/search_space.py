"""Search spaces of ``tune``: a built-in one per algorithm, or a YAML file."""

import math
from pathlib import Path
from typing import Any

import optuna

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.arguments import write_value
from sb3_dreamer.zoo.config.errors import UsageError, quote
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
    """Load a space: hyperparameter to a list of choices or to ``{low, high, log}``, of the constructor's types.

    :param path: YAML file; empty for the built-in space
    :raises UsageError: for an unknown hyperparameter, a value of another type, an empty range or an empty file
    """
    space = read_yaml(Path(path)) if path else SPACES[algo]
    hints = constructor_arguments(algorithm_class(algo))
    where = path or "search space"
    if not space:
        raise UsageError(f"{where} names no hyperparameter: write for example gamma: [0.95, 0.98]")
    checked: dict[str, Any] = {}
    for name, choices in space.items():
        if name not in hints:
            raise UsageError(f"{where}: unknown hyperparameter {name!r}{near(str(name), hints)}")
        if isinstance(choices, dict):
            checked[name] = _check_range(name, choices, hints[name], where)
        elif isinstance(choices, list) and choices:
            checked[name] = [check_value(name, choice, hints[name], where) for choice in choices]
        else:
            raise UsageError(f"{where}: {name}={quote(choices)} must be a list of choices or a range with low and high")
    return checked


def _check_range(name: str, choices: dict[str, Any], hint: Any, where: str) -> dict[str, Any]:
    """Return a range with bounds of the hyperparameter's type.

    :raises UsageError: if there is no number between them
    """
    what = f"{where}: {name}={quote(choices)}"
    if set(choices) - {"low", "high", "log"} or not {"low", "high"} <= set(choices):
        raise UsageError(f"{what}: a range has low and high, and log: true if it is wide")
    low, high = (check_value(f"{bound} of {name}", choices[bound], hint, where) for bound in ("low", "high"))
    log = choices.get("log", False)
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in (low, high)):
        raise UsageError(f"{what}: a range is for numbers; write a list of choices")
    if not isinstance(log, bool):
        raise UsageError(f"{what}: log must be true or false")
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"{what}: low must be less than high, both finite")
    if log and low <= 0:
        raise UsageError(f"{what}: with log: true, low must be above 0")
    return {"low": low, "high": high, "log": log}


def check_study(study: Any, space: dict[str, Any]) -> None:
    """Refuse a space whose choices are not those of the study so far, which Optuna cannot mix.

    :param study: Optuna's
    :raises UsageError: naming the hyperparameter
    """
    for trial in study.trials:
        for name in set(trial.distributions) & set(space):
            former, wanted = trial.distributions[name], _distribution(space[name])
            try:
                optuna.distributions.check_distribution_compatibility(former, wanted)
            except ValueError:
                raise UsageError(
                    f"the study {study.study_name!r} searched {name} in {_as_in_a_file(former)}, not in "
                    f"{_as_in_a_file(wanted)}: pass another --study-name"
                ) from None


def _as_in_a_file(distribution: Any) -> str:
    """Write Optuna's form of choices or a range as a file has it."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return quote(list(distribution.choices))
    return quote({name: getattr(distribution, name) for name in ("low", "high", "log")})


def _distribution(choices: Any) -> Any:
    """Return Optuna's form of choices or a range. Lists and mappings are written as text, which a database can hold."""
    if isinstance(choices, list):
        return optuna.distributions.CategoricalDistribution([_label(choice) for choice in choices])
    whole = isinstance(choices["low"], int) and isinstance(choices["high"], int)
    cls = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return cls(choices["low"], choices["high"], log=choices["log"])


def _label(choice: Any) -> Any:
    return choice if choice is None or isinstance(choice, bool | int | float | str) else write_value(choice)


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Suggest the hyperparameters of a trial.

    :param trial: Optuna's
    """
    values = {}
    for name, choices in space.items():
        if isinstance(choices, list):
            by_label = {_label(choice): choice for choice in choices}
            values[name] = by_label[trial.suggest_categorical(name, [_label(choice) for choice in choices])]
        elif isinstance(choices["low"], int) and isinstance(choices["high"], int):
            values[name] = trial.suggest_int(name, choices["low"], choices["high"], log=choices["log"])
        else:
            values[name] = trial.suggest_float(name, choices["low"], choices["high"], log=choices["log"])
    return values
