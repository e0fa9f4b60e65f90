"""Gymnasium wrappers and benchmark suites; usable without torch.

``make_env`` makes any environment of the papers; every wrapper also stands alone. Nothing here imports torch: the
vector-environment helpers load Stable-Baselines3 when they are first called.
"""

from typing import Any

from sb3_dreamer.suite_presets import compare_presets, warn_if_different
from sb3_dreamer.video import VideoWriter, write_video
from sb3_dreamer.wrappers.action_repeat import ActionRepeat
from sb3_dreamer.wrappers.benchmarks.errors import SuiteNotInstalledError
from sb3_dreamer.wrappers.benchmarks.presets import PRESETS, Settings, SuiteInfo, SuitePreset
from sb3_dreamer.wrappers.benchmarks.suites import SUITES, make_env
from sb3_dreamer.wrappers.benchmarks.table import suite_table
from sb3_dreamer.wrappers.check import EnvReport, Finding, check_dreamer_env
from sb3_dreamer.wrappers.discount_info import DiscountInfo
from sb3_dreamer.wrappers.episode_recorder import EpisodeRecorder
from sb3_dreamer.wrappers.filter_keys import FilterKeys
from sb3_dreamer.wrappers.frame_counter import FrameCounter
from sb3_dreamer.wrappers.frame_limit import FrameLimit
from sb3_dreamer.wrappers.life_loss import LifeLoss
from sb3_dreamer.wrappers.noop_reset import NoopReset
from sb3_dreamer.wrappers.normalize_action import NormalizeAction
from sb3_dreamer.wrappers.one_hot_action import OneHotAction
from sb3_dreamer.wrappers.pixel_observation import PixelObservation
from sb3_dreamer.wrappers.resize_frame import ResizeFrame
from sb3_dreamer.wrappers.squash_reward import SquashReward
from sb3_dreamer.wrappers.stack_channels import StackChannels
from sb3_dreamer.wrappers.tidy_observation import TidyObservation
from sb3_dreamer.wrappers.vec.make import make_vec_env
from sb3_dreamer.wrappers.vec.worker import WorkerError

__all__ = [
    "PRESETS",
    "SUITES",
    "ActionRepeat",
    "DiscountInfo",
    "EnvReport",
    "EpisodeRecorder",
    "FilterKeys",
    "Finding",
    "FrameCounter",
    "FrameLimit",
    "LifeLoss",
    "NoopReset",
    "NormalizeAction",
    "OneHotAction",
    "PixelObservation",
    "ResizeFrame",
    "RestartingVecEnv",
    "Settings",
    "SquashReward",
    "StackChannels",
    "SuiteInfo",
    "SuiteNotInstalledError",
    "SuitePreset",
    "TidyObservation",
    "VideoWriter",
    "WorkerError",
    "check_dreamer_env",
    "compare_presets",
    "make_env",
    "make_vec_env",
    "suite_table",
    "warn_if_different",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Import the class that needs Stable-Baselines3 when it is asked for."""
    if name == "RestartingVecEnv":
        from sb3_dreamer.wrappers.vec.restarting_vec_env import RestartingVecEnv

        return RestartingVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
