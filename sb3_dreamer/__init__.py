"""World-model reinforcement learning as Stable-Baselines3 algorithms."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sb3_dreamer.common.offline import OfflineEnv
    from sb3_dreamer.common.resume.callback import ResumableCheckpoint
    from sb3_dreamer.dream_env import DreamPolicy, DreamVecEnv
    from sb3_dreamer.dreamer_v2 import DreamerV2
    from sb3_dreamer.dreamer_v3 import DreamerV3
    from sb3_dreamer.planet import PlaNet

__version__ = "0.2.0"
__all__ = [
    "DreamPolicy",
    "DreamVecEnv",
    "DreamerV2",
    "DreamerV3",
    "OfflineEnv",
    "PlaNet",
    "ResumableCheckpoint",
    "__version__",
]

_HOMES = {
    "DreamPolicy": "sb3_dreamer.dream_env",
    "DreamVecEnv": "sb3_dreamer.dream_env",
    "DreamerV2": "sb3_dreamer.dreamer_v2",
    "DreamerV3": "sb3_dreamer.dreamer_v3",
    "OfflineEnv": "sb3_dreamer.common.offline",
    "PlaNet": "sb3_dreamer.planet",
    "ResumableCheckpoint": "sb3_dreamer.common.resume.callback",
}


def __getattr__(name: str) -> Any:
    """Import a public class on first use, so that ``sb3_dreamer.wrappers`` works without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sb3_dreamer' has no attribute {name!r}: it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
