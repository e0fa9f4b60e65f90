"""The smallest working settings of each algorithm, for tests that all algorithms pass."""

from typing import Any

import numpy as np

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.algorithm import WorldModelAlgorithm

IMAGINES: dict[str, Any] = {
    "model_size": "debug",
    "batch_size": 2,
    "batch_length": 8,
    "horizon": 3,
    "learning_starts": 20,
    "train_ratio": 4,
    "buffer_size": 1000,
}
PLANS: dict[str, Any] = {
    "model_size": "debug",
    "batch_size": 2,
    "batch_length": 8,
    "seed_episodes": 1,
    "collect_interval": 3,
    "planning_horizon": 3,
    "planning_iterations": 2,
    "planning_candidates": 10,
    "planning_elites": 3,
    "buffer_size": 1000,
}


class DreamerV3In2024(DreamerV3):
    """The other released version of DreamerV3, under a name of its own."""


class DreamerV3Variant(DreamerV3):
    """DreamerV3 without a decoder and with an explorer that collects, under a name of its own."""


TINY: dict[type[WorldModelAlgorithm], dict[str, Any]] = {
    DreamerV3: IMAGINES,
    DreamerV3In2024: IMAGINES | {"model_size": "debug2024"},
    DreamerV3Variant: IMAGINES
    | {"policy_kwargs": {"representation": "barlow", "exploration": "plan2explore", "ensemble": 2}},
    DreamerV2: IMAGINES,
    PlaNet: PLANS,
}
ALGORITHMS: list[type[WorldModelAlgorithm]] = [DreamerV3, DreamerV2, PlaNet]
VARIANTS = [*ALGORITHMS, DreamerV3In2024, DreamerV3Variant]


def without_context(algorithm: type[WorldModelAlgorithm]) -> dict[str, Any]:
    """Arguments with which replay hands out all rows it draws: the 2024 version holds the first one back as context."""
    return {"replay_context": False} if issubclass(algorithm, DreamerV3) else {}


def tiny(algorithm: type[WorldModelAlgorithm], policy: str, env: Any, **kwargs: Any) -> WorldModelAlgorithm:
    """A model of the smallest size; 44 steps give 6 updates."""
    return algorithm(policy, env, **{**TINY[algorithm], "seed": 0, **kwargs})


def weights(model: WorldModelAlgorithm) -> dict[str, np.ndarray]:
    """Copies of all tensors of the policy."""
    return {name: value.numpy().copy() for name, value in model.policy.state_dict().items()}


def equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    """Whether two sets of tensors are the same bit for bit."""
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
