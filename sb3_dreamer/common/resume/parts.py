"""Save and restore what runs beside the training: callbacks, log files, running statistics."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common import callbacks as sb3_callbacks
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, JSONOutputFormat, Logger
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_dreamer.common.files.json_codec import decode, encode
from sb3_dreamer.common.files.json_text import NotEncodable

MAX_LOG_BYTES = 256 * 2**20  #: a longer log file is not carried along
#: what SB3's callbacks remember; a callback of another kind has ``state_dict()`` and ``load_state_dict()``
MEMORY: dict[str, tuple[str, ...]] = {
    "BaseCallback": ("n_calls", "num_timesteps"),
    "EvalCallback": (
        *("best_mean_reward", "last_mean_reward", "evaluations_results", "evaluations_timesteps"),
        *("evaluations_length", "evaluations_successes", "_is_success_buffer"),
    ),
    "EveryNTimesteps": ("last_time_trigger",),
    "StopTrainingOnMaxEpisodes": ("n_episodes",),
    "StopTrainingOnNoModelImprovement": ("last_best_mean_reward", "no_improvement_evals"),
}


# ---- callbacks -------------------------------------------------------------------------------------------------------


def walk(
    callback: BaseCallback, path: str = "callback", above: tuple[BaseCallback, ...] = ()
) -> Iterator[tuple[str, BaseCallback]]:
    """A callback and all those that it calls, with a path that names each one.

    :param above: those on the way to it, which it may hold, too
    """
    if any(callback is other for other in above):
        return
    yield path, callback
    above = (*above, callback)
    for name, value in vars(callback).items():
        if name == "parent":
            continue
        if isinstance(value, BaseCallback):
            yield from walk(value, f"{path}.{name}", above)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseCallback):
                    yield from walk(item, f"{path}.{name}[{index}]", above)


def callback_states(root: BaseCallback | None) -> list[list[Any]]:
    """Path, class name and memory of every callback, as JSON."""
    found = []
    for path, callback in walk(root) if root is not None else ():
        memory: dict[str, Any] = {}
        for family, names in MEMORY.items():
            if isinstance(callback, getattr(sb3_callbacks, family, ())):
                memory |= {name: getattr(callback, name) for name in names if hasattr(callback, name)}
        own = callback.state_dict() if hasattr(callback, "state_dict") else None
        kind = type(callback).__name__
        try:
            found.append([path, kind, encode({"memory": memory, "own": own}, kind)])
        except NotEncodable as error:
            warnings.warn(f"a checkpoint does not hold what {kind} remembers: {error}", stacklevel=2)
    return found


def restore_callbacks(root: BaseCallback, states: list[list[Any]]) -> None:
    """Give callbacks their memory back: the first of a class what the first of that class remembered, and so on.

    Where they stand does not count: a progress bar puts them one level lower. Others stay as they are.
    """
    remembered: dict[str, list[Any]] = {}
    for _, kind, state in states:
        remembered.setdefault(kind, []).append(state)
    for path, callback in walk(root):
        waiting = remembered.get(type(callback).__name__)
        if not waiting:
            continue
        found = decode(waiting.pop(0), path)
        vars(callback).update(found["memory"])
        if found["own"] is not None and hasattr(callback, "load_state_dict"):
            callback.load_state_dict(found["own"])


def seed_evaluations(root: BaseCallback | None, seed: int) -> None:
    """Seed the evaluation environments of all callbacks for their next reset."""
    for _, callback in walk(root) if root is not None else ():
        env = getattr(callback, "eval_env", None)
        if isinstance(env, VecEnv):
            env.seed(seed)


# ---- the log ---------------------------------------------------------------------------------------------------------


def _files(logger: Logger) -> Iterator[tuple[str, Any]]:
    """Outputs of a logger that write to a text file of their own, by class and file name."""
    for output in logger.output_formats:
        name = getattr(getattr(output, "file", None), "name", None)
        if isinstance(output, CSVOutputFormat | JSONOutputFormat | HumanOutputFormat) and isinstance(name, str):
            path = Path(name)
            if path.is_file():
                yield f"{type(output).__name__} {path.name}", output


def logger_state(logger: Logger | None) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    """Values that wait to be written, as JSON, and what the log files hold so far, as bytes."""
    if logger is None:
        return {"pending": [], "files": []}, {}
    pending = []
    for key, value in logger.name_to_value.items():
        excluded = logger.name_to_excluded.get(key, ())
        with contextlib.suppress(NotEncodable):
            pending.append(encode([key, value, logger.name_to_count.get(key, 0), excluded], key))
    files: list[Any] = []
    contents: dict[str, Any] = {}
    for name, output in _files(logger):
        output.file.flush()
        content = Path(output.file.name).read_bytes()
        if len(content) <= MAX_LOG_BYTES:
            contents[str(len(files))] = th.frombuffer(bytearray(content) or bytearray(b"\n"), dtype=th.uint8)
            files.append([name, list(getattr(output, "keys", []))])
    return {"pending": pending, "files": files}, contents


def restore_logger(logger: Logger, state: dict[str, Any], contents: dict[str, th.Tensor], step: int) -> None:
    """Make log files of the same name what they were at the checkpoint, and let TensorBoard forget what came later."""
    for entry in state["pending"]:
        key, value, count, excluded = decode(entry)
        logger.name_to_value[key], logger.name_to_count[key] = value, count
        logger.name_to_excluded[key] = tuple(excluded)
    known = {name: (str(index), keys) for index, (name, keys) in enumerate(state["files"])}
    for name, output in _files(logger):
        if name in known:
            index, keys = known[name]
            text = contents[index].numpy().tobytes().decode("utf-8", "replace")
            output.file.seek(0)
            output.file.truncate()
            output.file.write("" if text == "\n" else text)
            output.file.flush()
            if isinstance(output, CSVOutputFormat):
                output.keys = list(keys)
    for output in logger.output_formats:
        writer = getattr(getattr(output, "writer", None), "file_writer", None)
        if writer is not None:
            with contextlib.suppress(ImportError):
                from tensorboard.compat.proto.event_pb2 import Event, SessionLog

                writer.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)), step + 1)


# ---- VecNormalize ----------------------------------------------------------------------------------------------------


def _statistics(env: VecNormalize) -> dict[str, RunningMeanStd]:
    obs = getattr(env, "obs_rms", None) if env.norm_obs else None
    named = {f"obs.{key}": value for key, value in obs.items()} if isinstance(obs, dict) else {}
    if isinstance(obs, RunningMeanStd):
        named = {"obs": obs}
    return named | {"return": env.ret_rms}


def normalizer_state(env: VecNormalize | None) -> dict[str, th.Tensor]:
    """Mean, variance and count of everything that VecNormalize follows."""
    if env is None:
        return {}
    return {
        f"{name}.{part}": th.as_tensor(np.asarray(getattr(value, part), np.float64))
        for name, value in _statistics(env).items()
        for part in ("mean", "var", "count")
    }


def restore_normalizer(env: VecNormalize | None, state: dict[str, th.Tensor]) -> None:
    """Put the statistics back.

    :raises ValueError: if the checkpoint was written with another VecNormalize than ``env`` has, or with none
    """
    if normalizer_state(env).keys() != state.keys():
        words = ["without VecNormalize" if not part else "with VecNormalize" for part in (state, normalizer_state(env))]
        raise ValueError(
            f"the checkpoint was written {words[0]}, the environment is {words[1]} (or of other keys): wrap it alike"
        )
    for name, value in _statistics(env).items() if env is not None else ():
        value.mean, value.var = (state[f"{name}.{part}"].numpy().copy() for part in ("mean", "var"))
        value.count = float(state[f"{name}.count"])
