"""What runs beside training: episode log, evaluation, checkpoints, progress."""

import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.monitor import ResultsWriter

from sb3_dreamer.zoo.runs.stopping import StopOnSignal

LINE_SECONDS = 30.0  #: between two lines of progress where there is no bar


class EpisodeLog(BaseCallback):
    """Writes every training episode to ``0.monitor.csv``: SB3's columns, then steps, environment frames and index.

    :param folder: run folder
    :param env_id: for the header
    :param frames_per_step: environment frames of an agent step
    :param goes_on: keep what the file holds; a checkpoint then says how much of it
    """

    def __init__(self, folder: Path, env_id: str, frames_per_step: int, goes_on: bool = False):
        super().__init__()
        self.frames_per_step = frames_per_step
        self.start = time.time()
        self.path = folder / "0.monitor.csv"
        self.writer = ResultsWriter(
            str(self.path),
            header={"t_start": self.start, "env_id": env_id},
            extra_keys=("timesteps", "frames", "env"),
            override_existing=not (goes_on and self.path.exists()),
        )

    def state_dict(self) -> dict[str, Any]:
        """How much of the file there is, and the seconds it tells of."""
        if not self.writer.file_handler.closed:
            self.writer.file_handler.flush()
        return {"bytes": self.path.stat().st_size, "seconds": time.time() - self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Forget the episodes that came after a checkpoint."""
        self.writer.file_handler.flush()
        if self.path.stat().st_size > int(state["bytes"]):
            self.writer.file_handler.truncate(int(state["bytes"]))
        self.start = time.time() - float(state["seconds"])

    def _on_step(self) -> bool:
        for index, info in enumerate(self.locals["infos"]):
            episode = info.get("episode")
            if episode is not None:
                row = {
                    "r": round(float(episode["r"]), 6),
                    "l": int(episode["l"]),
                    "t": round(time.time() - self.start, 6),
                    "timesteps": self.num_timesteps,
                    "frames": self.num_timesteps * self.frames_per_step,
                    "env": index,
                }
                self.writer.write_row(row)
        return True

    def _on_training_end(self) -> None:
        self.writer.close()


class Evaluation(EvalCallback):
    """SB3's evaluation, told in one line, and interrupted at once by Ctrl-C.

    :param stop: the signal handler of the run
    """

    def __init__(self, *args: Any, stop: StopOnSignal, **kwargs: Any):
        super().__init__(*args, **{"verbose": 0, "warn": False, **kwargs})
        self.stop = stop
        self.best_step = 0

    def state_dict(self) -> dict[str, Any]:
        """What SB3's callback does not know of."""
        return {"best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best_step = int(state["best_step"])

    def _init_callback(self) -> None:
        """Make folders; the types of the training and evaluation environments may differ."""
        for path in (self.best_model_save_path, self.log_path and Path(self.log_path).parent):
            if path is not None:
                Path(path).mkdir(parents=True, exist_ok=True)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_step(self) -> bool:
        before, count = self.best_mean_reward, len(self.evaluations_timesteps)
        self.stop.at_once = True
        try:
            goes_on = super()._on_step()
        except KeyboardInterrupt:
            return False
        finally:
            self.stop.at_once = False
        if len(self.evaluations_timesteps) > count and self.model.verbose >= 1:
            returns = self.evaluations_results[-1]
            best = self.best_mean_reward > before
            self.best_step = self.num_timesteps if best else self.best_step
            print(
                f"Evaluation at step {self.num_timesteps:,}: {mean_and_std(returns)} over {len(returns)} episodes"
                + (", the best so far" if best else "")
                + ("" if goes_on else ": as good as it has to be, training ends")
            )
        return goes_on


def mean_and_std(returns: Any) -> str:
    """``12.3 +- 4.5``."""
    return f"{np.mean(returns):.1f} +- {np.std(returns):.1f}"


class Checkpoints(CheckpointCallback):
    """SB3's checkpoints; replay buffers are safetensors files, and named so."""

    def _checkpoint_path(self, checkpoint_type: str = "", extension: str = "") -> str:
        return super()._checkpoint_path(checkpoint_type, "safetensors" if extension == "pkl" else extension)


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Draw the column."""
        return Text(f"{task.speed:,.0f} steps/s" if task.speed else "-- steps/s", style="progress.data.speed")


class ShowProgress(BaseCallback):
    """A progress bar in a terminal, a line now and then elsewhere.

    :param bar: draw the bar
    :param console: where to
    """

    def __init__(self, bar: bool, console: Console):
        super().__init__()
        self.returns: deque[float] = deque(maxlen=20)
        self.last_line = time.monotonic()
        self.progress: Progress | None = None
        if bar:
            columns = (BarColumn(None), TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), _Rate())
            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self.progress = Progress(TextColumn("{task.description}"), *columns, *times, console=console)

    def _on_training_start(self) -> None:
        self.first_step, self.start = self.num_timesteps, time.monotonic()
        if self.progress is not None:
            self.task = self.progress.add_task(
                "training", total=self.model._total_timesteps, completed=self.num_timesteps
            )
            self.progress.start()

    def _on_step(self) -> bool:
        self.returns.extend(float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info)
        if self.progress is not None:
            self.progress.update(self.task, completed=self.num_timesteps, description=self._words())
        elif self.model.verbose >= 1 and time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            total, done = self.model._total_timesteps, self.num_timesteps - self.first_step
            rate = done / (time.monotonic() - self.start)
            left = (total - self.num_timesteps) / rate / 60
            line = f"Step {self.num_timesteps:,} of {total:,}: {self._words()}, {rate:.0f} steps/s, {left:.0f} min left"
            print(line, flush=True)
        return True

    def _words(self) -> str:
        return f"return {np.mean(self.returns):.1f}" if self.returns else "first episodes"

    def close(self) -> None:
        """Take the bar away; also after an exception, when ``on_training_end`` was not called."""
        if self.progress is not None:
            self.progress.stop()
