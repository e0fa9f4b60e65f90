"""Run one environment in a worker process; imports neither torch nor Stable-Baselines3, so that workers stay small."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym


class WorkerError(RuntimeError):
    """An environment failed in its worker process; the message contains the worker's traceback."""


def run_worker(remote: Connection, parent_remote: Connection | None, make: Callable[[], gym.Env]) -> None:
    """Answer commands until the parent closes the pipe.

    Every answer is ``(True, result)`` or ``(False, (summary, traceback text))``, so that the parent can show where the
    environment failed; an error while the environment is being made is kept and answers every command.

    :param remote: this process's end of the pipe
    :param parent_remote: the parent's end, closed here (None where it was not inherited)
    :param make: makes the environment
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it closes the workers in order
    signal.signal(signal.SIGTERM, _stop)  # so that recordings are finished when the parent ends without close()
    if parent_remote is not None:
        parent_remote.close()
    if not sys.stderr.isatty():
        vars(gym.logger)["colorize"] = _plain  # it colors its warnings wherever they go
    env: gym.Env | None = None
    failure: tuple[str, str] | None = None
    try:
        env = make()
    except BaseException as error:
        failure = _describe(error)
    try:
        while True:
            command, data = remote.recv()
            if command == "close":
                break
            if failure is not None or env is None:
                remote.send((False, failure))
                continue
            try:
                answer: tuple[bool, Any] = (True, COMMANDS[command](env, data))
            except _StopWorker:
                raise
            except BaseException as error:
                answer = (False, _describe(error))
            remote.send(answer)
    except (_StopWorker, EOFError, OSError):  # asked to stop, or the parent is gone
        pass
    finally:
        if env is not None:
            env.close()
        remote.close()


def _plain(text: str, *_: Any, **__: Any) -> str:
    return text


class _StopWorker(BaseException):
    """The process was asked to terminate."""


def _stop(signum: int, frame: Any) -> None:
    raise _StopWorker


def collect(receive: Callable[[int], Any], indices: Iterable[int]) -> list[Any]:
    """Return every worker's answer; raise the first failure after all were read, so that none is left in a pipe."""
    answers: list[Any] = []
    failure: Exception | None = None
    for index in indices:
        try:
            answers.append(receive(index))
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return answers


def _describe(error: BaseException) -> tuple[str, str]:
    return f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))


def _step(env: gym.Env, action: Any) -> tuple[Any, float, bool, dict[str, Any], dict[str, Any]]:
    """Step with Stable-Baselines3's vector semantics: at the end of an episode, reset and keep the last observation."""
    obs, reward, terminated, truncated, info = env.step(action)
    done = bool(terminated or truncated)
    info = {**info, "TimeLimit.truncated": bool(truncated and not terminated)}
    reset_info: dict[str, Any] = {}
    if done:
        info["terminal_observation"] = obs
        obs, reset_info = env.reset()
    return obs, float(reward), done, info, reset_info


def _reset(env: gym.Env, data: tuple[int | None, dict[str, Any] | None]) -> tuple[Any, dict[str, Any]]:
    seed, options = data
    return env.reset(seed=seed, options=options) if options else env.reset(seed=seed)


def _has_attr(env: gym.Env, name: str) -> bool:
    try:
        env.get_wrapper_attr(name)
    except AttributeError:
        return False
    return True


def _is_wrapped(env: gym.Env, wrapper: tuple[str, str]) -> bool:
    """Return whether a wrapper's class, named by module and name (so that nothing must be imported for it), is used."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if any((kind.__module__, kind.__qualname__) == wrapper for kind in type(layer).__mro__):
            return True
        layer = layer.env
    return False


COMMANDS: dict[str, Callable[[gym.Env, Any], Any]] = {
    "step": _step,
    "reset": _reset,
    "render": lambda env, _: env.render(),
    "get_spaces": lambda env, _: (env.observation_space, env.action_space),
    "env_method": lambda env, data: env.get_wrapper_attr(data[0])(*data[1], **data[2]),
    "get_attr": lambda env, name: env.get_wrapper_attr(name),
    "has_attr": _has_attr,
    "set_attr": lambda env, data: setattr(env, data[0], data[1]),
    "is_wrapped": _is_wrapped,
}
