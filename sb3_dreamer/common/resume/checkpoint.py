"""Exact resume: checkpoints that hold everything a run needs to go on as if it had never stopped.

A checkpoint is a folder with ``model.zip``, ``training.zip`` (random states, callbacks, log, pending metrics) and
``replay.safetensors``. It is written between two rounds of collecting and updating. Of several ranks (see
:mod:`sb3_dreamer.common.distributed`) each but the first has a folder of its own in it, with ``training.zip`` and
replay.

**The rule for environments.** What is inside an environment cannot be stored, so a checkpoint ends all running
episodes: their last rows are marked as truncated, and every environment is reset with a seed that follows from the
model's seed and the step. A run that is not interrupted does the same at the same steps. Therefore 2N steps with a
checkpoint at N, and N steps, a checkpoint, another process and N more steps, are the same run.
"""

import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import GymEnv

from sb3_dreamer.common import distributed
from sb3_dreamer.common.files.json_text import ModelFileError, one_line
from sb3_dreamer.common.files.model_file import ModelFile, read_model, write_model
from sb3_dreamer.common.files.save_load import FileMethods
from sb3_dreamer.common.resume import parts as resume_parts
from sb3_dreamer.common.resume.folder import damaged, find_checkpoint
from sb3_dreamer.common.resume.random_state import RandomState

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm

Self = TypeVar("Self", bound="CheckpointMethods")
MODEL, TRAINING, REPLAY = "model.zip", "training.zip", "replay.safetensors"


class ResumePoint(NamedTuple):
    """What :meth:`CheckpointMethods.load_checkpoint` keeps for ``learn`` to put back.

    :param step: agent steps
    :param random: random states at the checkpoint
    :param training: the other entries of ``training.zip``
    :param logs: bytes of the log files
    """

    step: int
    random: RandomState
    training: dict[str, Any]
    logs: dict[str, th.Tensor]


class CheckpointMethods(FileMethods):
    """``save_checkpoint`` and ``load_checkpoint`` of a :class:`WorldModelAlgorithm`."""

    _resume: ResumePoint | None
    _restart_seed: int | None
    _collecting: bool

    def save_checkpoint(self, folder: str | os.PathLike[str], keep: int = 3, replay: bool = True) -> Path:
        """Write a checkpoint, whole or not at all, and start the environments again (see this module's rule).

        Call it between two ``learn()``, or let :class:`~sb3_dreamer.common.resume.callback.ResumableCheckpoint` do so.
        Of several ranks all call it.

        :param folder: of the run's checkpoints
        :param keep: how many checkpoints stay
        :param replay: False leaves replay out; :meth:`load_checkpoint` then needs ``allow_empty_replay=True``. With
            ``replay_dir`` the rows stay where they are, and the checkpoint holds the cursors
        :return: the checkpoint
        :raises RuntimeError: in the middle of a rollout
        :raises OSError: if it cannot be written, for example to a full disk; older checkpoints stay
        """
        if self._collecting:
            raise RuntimeError(
                "a checkpoint cannot be written in the middle of a rollout: call save_checkpoint() in "
                "on_rollout_start, or use sb3_dreamer.common.resume.callback.ResumableCheckpoint"
            )
        model = cast("WorldModelAlgorithm", self)
        model.replay_buffer.cut()
        entropy = np.random.SeedSequence().entropy if self.seed is None else self.seed
        words = [abs(int(entropy)), self.num_timesteps]  # type: ignore[arg-type]
        sequence = np.random.SeedSequence(words if distributed.is_first() else [*words, distributed.rank()])
        # Whether writing succeeds or not: the run must not depend on it.
        self._restart_seed = int(sequence.generate_state(1)[0] >> 1)
        with distributed.shared_checkpoint(folder, self.num_timesteps, keep) as (part, final):
            if distributed.is_first():
                self.save(part / MODEL)
            self._save_training(part / TRAINING, model, replay)
            if replay and not model.replay_buffer.on_disk:
                self.save_replay_buffer(part / REPLAY)
        return final

    def _save_training(self, path: Path, model: "WorldModelAlgorithm", replay: bool) -> None:
        random = RandomState.take(model)
        log, contents = resume_parts.logger_state(getattr(self, "_logger", None))
        where: Any = None
        if replay:
            where = REPLAY
            if model.replay_buffer.on_disk:
                model.replay_buffer.allocate()
                model.replay_buffer.flush()
                where = model.replay_buffer.journal()
        data = {
            "step": self.num_timesteps,
            "restart_seed": self._restart_seed,
            "random": random.data,
            "callbacks": resume_parts.callback_states(model._callback),
            "logger": log,
            "metric_counts": dict(model._metrics.counts),
            "replay": where,
        }
        if distributed.world_size() > 1:
            data |= {"ranks": distributed.world_size(), "episodes": [self.ep_info_buffer, self.ep_success_buffer]}
        tensors = {
            "random": random.tensors,
            "logs": contents,
            "metrics": model._metrics.sums,
            "normalizer": resume_parts.normalizer_state(self._vec_normalize_env),
        }
        write_model(path, kind=type(self).__name__, data=data, tensors=tensors)

    @classmethod
    def load_checkpoint(
        cls: type[Self],
        path: str | os.PathLike[str],
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        allow_empty_replay: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Read a checkpoint; ``learn(steps, reset_num_timesteps=False)`` then goes on exactly where it was written.

        :param path: a checkpoint, or the folder of a run's checkpoints (the newest is taken)
        :param env: the same environments, made anew; may also follow with ``set_env``
        :param device: where the model goes; only on the same kind of device the run is the same
        :param custom_objects: see :meth:`load`
        :param allow_empty_replay: take a checkpoint that was written without replay; collecting then refills replay
            with ``learning_starts`` rows before the first update. Also takes one of another number of ranks: weights,
            optimizers and counters go on, replay and random states do not
        :param kwargs: attributes to change
        :raises FileNotFoundError: if there is no checkpoint
        :raises ModelFileError: if it is damaged, of another algorithm, or without replay
        """
        found = find_checkpoint(path)
        try:
            file = read_model(found / TRAINING, kind=cls.__name__, device="cpu")
            if not _same_ranks(file.data.get("ranks", 1), found, allow_empty_replay):
                model = cls.load(found / MODEL, env=env, device=device, custom_objects=custom_objects, **kwargs)
                model._last_obs = None
                return model
            own = distributed.own_folder(found)
            if own != found:
                file = read_model(own / TRAINING, kind=cls.__name__, device="cpu")
            point, replay, seed = _resume_point(file, own)
            if replay is None and not allow_empty_replay:
                raise ModelFileError(
                    f"'{found}' was written without replay, and a run without replay does not go on as it was: "
                    "pass allow_empty_replay=True to collect anew before the first update"
                )
            model = cls.load(found / MODEL, env=env, device=device, custom_objects=custom_objects, **kwargs)
            model._last_obs = None
            if replay == REPLAY:
                model.load_replay_buffer(own / REPLAY, truncate_last_traj=False)
            elif replay is not None:
                model._attach_replay(replay)
            if distributed.world_size() > 1:
                model.ep_info_buffer, model.ep_success_buffer = file.data["episodes"]
            sums = {name: value.to(model.device) for name, value in file.tensors["metrics"].items()}
            cast("WorldModelAlgorithm", model)._metrics.restore(sums, file.data["metric_counts"])
        except (ModelFileError, FileNotFoundError) as error:
            raise damaged(found, error) from error
        if env is not None:
            resume_parts.restore_normalizer(model._vec_normalize_env, file.tensors["normalizer"])
        model._resume, model._restart_seed = point, seed
        return model

    def _resume_random(self) -> None:
        """Put the random states of the checkpoint back, and start the environments again if that is due."""
        model = cast("WorldModelAlgorithm", self)
        if self._resume is not None:
            self._resume.random.put(model)
        if self._restart_seed is not None:
            self._restart_environments()
        if self._resume is not None:
            self._resume = self._resume._replace(random=RandomState.take(model))

    def _resume_rest(self) -> None:
        """Last act before the first step: callbacks, log files and random states, whatever was drawn meanwhile."""
        point, self._resume = self._resume, None
        if point is None:
            return
        model = cast("WorldModelAlgorithm", self)
        assert model._callback is not None
        resume_parts.restore_callbacks(model._callback, point.training["callbacks"])
        resume_parts.restore_logger(self.logger, point.training["logger"], point.logs, point.step)
        resume_parts.seed_evaluations(model._callback, point.training["restart_seed"])
        point.random.put(model)

    def _restart_environments(self) -> None:
        """Reset all environments with the seed of the last checkpoint; the agent remembers nothing of before."""
        model = cast("WorldModelAlgorithm", self)
        seed, self._restart_seed = self._restart_seed, None
        assert self.env is not None and seed is not None
        self.env.seed(seed)
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.n_envs, bool)
        if self._vec_normalize_env is not None:
            self._last_original_obs = self._vec_normalize_env.get_original_obs()
        if self.action_noise is not None:
            self.action_noise.reset()
        resume_parts.seed_evaluations(model._callback, seed)
        model._carry = model.policy.initial_state(self.n_envs)


def _resume_point(file: ModelFile, path: Path) -> tuple[ResumePoint, Any, int]:
    """Check the entries of ``training.zip``."""
    data, tensors = file.data, file.tensors
    kinds = {"step": int, "restart_seed": int, "random": dict, "callbacks": list, "logger": dict, "metric_counts": dict}
    for name, kind in kinds.items():
        if not isinstance(data.get(name), kind):
            raise ModelFileError(f"'{path / TRAINING}' has no valid {name}: the checkpoint is damaged")
    for name in ("random", "logs", "metrics", "normalizer"):
        if name not in tensors:
            raise ModelFileError(f"'{path / TRAINING}' has no {name}: the checkpoint is damaged")
    episodes = data.get("episodes", [])
    if "ranks" in data and not (isinstance(episodes, list) and [type(part) for part in episodes] == [deque, deque]):
        raise ModelFileError(f"'{path / TRAINING}' has no valid episodes: the checkpoint is damaged")
    replay = data.get("replay")
    if not (replay is None or replay == REPLAY or isinstance(replay, dict)):
        raise ModelFileError(f"'{path / TRAINING}' names an unknown replay ({one_line(replay)})")
    random = RandomState(tensors["random"], data["random"])
    return ResumePoint(data["step"], random, data, tensors["logs"]), replay, data["restart_seed"]


def _same_ranks(ranks: Any, path: Path, allow_empty_replay: bool) -> bool:
    """Whether a checkpoint is of as many ranks as there are now.

    :raises ModelFileError: if it is not, and that was not allowed
    """
    now = distributed.world_size()
    if ranks != now and not allow_empty_replay:
        raise ModelFileError(
            f"'{path}' was written by {one_line(ranks)} rank(s), and there are {now}: start as many "
            f"(torchrun --nproc-per-node={one_line(ranks)}) to go on exactly, or pass allow_empty_replay=True to go on "
            "with weights, optimizers and counters, and collect anew before the first update"
        )
    return bool(ranks == now)
