"""Atari games through ale-py, preprocessed as the Dreamer papers do."""

from __future__ import annotations

import gymnasium as gym

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.action_repeat import ActionRepeat
from sb3_dreamer.wrappers.benchmarks.errors import require
from sb3_dreamer.wrappers.benchmarks.presets import Settings
from sb3_dreamer.wrappers.benchmarks.tasks import ATARI_55
from sb3_dreamer.wrappers.frame_limit import FrameLimit
from sb3_dreamer.wrappers.life_loss import LifeLoss
from sb3_dreamer.wrappers.noop_reset import NoopReset
from sb3_dreamer.wrappers.resize_frame import ResizeFrame

INSTALL = 'pip install "sb3-dreamer[atari]"'


def squeeze_name(name: str) -> str:
    """Return a game name without case and underscores: ``"MsPacman"`` and ``"ms_pacman"`` are the same game."""
    return name.replace("_", "").lower()


EMULATOR_FPS = 60
PAPER_GAMES = frozenset(squeeze_name(game) for game in (*ATARI_55, "defender", "surround"))


def game_id(task: str) -> str:
    """Return the gymnasium id of a game.

    :param task: game name in any usual spelling: ``"pong"``, ``"Pong"``, ``"ms_pacman"``, ``"james_bond"``
    :raises ValueError: if there is no such game
    """
    gym.register_envs(require("ale_py", "atari", INSTALL))
    games = {squeeze_name(i[4:-3]): i for i in gym.registry if i.startswith("ALE/") and i.endswith("-v5")}
    squeezed = squeeze_name(task)
    if squeezed not in games:
        raise ValueError(f"there is no Atari game {task!r}{near(squeezed, games)}")
    return games[squeezed]


def set_frame_rate(env: gym.Env) -> None:
    """Write the speed of the game into ``env.metadata``: ale-py says 30 frames per second whatever its frameskip.

    :param env: a game made by ``gymnasium.make``
    """
    skip = env.unwrapped._frameskip  # type: ignore[attr-defined]
    mean_skip = (skip[0] + skip[1] - 1) / 2 if isinstance(skip, tuple) else skip  # drawn below the upper bound
    env.metadata = {**env.metadata, "render_fps": EMULATOR_FPS / mean_skip}


def make_atari(task: str, settings: Settings, render_mode: str | None = None) -> gym.Env:
    """Make one game with no-op starts, time limit, repeat, pooling and resizing.

    Inside out: emulator (one frame per step, sticky actions) → no-ops → time limit in frames → lives → repeat with
    max-pooling → resize and gray. Differs from Stable-Baselines3's ``AtariWrapper`` in everything but the repeat: no
    end of episode at a lost life, no FIRE at the start, raw rewards, 64 or 96 pixels, color in DreamerV3.

    :param task: game name
    :param settings: the preset's settings
    :param render_mode: passed to ALE
    """
    env = gym.make(
        game_id(task),
        render_mode=render_mode,
        disable_env_checker=True,
        obs_type="grayscale" if settings.grayscale == "screen" else "rgb",
        frameskip=1,
        repeat_action_probability=settings.sticky,
        full_action_space=settings.all_actions,
        max_num_frames_per_episode=0,  # no limit of the emulator's; ours counts from the end of the no-ops
    )
    set_frame_rate(env)
    if settings.noops[1] > 0:
        env = NoopReset(env, *settings.noops)
    if settings.time_limit is not None:
        env = FrameLimit(env, settings.time_limit)
    if settings.lives != "unused":
        env = LifeLoss(env, settings.lives)
    env = ActionRepeat(env, settings.action_repeat, settings.max_pool)
    return ResizeFrame(env, settings.size, settings.resize, grayscale=bool(settings.grayscale))
