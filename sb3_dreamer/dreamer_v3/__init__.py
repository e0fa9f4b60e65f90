"""DreamerV3: one set of hyperparameters for every domain (arXiv 2301.04104)."""

from sb3_dreamer.dreamer_v3.dreamer_v3 import DreamerV3
from sb3_dreamer.dreamer_v3.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v3.spec import SIZES, DreamerV3Spec

__all__ = ["SIZES", "CnnPolicy", "DreamerV3", "DreamerV3Spec", "MlpPolicy", "MultiInputPolicy"]
