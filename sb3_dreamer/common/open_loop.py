"""Open-loop prediction while training: numbers per horizon and a video, at an interval."""

from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HumanOutputFormat,
    JSONOutputFormat,
    Logger,
    TensorBoardOutputFormat,
    Video,
)

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.arguments import check_range
from sb3_dreamer.common.diagnosis import MIN_UPDATES, open_loop_no_better
from sb3_dreamer.core.open_loop import PANELS, OpenLoop, open_loop_errors, open_loop_frames, predict_open_loop
from sb3_dreamer.core.types import ObsKey, SequenceBatch
from sb3_dreamer.video import encode_gif, label_columns, whole_scale, write_video

HORIZONS = (1, 5, 15, 45)  #: steps ahead that are logged one by one
SIDE = 192  #: smaller images are enlarged in videos


class OpenLoopCallback(BaseCallback):
    """Compare predictions from actions alone with what happened, at an interval.

    It logs ``open_loop/<error>`` (mean over the horizon) and ``open_loop/<error>_<steps ahead>``, named as in
    :func:`sb3_dreamer.core.open_loop.open_loop_errors`. Sequences come from replay, chosen by a generator of its own:
    a run with the callback is the same run as without it. It warns once if replay is too short to predict anything, and
    if there is a ``folder`` but no image to show.

    :param every: agent steps between two predictions; updates in ``learn_offline``, which takes no steps
    :param context: rows that the model sees (the paper: 5)
    :param horizon: rows that it predicts (the paper: 45); fewer while replay holds no longer stretch
    :param sequences: how many are averaged
    :param shown: how many are shown in the video, if the observation has an image
    :param folder: where videos go, as MP4, or as GIF where ffmpeg is missing; None: to the log only, see
        :func:`log_video`
    :param fps: frames per second of the videos
    :param seed: of the choice of sequences
    """

    model: WorldModelAlgorithm

    def __init__(
        self,
        every: int = 10_000,
        *,
        context: int = 5,
        horizon: int = 45,
        sequences: int = 16,
        shown: int = 3,
        folder: str | Path | None = None,
        fps: int = 10,
        seed: int = 0,
    ):
        super().__init__()
        numbers = {"every": every, "context": context, "horizon": horizon, "sequences": sequences, "fps": fps}
        for name, number in numbers.items():
            check_range(name, number, 1, whole=True)
        check_range("shown", shown, 0, whole=True)
        self.every = every
        self.context = context
        self.horizon = horizon
        self.sequences = sequences
        self.shown = shown
        self.folder = None if folder is None else Path(folder)
        self.fps = fps
        self.rng = np.random.default_rng(seed)
        self.next_step = every
        self.errors: dict[str, np.ndarray] = {}  #: of the last prediction, ``(H,)`` each
        self.videos: dict[str, np.ndarray] = {}  #: of the last prediction, by image key, ``(T, rows, columns, 3)``
        self._warned: set[str] = set()

    def _init_callback(self) -> None:
        if not isinstance(self.model, WorldModelAlgorithm):
            raise TypeError(
                f"OpenLoopCallback is for the algorithms of sb3_dreamer: {type(self.model).__name__} has no world model"
            )
        if self.model.policy.world_model.decoder is None:
            raise ValueError(
                "OpenLoopCallback compares predicted observations, and this model has no decoder: leave the callback "
                "out, or train with policy_kwargs={'representation': 'decoder'}"
            )
        if self.folder is not None and self.shown and not self._images():
            space = self.model.observation_space
            text = f"folder={str(self.folder)!r} will get no videos, because {space} has no image: leave folder out"
            self._warn_once("folder", f"{text}, errors are logged all the same")

    @property
    def logger(self) -> Logger:
        """The model's log; one that nobody sees for a loaded model, which has none before it learns."""
        return getattr(self.model, "_logger", None) or Logger(None, [])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: when it is due, and the generator."""
        return {"next_step": self.next_step, "random": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.next_step = int(state["next_step"])
        self.rng.bit_generator.state = state["random"]

    @property
    def step(self) -> int:
        """What ``every`` counts: agent steps, or updates in ``learn_offline``."""
        assert isinstance(self.model, WorldModelAlgorithm)
        return self.model._n_updates if "updates" in self.locals else self.num_timesteps

    def _on_training_start(self) -> None:
        self.next_step = self.step + self.every

    def _on_step(self) -> bool:
        if self.step >= self.next_step:
            self.next_step += self.every
            try:
                self.look()
            except OSError as error:
                self.model.warn(f"no open-loop video: {error}; training continues")
        return True

    def look(self) -> dict[str, np.ndarray]:
        """Predict, log and write the video now; as long as replay is too short, warn once and do nothing.

        :return: errors by name, ``(H,)`` each; empty if replay is too short
        """
        policy, rows = self.model.policy, int(self.model.replay_buffer.filled.max())
        horizon = min(self.horizon, rows - self.context - 1)
        if horizon < 1:
            self._warn_of_replay(rows)
            return {}
        with policy.own_random_state():
            batch, state = self.model.replay_buffer.sample_aside(self.rng, self.sequences, self.context + horizon)
            prediction = predict_open_loop(policy.world_model, batch, self.context, state)
        errors = open_loop_errors(prediction, batch, policy.keys, self.context)
        self.errors = {name: value.cpu().numpy() for name, value in errors.items()}
        self._log()
        self._show(prediction, batch)
        return self.errors

    def _warn_of_replay(self, rows: int) -> None:
        needs = f"replay holds {rows} rows, and context={self.context} needs at least {self.context + 2}"
        advice = "wait until more is collected" if rows else "call learn() or model.load_replay_buffer() first"
        self._warn_once("replay", f"nothing was predicted open loop: {needs}; {advice}")

    def _warn_once(self, subject: str, text: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            self.model.warn(text)

    def _images(self) -> list[ObsKey]:
        return [key for key in self.model.policy.keys if key.kind == "image"]

    def _log(self) -> None:
        for name, values in self.errors.items():
            if np.isfinite(values).any():
                self.logger.record(f"open_loop/{name}", float(np.nanmean(values)))
            for steps in HORIZONS:
                if steps <= len(values) and np.isfinite(values[steps - 1]):
                    self.logger.record(f"open_loop/{name}_{steps}", float(values[steps - 1]))
        if self.model._n_updates < MIN_UPDATES:
            return
        kind = next(name for name in ("image_error", "vector_error", "discrete_error") if name in self.errors)
        if np.isfinite(self.errors[kind]).any():
            model, copy = (float(np.nanmean(self.errors[name])) for name in (kind, f"{kind}_copy"))
            text = open_loop_no_better(model, copy)
            if self.model._diagnosis.due("open_loop", text, patience=3):
                assert text is not None
                self.model.warn(text)

    def _show(self, prediction: OpenLoop, batch: SequenceBatch) -> None:
        if not self.shown:
            return
        few = batch.map(lambda part: part[: self.shown])
        for key in self._images():
            shown = OpenLoop({key.name: prediction.obs[key.name][: self.shown]}, prediction.reward, prediction.cont)
            frames = self.videos[key.name] = labeled_frames(shown, few, key, self.context)
            if self.folder is not None:
                name = "".join(c if c.isalnum() else "_" for c in key.name)
                write_video(self.folder / f"open_loop_{name}_{self.step}.mp4", frames, self.fps)
            log_video(self.logger, f"open_loop/{key.name}", frames, self.fps, self.step)


def labeled_frames(prediction: OpenLoop, batch: SequenceBatch, key: ObsKey, context: int) -> np.ndarray:
    """Frames of :func:`sb3_dreamer.core.open_loop.open_loop_frames`, enlarged, with a name above each column."""
    frames = open_loop_frames(prediction, batch, key, context).cpu().numpy()
    scale = whole_scale(key.shape[1:], SIDE)
    return label_columns(frames.repeat(scale, axis=1).repeat(scale, axis=2), PANELS)


def log_video(logger: Logger, tag: str, frames: np.ndarray, fps: float, step: int) -> None:
    """Write a video to TensorBoard, and as SB3's ``Video`` to outputs of other libraries.

    :param logger: SB3's tables, CSV and JSON files get nothing
    :param tag: name
    :param frames: ``(T, H, W, 3)`` uint8
    :param fps: frames per second
    :param step: agent steps
    """
    for output in logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            _add_video(output, tag, frames, fps, step)
        elif not isinstance(output, HumanOutputFormat | CSVOutputFormat | JSONOutputFormat):
            video = Video(th.from_numpy(frames).permute(0, 3, 1, 2)[None], fps)
            output.write({tag: video}, {tag: ()}, step)


def _add_video(output: TensorBoardOutputFormat, tag: str, frames: np.ndarray, fps: float, step: int) -> None:
    """Write a video to TensorBoard; ``SummaryWriter.add_video`` needs moviepy 1, which is no longer released."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    if output.writer is None:
        return
    height, width = frames.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_gif(frames, fps))
    output.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
    output.writer.flush()


def horizon_table(errors: dict[str, np.ndarray]) -> str:
    """Format the errors as text, one line for each horizon of ``HORIZONS`` and for the last one."""
    length = len(next(iter(errors.values())))
    rows = ["steps ahead  " + "  ".join(errors)]
    rows += [
        f"{steps:11d}  " + "  ".join(f"{values[steps - 1]:.4g}".rjust(len(name)) for name, values in errors.items())
        for steps in sorted({length, *(steps for steps in HORIZONS if steps < length)})
    ]
    return "\n".join(rows)
