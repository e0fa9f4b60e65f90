"""Environments and models of :mod:`sb3_dreamer.zoo.studies.learning_check`, from its settings."""

import difflib
import functools
from collections.abc import Callable
from typing import Any

import yaml

from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.config.values import check_values, to_constructor
from sb3_dreamer.zoo.config.yaml_files import StrictLoader


def parse_wrappers(text: str | None) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    """Wrapper classes with their arguments, from what a hyperparameter file has after ``env_wrapper:``.

    :param text: YAML in one line: a dotted path, or ``[{path: {argument: value}}]``, innermost first; None for none
    :raises UsageError: if it is not plain YAML, or there is no such class
    """
    from sb3_dreamer.zoo.config.environments import find_wrappers

    try:
        return find_wrappers(yaml.load(text, Loader=StrictLoader) if text else None)
    except yaml.YAMLError as error:
        raise UsageError(f"--env-wrapper {text!r} is not plain YAML: {one_line(error)}") from error


def make_envs(settings: dict[str, Any], n: int, first_seed: int) -> Any:
    """Monitored environments of a check; wrappers lie outside the monitor, so that returns are the task's own.

    :param settings: of the check
    :param n: copies
    :param first_seed: of the first copy
    """
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_dreamer.wrappers import make_env
    from sb3_dreamer.zoo.config.environments import apply_wrappers

    wrap = functools.partial(apply_wrappers, wrappers=parse_wrappers(settings["env_wrapper"]))
    return make_vec_env(
        lambda: make_env(settings["env"], **settings["env_kwargs"]), n_envs=n, seed=first_seed, wrapper_class=wrap
    )


def make_model(settings: dict[str, Any], policy: str, env: Any, seed: int) -> Any:
    """The algorithm with its preset and parameters; ``lin_0.001`` is a schedule that falls to 0.

    :param settings: of the check
    :param policy: alias, used where the settings name none
    :param env: training environments
    :param seed: of the training
    :raises UsageError: for an unknown parameter, with the nearest known one, or a value of another type
    """
    algorithm = find_algorithm(settings["algo"])
    preset = getattr(algorithm, "presets", {})[settings["preset"]] if settings["preset"] else {}
    values = check_values(preset | settings["params"], algorithm, "-params")
    name = settings["policy"] or policy
    return algorithm(name, env, seed=seed, device=settings["device"], **to_constructor(values, algorithm))


def find_algorithm(name: str) -> type:
    """The class for ``DreamerV3``, ``dreamerv3`` or ``dreamer_v3``."""
    import sb3_dreamer

    known = {label.lower(): label for label in sb3_dreamer.__all__ if not label.startswith("_")}
    plain = name.replace("_", "").lower()
    if plain not in known:
        close = difflib.get_close_matches(plain, known, n=1)
        hint = f" (did you mean {known[close[0]]}?)" if close else ""
        raise ValueError(f"algorithm {name!r} is unknown{hint}: use {', '.join(known.values())}")
    algorithm: type = getattr(sb3_dreamer, known[plain])
    return algorithm
