"""Exact resume: checkpoints that hold everything a run needs to continue as if it had never stopped.

A checkpoint is a folder with ``model.zip``, ``training.zip`` (random states, callbacks, log, pending metrics) and
``replay.safetensors``. It is written between two rounds of collecting and updating. Of several ranks (see
:mod:`sb3_dreamer.common.distributed`) each but the first has a folder of its own in it, with ``training.zip`` and
replay.

**The rule for environments.** What is inside an environment cannot be stored, so a checkpoint ends all running
episodes: their last rows are marked as truncated, and every environment is reset with a seed that follows from the
model's seed and the step. A run that is not interrupted does the same at the same steps. Therefore 2N steps with a
checkpoint at N, and N steps, a checkpoint, another process and N more steps, are the same run.
"""

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_dreamer.common import distributed
from sb3_dreamer.common.files.json_text import ModelFileError, one_line
from sb3_dreamer.common.files.model_file import read_model, write_model
from sb3_dreamer.common.resume.random_state import RandomState

MODEL, TRAINING, REPLAY = "model.zip", "training.zip", "replay.safetensors"


class TrainingState(NamedTuple):
    """Contents of ``training.zip``: what a run needs besides its model and its replay.

    :param step: agent steps
    :param restart_seed: that the environments are reset with
    :param random: random states
    :param callbacks: path, class and memory of every callback, see :func:`~.parts.callback_states`
    :param logger: values that wait to be written and the list of log files, see :func:`~.parts.logger_state`
    :param logs: bytes of the log files
    :param metric_counts: updates since the last log line, by metric
    :param metrics: sums over these updates, 0-d, by metric
    :param normalizer: statistics of VecNormalize
    :param replay: name of the replay file, the journal of a replay on disk, or None
    :param episodes: of several ranks, the latest episodes of this one: infos and successes
    """

    step: int
    restart_seed: int
    random: RandomState
    callbacks: list[Any]
    logger: dict[str, Any]
    logs: dict[str, th.Tensor]
    metric_counts: dict[str, int]
    metrics: dict[str, th.Tensor]
    normalizer: dict[str, th.Tensor]
    replay: Any
    episodes: list[Any] | None = None


def restart_seed(seed: int | None, step: int) -> int:
    """Seed of the environments after a checkpoint; it follows from the model's seed, the step and the rank."""
    entropy = np.random.SeedSequence().entropy if seed is None else seed
    words = [abs(int(entropy)), step]  # type: ignore[arg-type]
    rank = distributed.rank()
    return int(np.random.SeedSequence([*words, rank] if rank else words).generate_state(1)[0] >> 1)


def write_training(path: Path, kind: str, state: TrainingState) -> None:
    """Write ``training.zip``.

    :param kind: name of the algorithm's class
    """
    names = ("step", "restart_seed", "callbacks", "logger", "metric_counts", "replay")
    data = {name: getattr(state, name) for name in names} | {"random": state.random.data}
    if distributed.world_size() > 1:
        data |= {"ranks": distributed.world_size(), "episodes": state.episodes}
    tensors = {name: getattr(state, name) for name in ("logs", "metrics", "normalizer")}
    write_model(path, kind=kind, data=data, tensors=tensors | {"random": state.random.tensors})


def read_training(path: Path, kind: str) -> TrainingState:
    """Read what :func:`write_training` wrote, every entry checked.

    :raises ModelFileError: if the file is damaged, or of another algorithm
    """
    file = read_model(path, kind=kind)
    data, tensors = file.data, file.tensors
    kinds = {"step": int, "restart_seed": int, "random": dict, "callbacks": list, "logger": dict, "metric_counts": dict}
    for name, expected in kinds.items():
        if not isinstance(data.get(name), expected):
            raise ModelFileError(f"'{path}' has no valid {name}: the checkpoint is damaged")
    for name in ("random", "logs", "metrics", "normalizer"):
        if name not in tensors:
            raise ModelFileError(f"'{path}' has no {name}: the checkpoint is damaged")
    episodes = data.get("episodes", [])
    if "ranks" in data and not (isinstance(episodes, list) and [type(part) for part in episodes] == [deque, deque]):
        raise ModelFileError(f"'{path}' has no valid episodes: the checkpoint is damaged")
    replay = data.get("replay")
    if not (replay is None or replay == REPLAY or isinstance(replay, dict)):
        raise ModelFileError(f"'{path}' names an unknown replay ({one_line(replay)})")
    plain: dict[str, Any] = {name: data[name] for name in kinds if name != "random"}
    plain |= {name: tensors[name] for name in ("logs", "metrics", "normalizer")}
    random = RandomState(tensors["random"], data["random"])
    return TrainingState(**plain, random=random, replay=replay, episodes=episodes)


def same_ranks(folder: Path, kind: str, allow_other: bool) -> bool:
    """Whether a checkpoint was written by as many ranks as there are now.

    :param allow_other: do not raise if it was not
    :raises ModelFileError: if it was not
    """
    ranks = read_model(folder / TRAINING, kind=kind).data.get("ranks", 1)
    now = distributed.world_size()
    if ranks != now and not allow_other:
        raise ModelFileError(
            f"'{folder}' was written by {one_line(ranks)} rank(s), and there are {now}: start as many "
            f"(torchrun --nproc-per-node={one_line(ranks)}) to resume exactly, or pass allow_empty_replay=True to "
            "continue with weights, optimizers and counters, and collect anew before the first update"
        )
    return bool(ranks == now)
