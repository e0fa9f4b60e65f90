"""Find algorithms by their names on the command line."""

from typing import Any

import sb3_dreamer
from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.errors import UsageError

CLASSES = {"dreamerv3": "DreamerV3", "dreamerv2": "DreamerV2", "planet": "PlaNet"}
ALGORITHMS = tuple(name for name, cls in CLASSES.items() if cls in sb3_dreamer.__all__)
DEFAULT_ALGORITHM = "dreamerv3"
# Where a task name without a suite belongs, first match first: the suite that each paper is best known for.
SUITE_ORDER = {
    "planet": ("planet", "dmc_vision", "dmc_proprio"),
    "dreamerv2": ("atari", "dmc_vision", "dmc_proprio", "crafter"),
    "dreamerv3": ("atari", "dmc_vision", "dmc_proprio", "crafter", "bsuite", "dmlab", "minecraft"),
}


def check_algorithm(name: str) -> str:
    """Return the name if there is such an algorithm.

    :raises UsageError: with the nearest known name
    """
    if name not in ALGORITHMS:
        raise UsageError(f"unknown algorithm {name!r}{near(name, ALGORITHMS)}: use {', '.join(ALGORITHMS)}")
    return name


def algorithm_class(name: str) -> Any:
    """Return the class of an algorithm; imports torch.

    :raises UsageError: for an unknown name
    """
    return getattr(sb3_dreamer, CLASSES[check_algorithm(name)])
