"""Callbacks of a training run: episode log, evaluation, checkpoints, progress, and what ends it early."""

import contextlib
import re
import signal
import sys
import time
import warnings
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import ResultsWriter

from sb3_dreamer.common import distributed
from sb3_dreamer.common.report import duration
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.config.errors import plural
from sb3_dreamer.zoo.config.plan import Plan
from sb3_dreamer.zoo.runs import run_folder

KEPT = 2  #: newest checkpoints that stay, and replay buffers beside model files
MODELS_KEPT = 10  #: newest model files that stay
WIDE = 80  #: columns of a terminal that has room for the whole progress bar
LINE_SECONDS = 30.0  #: between two lines of progress where there is no bar


def make_callbacks(
    plan: Plan, folder: Path, eval_env: Any, stop: "StopOnSignal", *, resumed: bool, save_replay_buffer: bool
) -> list[BaseCallback]:
    """Make the episode log, evaluation and checkpoints; of several ranks, all but the first only join in checkpoints.

    :param plan: what to do
    :param folder: the run folder
    :param eval_env: environments to evaluate on
    :param stop: the signal handler of the run
    :param resumed: the folder holds the log of the same run
    :param save_replay_buffer: write the replay buffer beside every model file
    """
    resumable: list[BaseCallback] = []
    if plan.save_freq > 0:
        resumable = [ResumableCheckpoint(folder / run_folder.CHECKPOINTS, plan.save_freq, keep=KEPT)]
    if not distributed.is_rank_zero():
        return resumable
    steps = plan.n_envs * distributed.world_size()  # agent steps of one step of the environments
    frames = environments.frames_per_step(plan.suite_preset, plan.env_wrapper)
    callbacks: list[BaseCallback] = [EpisodeLog(folder, plan.env, frames, resumed)]
    if plan.eval_freq > 0:
        evaluation = Evaluation(
            eval_env,
            stop=stop,
            share=plan.eval_share,
            reserved=plan.final_episodes,
            n_eval_episodes=plan.eval_episodes,
            eval_freq=max(1, plan.eval_freq // steps),
            best_model_save_path=str(folder),
            log_path=str(folder),
            deterministic=environments.deterministic_by_default(plan.env),
            callback_on_new_best=None if plan.stop_at_return is None else StopWhenSolved(plan.stop_at_return),
        )
        callbacks.append(evaluation)
    if plan.save_freq > 0 and plan.save_models:
        frequency = max(1, plan.save_freq // steps)
        callbacks.append(Checkpoints(frequency, str(folder), save_replay_buffer=save_replay_buffer))
    return [*callbacks, *resumable]


class EpisodeLog(BaseCallback):
    """Write every training episode to ``0.monitor.csv``: SB3's columns, then steps, environment frames and index.

    :param folder: run folder
    :param env_id: for the header
    :param frames_per_step: environment frames of an agent step
    :param resumed: keep what the file holds; a checkpoint then says how much of it
    """

    def __init__(self, folder: Path, env_id: str, frames_per_step: int, resumed: bool = False):
        super().__init__()
        self.frames_per_step = frames_per_step
        self.start = time.time()
        self.path = folder / "0.monitor.csv"
        self.writer = ResultsWriter(
            str(self.path),
            header={"t_start": self.start, "env_id": env_id},
            extra_keys=("timesteps", "frames", "env"),
            override_existing=not (resumed and self.path.exists()),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the length of the file and the seconds that it covers."""
        with contextlib.suppress(OSError, ValueError):  # a full disk; or the file is closed
            self.writer.file_handler.flush()
        size = self.path.stat().st_size if self.path.exists() else 0
        return {"bytes": size, "seconds": time.time() - self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remove the episodes that came after a checkpoint."""
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
                try:
                    self.writer.write_row(row)
                except OSError as error:
                    warnings.warn(f"an episode was not logged: {error}; training continues", stacklevel=2)
        return True

    def _on_training_end(self) -> None:
        with contextlib.suppress(OSError):  # the rows that a full disk did not take were named
            self.writer.close()


class Evaluation(EvalCallback):
    """Evaluate as SB3 does, print one line, and stop at once on Ctrl-C.

    :param stop: the signal handler of the run
    :param share: share of the agent steps that evaluation takes at most: one that would take more is left out; None:
        no limit
    :param reserved: episodes of the evaluation at the end, which count towards the share
    """

    def __init__(self, *args: Any, stop: "StopOnSignal", share: float | None = None, reserved: int = 0, **kwargs: Any):
        super().__init__(*args, **{"verbose": 0, "warn": False, **kwargs})
        self.stop, self.share, self.reserved = stop, share, reserved
        self.best_step, self.seconds = 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what SB3's callback does not store."""
        return {"best_step": self.best_step, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        self.best_step, self.seconds = int(state["best_step"]), float(state.get("seconds", 0.0))

    def _init_callback(self) -> None:
        """Make folders; the types of the training and evaluation environments may differ."""
        for path in (self.best_model_save_path, self.log_path and Path(self.log_path).parent):
            if path is not None:
                Path(path).mkdir(parents=True, exist_ok=True)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        if affordable_episodes(self.model, self.share, self.evaluations_length) < self.n_eval_episodes + self.reserved:
            return True
        before, count, start = self.best_mean_reward, len(self.evaluations_timesteps), time.monotonic()
        continues = True
        self.stop.at_once = True
        try:
            continues = super()._on_step()
        except KeyboardInterrupt:
            return False
        except OSError as error:
            warnings.warn(f"an evaluation was not saved: {error}; training continues", stacklevel=2)
        finally:
            self.stop.at_once = False
            self.seconds += time.monotonic() - start
        if len(self.evaluations_timesteps) > count and self.model.verbose >= 1:
            returns = self.evaluations_results[-1]
            best = self.best_mean_reward > before
            self.best_step = self.num_timesteps if best else self.best_step
            episodes = plural(len(returns), "episode")
            print(
                f"Evaluation at step {self.num_timesteps:,}: {mean_and_std(returns)} over {episodes}"
                + (", the best so far" if best else "")
                + ("" if continues else ": solved, training ends")
            )
        return continues


def affordable_episodes(model: Any, share: float | None, lengths: list[list[int]]) -> float:
    """Count the episodes that can be evaluated within a share of the agent steps; none before an episode has ended.

    :param share: of the agent steps so far; None: no limit
    :param lengths: of the episodes of all evaluations so far
    """
    if share is None:
        return float("inf")
    training = [info["l"] for info in model.ep_info_buffer or ()]
    longest = max((float(np.mean(found)) for found in (training, *lengths[-1:]) if len(found)), default=0.0)
    left = share * model.num_timesteps - sum(map(sum, lengths))
    return max(0, int(left / longest)) if longest else 0


def mean_and_std(returns: Any) -> str:
    """Write ``12.3 +- 4.5``."""
    return f"{np.mean(returns):.1f} +- {np.std(returns):.1f}"


class Checkpoints(CheckpointCallback):
    """Write SB3's checkpoints; replay buffers are safetensors files, and named so."""

    def _checkpoint_path(self, checkpoint_type: str = "", extension: str = "") -> str:
        return super()._checkpoint_path(checkpoint_type, "safetensors" if extension == "pkl" else extension)

    def _on_step(self) -> bool:
        try:
            super()._on_step()
        except OSError as error:
            warnings.warn(f"no model file at step {self.num_timesteps:,}: {error}; training continues", stacklevel=2)
        if self.n_calls % self.save_freq == 0:
            prune(Path(self.save_path), r"rl_model_(\d+)_steps\.zip", MODELS_KEPT)
            prune(Path(self.save_path), r"rl_model_replay_buffer_(\d+)_steps\.safetensors", KEPT)
        return True


def prune(folder: Path, pattern: str, keep: int) -> None:
    """Remove all but the newest files of a kind.

    :param pattern: of their names, whose group is the number of steps
    :param keep: how many stay
    """
    matches = (re.fullmatch(pattern, path.name) for path in folder.iterdir())
    for match in sorted((match for match in matches if match), key=lambda match: int(match[1]))[:-keep]:
        (folder / match[0]).unlink(missing_ok=True)


class _Rate(ProgressColumn):
    """Show steps per second."""

    def render(self, task: Task) -> Text:
        """Draw the column."""
        return Text(f"{task.speed:,.0f} steps/s" if task.speed else "-- steps/s", style="progress.data.speed")


class ShowProgress(BaseCallback):
    """Show a progress bar in a terminal, a line every 30 seconds elsewhere.

    :param bar: draw the bar
    :param console: where to
    """

    def __init__(self, bar: bool, console: Console):
        super().__init__()
        self.returns: deque[float] = deque(maxlen=20)
        self.progress: Progress | None = None
        if bar:
            count = TextColumn("{task.completed:,.0f}/{task.total:,.0f}")
            columns: tuple[ProgressColumn, ...] = (count, TextColumn("left"), TimeRemainingColumn())
            if console.width >= WIDE:
                times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
                columns = (TextColumn("{task.description}"), BarColumn(None), count, _Rate(), *times)
            self.progress = Progress(*columns, console=console)

    def _on_training_start(self) -> None:
        self.last_step, self.last_line = self.num_timesteps, time.monotonic()
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
            now, total = time.monotonic(), self.model._total_timesteps
            rate = (self.num_timesteps - self.last_step) / (now - self.last_line)
            starts, left = self.model.learning_starts, ""  # type: ignore[attr-defined]
            if self.num_timesteps <= starts:
                left = ", before the first updates"
            elif self.last_step >= starts:  # else the rate is partly of steps without updates
                left = f", {duration((total - self.num_timesteps) / rate)} left"
            print(f"Step {self.num_timesteps:,} of {total:,}: {self._words()}, {rate:.3g} steps/s{left}", flush=True)
            self.last_step, self.last_line = self.num_timesteps, now
        return True

    def _words(self) -> str:
        return f"return {np.mean(self.returns):.1f}" if self.returns else "no finished episode yet"

    def close(self) -> None:
        """Remove the bar; also after an exception, when ``on_training_end`` was not called."""
        if self.progress is not None:
            self.progress.stop()


class StopOnSignal(BaseCallback):
    """Stop training at the next step after SIGINT, SIGTERM or SIGHUP; a second signal interrupts at once.

    Used as a context manager around ``learn``, which installs and removes the signal handlers. Work that may be thrown
    away (an evaluation) sets ``at_once`` so that it is interrupted by the first signal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self.at_once = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.stopped
        self.stopped = True
        if again or self.at_once:
            raise KeyboardInterrupt
        print(
            "\nStopping after this step. Press Ctrl-C again to quit immediately, without saving.",
            file=sys.stderr,
            flush=True,
        )

    def _on_step(self) -> bool:
        return not self.stopped


class StopWhenSolved(BaseCallback):
    """End training once two evaluations in a row, on different episodes, reach a return.

    For ``callback_on_new_best`` of an ``EvalCallback``. The first of many evaluations that reaches a mark is often
    a lucky one, which SB3's ``StopTrainingOnRewardThreshold`` cannot tell. If the second misses it, the best return so
    far becomes the mean of both, so that a later policy has a fair chance to be the new best.

    :param threshold: mean return that both evaluations have to reach
    """

    parent: EvalCallback

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def _on_step(self) -> bool:
        first = self.parent.best_mean_reward
        if first < self.threshold:
            return True
        returns, _ = evaluate_policy(
            self.model,
            self.parent.eval_env,
            self.parent.n_eval_episodes,
            deterministic=self.parent.deterministic,
            return_episode_rewards=True,
            warn=False,
        )
        second = float(np.mean(returns))
        if second >= self.threshold:
            return False
        self.parent.best_mean_reward = (first + second) / 2
        return True
