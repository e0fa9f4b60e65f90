"""Write checkpoints while learning."""

import os
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from sb3_dreamer.common import distributed
from sb3_dreamer.common.arguments import check_range
from sb3_dreamer.common.files.json_text import NotEncodable
from sb3_dreamer.common.resume.folder import sole_writer


class ResumableCheckpoint(BaseCallback):
    """Write checkpoints that ``load_checkpoint`` resumes from exactly, and one more when ``learn`` ends.

    A checkpoint that is due waits for the end of the first environment's episode, so that fewer episodes are cut (see
    :mod:`sb3_dreamer.common.resume.checkpoint` for the rule). The steps at which checkpoints are written depend on
    nothing but the run itself, so that a run that was killed any number of times is the run that was not.

    :param folder: of the run's checkpoints
    :param every: agent steps between two checkpoints
    :param keep: how many stay
    :param wait: agent steps that a checkpoint waits at most; None: 1,000, at most half of ``every``
    :param replay: False leaves replay out
    :param verbose: 1 names every checkpoint

    Of several ranks (see :mod:`sb3_dreamer.common.distributed`) all have it, and write each checkpoint together.

    A write that fails, for example on a full disk or because weights are NaN or callbacks remember too much, is a
    warning: training continues and older checkpoints stay. While ``learn`` runs, no other process can write checkpoints
    to the folder; a process that dies leaves it free.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int = 10_000,
        *,
        keep: int = 3,
        wait: int | None = None,
        replay: bool = True,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        check_range("every", every, 1, whole=True, hint="agent steps")
        if wait is not None:
            check_range("wait", wait, 0, whole=True, hint="agent steps")
        self.wait = min(1000, every // 2) if wait is None else wait
        if self.wait >= every:
            raise ValueError(f"wait={wait} must be less than every={every}")
        self.folder, self.every, self.keep, self.replay = Path(folder), every, keep, replay
        self.last_step = 0
        self.last_path: Path | None = None

    def _init_callback(self) -> None:
        if isinstance(self.parent, EventCallback):
            raise ValueError(
                f"ResumableCheckpoint is inside {type(self.parent).__name__}, which does not tell it when a rollout "
                "begins, so that it would never write: pass it to learn() beside that, with every=..."
            )

    def _on_training_start(self) -> None:
        model: Any = self.model
        if "updates" in self.locals:
            raise ValueError(
                "ResumableCheckpoint counts agent steps, and learn_offline takes none: call "
                "model.save_checkpoint(folder) between two learn_offline"
            )
        if not hasattr(model, "save_checkpoint"):
            raise TypeError(
                f"ResumableCheckpoint is for the algorithms of sb3_dreamer, not for {type(model).__name__}: "
                "use SB3's CheckpointCallback"
            )
        model.while_learning.enter_context(sole_writer(self.folder))
        self.last_step = model.num_timesteps

    def _on_rollout_start(self) -> None:
        step = self.model.num_timesteps
        due = step - step % self.every
        if due <= self.last_step:
            return
        assert self.model._last_episode_starts is not None
        if step >= due + self.wait or distributed.broadcast_object(bool(self.model._last_episode_starts[0])):
            self.write()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self.model.num_timesteps > self.last_step:
            self.write(then="")

    def write(self, then: str = "; training continues") -> None:
        """Write a checkpoint now; for the time between two rollouts.

        :param then: end of the warning if it fails
        """
        model: Any = self.model  # one of ours, as checked when training starts
        self.last_step = model.num_timesteps
        try:
            self.last_path = model.save_checkpoint(self.folder, self.keep, self.replay)
        except (OSError, FloatingPointError, NotEncodable) as error:
            warnings.warn(f"no checkpoint at step {model.num_timesteps:,}: {error}{then}", stacklevel=2)
            return
        if self.verbose and distributed.is_rank_zero():
            print(f"Checkpoint {self.last_path}")
