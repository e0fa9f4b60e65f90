"""Videos during training: an episode of the agent and open-loop predictions, for the logger's outputs."""

import warnings
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dreamer.common.open_loop import SIDE, OpenLoopCallback, log_video
from sb3_dreamer.video import whole_scale
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.runs.episodes import play

LONGEST = 500  # frames of an episode that are kept


def make_callbacks(model: Any, env: Any, every: int, deterministic: bool) -> list[BaseCallback]:
    """Make the callbacks that log videos.

    :param model: of any algorithm here; one without decoder shows no predictions
    :param env: vector environment that renders, for videos alone
    :param every: agent steps between two videos
    :param deterministic: take the most likely action
    """
    callbacks: list[BaseCallback] = [AgentVideo(env, every, deterministic)]
    if model.policy.world_model.decoder is not None:
        callbacks.append(OpenLoopCallback(every))
    return callbacks


class AgentVideo(BaseCallback):
    """Log a video of an episode, ``eval/video``, at an interval. An environment that cannot be drawn is a warning.

    :param eval_env: vector environment; its first one is shown, for at most 500 steps. By this name it is
        seeded at checkpoints
    :param every: agent steps between two videos
    :param deterministic: take the most likely action
    """

    def __init__(self, eval_env: Any, every: int, deterministic: bool):
        super().__init__()
        self.eval_env, self.every, self.deterministic = eval_env, every, deterministic

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: when the next video is due."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.next_step = int(state["next_step"])

    def _on_training_start(self) -> None:
        self.next_step = self.num_timesteps + self.every

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.next_step:
            self.next_step += self.every
            try:
                frames = self._act()
                log_video(self.logger, "eval/video", frames, frames_per_second(self.eval_env), self.num_timesteps)
            except (UsageError, OSError) as error:
                warnings.warn(f"no video at step {self.num_timesteps:,}: {one_line(error)}", stacklevel=2)
        return True

    def _act(self) -> np.ndarray:
        """Return the frames of an episode, ``(T, H, W, 3)``, as large as those of open-loop videos."""
        frames: list[np.ndarray] = []

        def keep() -> None:
            image = render_image(self.eval_env)
            step, scale = max(1, min(image.shape[:2]) // SIDE), whole_scale(image.shape[:2], SIDE)
            frames.append(image[::step, ::step].repeat(scale, axis=0).repeat(scale, axis=1))

        steps = LONGEST * self.eval_env.num_envs
        for episode in play(self.model, self.eval_env, self.deterministic, n_steps=steps, on_state=keep):
            if episode.env_index == 0:
                break
        return np.stack(frames)


def render_image(env: Any) -> Any:
    """Render the first environment."""
    try:
        image = env.get_images()[0]
    except Exception as error:
        raise UsageError(f"the environment renders no images: {one_line(error)}") from error
    if image is None:
        raise UsageError("the environment renders no images (render() returned None)")
    return image


def frames_per_second(env: Any) -> float:
    """Return the environment's own speed in agent steps per second, 30 where it has none."""
    try:
        metadata = env.get_attr("metadata")[0]
    except AttributeError:
        metadata = {}
    return float((metadata or {}).get("render_fps") or 30)
