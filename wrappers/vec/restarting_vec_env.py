"""Step environments in worker processes, report their errors and replace dead ones (imports Stable-Baselines3)."""

from __future__ import annotations

import functools
import multiprocessing as mp
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import SubprocVecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    CloudpickleWrapper,
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)
from stable_baselines3.common.vec_env.subproc_vec_env import _stack_obs

from sb3_dreamer.wrappers.arguments import finite_number, whole_number
from sb3_dreamer.wrappers.vec.worker import WorkerError, collect, run_worker

START_SECONDS = 60.0


class _WorkerDiedError(Exception):
    """The worker process is gone or does not answer."""


class RestartingVecEnv(SubprocVecEnv):
    """``SubprocVecEnv`` whose workers report their errors and are replaced when they die.

    An exception in an environment is raised in the parent as ``WorkerError`` with the worker's traceback (SB3's class
    shows an ``EOFError``). A worker that dies without an exception (killed for memory, crashed in a simulator) or
    exceeds ``timeout`` is replaced by a new process with a new seed: its episode ends as truncated, with the last
    observation known as the final one, reward 0 and ``info["worker_restarted"] = True``. Other workers continue.
    Workers do not import torch when ``env_fns`` are partials of importable functions (as ``make_vec_env`` makes them).

    :param env_fns: makers of the environments
    :param start_method: as in ``multiprocessing``; default ``"forkserver"`` where it exists, else ``"spawn"``
    :param max_restarts: replacements of all workers together after which the next death raises ``WorkerError``
    :param timeout: seconds a step may take, None (default) for no limit; a reset may take a minute more, since it
        may wait for a process that is still importing
    :param restart_on_error: also replace a worker whose environment raised, with its traceback as a warning
    """

    def __init__(
        self,
        env_fns: list[Callable[[], gym.Env]],
        start_method: str | None = None,
        max_restarts: int = 10,
        timeout: float | None = None,
        restart_on_error: bool = False,
    ):
        max_restarts = whole_number("max_restarts", max_restarts, 0, what="number of workers")
        if timeout is not None:
            timeout = finite_number("timeout", timeout, positive=True)
        if start_method is None:
            start_method = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
        self.waiting = self.closed = False
        self.max_restarts, self.restarts = max_restarts, 0
        self.timeout, self.restart_on_error = timeout, restart_on_error
        self._context = mp.get_context(start_method)
        # A partial of an importable function travels as it is; anything else needs SB3's carrier for closures.
        self._makers = [
            fn if isinstance(fn, functools.partial) else functools.partial(_make_carried, CloudpickleWrapper(fn))
            for fn in env_fns
        ]
        self.remotes: Any = [None] * len(env_fns)
        self.processes: list[Any] = [None] * len(env_fns)
        self._last_obs: list[Any] = [None] * len(env_fns)
        self._first_seeds: list[int | None] = [None] * len(env_fns)
        self._dead: set[int] = set()
        self._unread = [0] * len(env_fns)  # answers that are still to come from each worker
        for index in range(len(env_fns)):
            self._start(index)
        try:
            self._send(0, "get_spaces", None)
            observation_space, action_space = self._receive(0)
            VecEnv.__init__(self, len(env_fns), observation_space, action_space)
        except (Exception, _WorkerDiedError) as error:
            self.processes[0].join(timeout=1.0)  # its pipe closes a little before it has an exit code
            code = self.processes[0].exitcode
            self.close()
            if isinstance(error, _WorkerDiedError):
                raise WorkerError(f"a worker ended (exit code {code}) while its environment was made.") from None
            raise

    def _start(self, index: int) -> None:
        """Start the process of one environment."""
        remote, work_remote = self._context.Pipe()
        args = (work_remote, remote, self._makers[index])
        process = self._context.Process(target=run_worker, args=args, daemon=True)  # type: ignore[attr-defined]
        process.start()
        work_remote.close()
        self.remotes[index], self.processes[index], self._unread[index] = remote, process, 0

    def _send(self, index: int, command: str, data: Any) -> None:
        try:
            self.remotes[index].send((command, data))
            self._unread[index] += 1
        except OSError:
            self._dead.add(index)

    def _receive(self, index: int, timeout: float | None = None) -> Any:
        """Return a worker's answer; raise ``WorkerError`` for a failure there, ``_WorkerDiedError`` without answer.

        It is the answer to the last command: those before were not read if Ctrl-C came in between.
        """
        try:
            while True:
                if index in self._dead or (timeout is not None and not self.remotes[index].poll(timeout)):
                    raise _WorkerDiedError
                fine, answer = self.remotes[index].recv()
                self._unread[index] -= 1
                if not self._unread[index]:
                    break
        except (EOFError, OSError):
            raise _WorkerDiedError from None
        if not fine:
            raise WorkerError("environment {} failed in its worker: {}\n\nTraceback there:\n{}".format(index, *answer))
        return answer

    def _replace(self, index: int, cause: Exception) -> tuple[Any, dict[str, Any]]:
        """Start a new worker for one environment and reset it; return what its reset returned."""
        while True:
            process = self.processes[index]
            process.join(timeout=1.0)
            code = process.exitcode
            process.kill()
            process.join()
            self.remotes[index].close()
            self._dead.discard(index)
            what = str(cause) if isinstance(cause, WorkerError) else (
                f"worker {index} gave no answer within {self.timeout} s" if code is None
                else f"worker {index} died with exit code {code}"
            )  # fmt: skip
            if self.restarts >= self.max_restarts:
                raise WorkerError(f"{what}; {self.restarts} workers were replaced already (max_restarts).") from None
            self.restarts += 1
            warnings.warn(f"{what}; replacing it ({self.restarts} of {self.max_restarts}).", stacklevel=3)
            self._start(index)
            seed = self._first_seeds[index]
            if seed is not None:  # new worlds, not the ones seen since the start, yet reproducible
                seed = int(np.random.SeedSequence([seed, self.restarts]).generate_state(1)[0])
            self._send(index, "reset", (seed, None))
            try:
                limit = None if self.timeout is None else self.timeout + START_SECONDS
                return self._receive(index, limit)
            except _WorkerDiedError as error:
                cause = error

    def _fetch(self, index: int) -> Any:
        """Return the answer to a step, or that of a replaced worker in the same form."""
        try:
            return self._receive(index, self.timeout)
        except _WorkerDiedError as error:
            obs, reset_info = self._replace(index, error)
        except WorkerError as error:
            if not self.restart_on_error:
                raise
            obs, reset_info = self._replace(index, error)
        last = self._last_obs[index]
        info = {"TimeLimit.truncated": True, "terminal_observation": obs if last is None else last}
        return obs, 0.0, True, {**info, "worker_restarted": True}, reset_info

    def _fetch_reset(self, index: int) -> tuple[Any, dict[str, Any]]:
        """Return the answer to a reset, or that of a replaced worker."""
        limit = None if self.timeout is None else self.timeout + START_SECONDS
        try:
            return self._receive(index, limit)
        except _WorkerDiedError as error:
            return self._replace(index, error)

    def step_async(self, actions: np.ndarray) -> None:
        """Send one action to every worker."""
        for index, action in enumerate(actions):
            self._send(index, "step", action)
        self.waiting = True

    def step_wait(self) -> VecEnvStepReturn:
        """Collect the answers, replacing workers that send none."""
        self.waiting = False
        results = collect(self._fetch, range(self.num_envs))
        obs, rewards, dones, infos, reset_infos = zip(*results, strict=True)
        self.reset_infos, self._last_obs = list(reset_infos), list(obs)
        stacked = _stack_obs(obs, self.observation_space)
        return stacked, np.array(rewards, np.float32), np.array(dones), list(infos)

    def reset(self) -> VecEnvObs:
        """Reset every environment with its seed, once."""
        for index in range(self.num_envs):
            if self._seeds[index] is not None:
                self._first_seeds[index] = self._seeds[index]
            self._send(index, "reset", (self._seeds[index], self._options[index]))
        results = collect(self._fetch_reset, range(self.num_envs))
        obs, reset_infos = zip(*results, strict=True)
        self.reset_infos, self._last_obs = list(reset_infos), list(obs)
        self._reset_seeds()
        self._reset_options()
        return _stack_obs(obs, self.observation_space)

    def _ask(self, command: str, data: Any, indices: VecEnvIndices = None) -> list[Any]:
        """Send a command to some workers and return their answers."""
        chosen = list(self._get_indices(indices))
        for index in chosen:
            self._send(index, command, data)
        try:
            return collect(self._receive, chosen)
        except _WorkerDiedError:
            raise WorkerError(f"a worker died before it answered {command!r}; step or reset replaces it.") from None

    def get_images(self) -> list[np.ndarray | None]:
        """Return the rendered images of all environments."""
        return self._ask("render", None) if self.render_mode == "rgb_array" else [None] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        """Return whether every environment has the attribute."""
        return all(self._ask("has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of some environments."""
        return self._ask("get_attr", attr_name, indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of some environments."""
        self._ask("set_attr", (attr_name, value), indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of some environments."""
        return self._ask("env_method", (method_name, method_args, kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether some environments are wrapped with a class."""
        return self._ask("is_wrapped", (wrapper_class.__module__, wrapper_class.__qualname__), indices)

    def close(self) -> None:
        """Ask the workers to close their environments, and end those that do not within five seconds."""
        if self.closed:
            return
        self.closed = True
        for index, process in enumerate(self.processes):
            if process is not None:
                self._send(index, "close", None)
        for process, remote in zip(self.processes, self.remotes, strict=True):
            if process is not None:
                process.join(timeout=5.0)
                if process.is_alive():
                    process.kill()
                    process.join()
                remote.close()


def _make_carried(carrier: Any) -> gym.Env:
    """Call the maker inside SB3's carrier for closures."""
    return carrier.var()
