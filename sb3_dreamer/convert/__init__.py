"""Weights and checkpoints of the authors' code in our models."""

from sb3_dreamer.convert.checkpoint import load_official
from sb3_dreamer.convert.dreamer_v2 import weights_v2
from sb3_dreamer.convert.dreamer_v3_2023 import weights_2023
from sb3_dreamer.convert.dreamer_v3_2024 import weights_2024
from sb3_dreamer.convert.renaming import copy_weights

__all__ = ["copy_weights", "load_official", "weights_2023", "weights_2024", "weights_v2"]
