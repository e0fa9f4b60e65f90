"""DreamerV3: one set of hyperparameters for every domain (arXiv 2301.04104)."""

from sb3_dreamer.common.open_loop import OpenLoopCallback
from sb3_dreamer.common.updates.nonfinite import NonFiniteError
from sb3_dreamer.common.world_model_view import Latents, WorldModelView
from sb3_dreamer.dreamer_v3.dreamer_v3 import DreamerV3
from sb3_dreamer.dreamer_v3.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v3.replay import AnnotatedReplayBuffer
from sb3_dreamer.dreamer_v3.spec import SIZES, DreamerV3Spec, DreamerV3Spec2024

__all__ = [
    "SIZES",
    "AnnotatedReplayBuffer",
    "CnnPolicy",
    "DreamerV3",
    "DreamerV3Spec",
    "DreamerV3Spec2024",
    "Latents",
    "MlpPolicy",
    "MultiInputPolicy",
    "NonFiniteError",
    "OpenLoopCallback",
    "WorldModelView",
]
