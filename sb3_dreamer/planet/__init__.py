"""PlaNet: planning in the latent space of a learned world model (arXiv 1811.04551)."""

from sb3_dreamer.planet.planet import PlaNet
from sb3_dreamer.planet.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.planet.replay import RecentReplayBuffer
from sb3_dreamer.planet.spec import SIZES, PlaNetSpec

__all__ = ["SIZES", "CnnPolicy", "MlpPolicy", "MultiInputPolicy", "PlaNet", "PlaNetSpec", "RecentReplayBuffer"]
