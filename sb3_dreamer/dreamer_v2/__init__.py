"""DreamerV2 (arXiv 2010.02193)."""

from sb3_dreamer.dreamer_v2.dreamer_v2 import DreamerV2
from sb3_dreamer.dreamer_v2.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v2.spec import PRESETS, SIZES, DreamerV2Spec

__all__ = ["PRESETS", "SIZES", "CnnPolicy", "DreamerV2", "DreamerV2Spec", "MlpPolicy", "MultiInputPolicy"]
