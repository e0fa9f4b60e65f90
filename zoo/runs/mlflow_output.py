"""Write a logger's numbers and videos to MLflow."""

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import KVWriter, Video

from sb3_dreamer.video import write_video


class MLflowOutputFormat(KVWriter):
    """Write a logger's numbers and videos to MLflow's active run, for ``Logger(None, [MLflowOutputFormat()])``.

    Videos (:class:`stable_baselines3.common.logger.Video`) become artifacts ``videos/<key>_<step>.mp4``, or GIFs where
    ffmpeg is missing. Text, figures and histograms are left out, and what is excluded from ``"mlflow"``.

    :raises ModuleNotFoundError: if MLflow is not installed
    """

    def __init__(self) -> None:
        import mlflow

        self.mlflow = mlflow

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Write to the run.

        :param key_values: what was logged
        :param key_excluded: by key, formats that do not get it
        :param step: agent steps
        """
        shown = {key: value for key, value in key_values.items() if "mlflow" not in (key_excluded.get(key) or ())}
        numbers = {
            mlflow_name(key): float(value)
            for key, value in shown.items()
            if isinstance(value, int | float | np.integer | np.floating | np.bool_)
        }
        if numbers:
            self.mlflow.log_metrics(numbers, step=step)
        for key, value in shown.items():
            if isinstance(value, Video):
                folder, _, name = f"videos/{mlflow_name(key)}".rpartition("/")
                with tempfile.TemporaryDirectory() as temporary:
                    path = write_video(Path(temporary) / f"{name}_{step}.mp4", to_frames(value.frames), value.fps)
                    if path is not None:
                        self.mlflow.log_artifact(str(path), folder)

    def close(self) -> None:
        """Leave the run open; who started it ends it."""


def mlflow_name(key: str) -> str:
    """Replace what MLflow does not allow in names."""
    return re.sub(r"[^\w\-. /]", "_", key)


def to_frames(video: th.Tensor) -> np.ndarray:
    """Turn the first video of a batch into frames.

    :param video: ``(B, T, C, H, W)``, uint8 or in [0, 1]
    :return: ``(T, H, W, C)`` uint8
    """
    frames = th.as_tensor(video)[0].permute(0, 2, 3, 1)
    return (frames if frames.dtype == th.uint8 else (frames * 255).round().to(th.uint8)).cpu().numpy()
