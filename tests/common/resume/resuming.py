"""Runs in parts and in processes of their own, for the tests of exact resume. As a program: one part of a run."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from tests.algorithms import ALGORITHMS, tiny


class Dies(BaseCallback):
    """Ends the run as if the process were killed: nothing is written after it.

    :param step: agent step at which it dies
    """

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise Killed
        return True


class Killed(Exception):  # noqa: N818
    """The run has died."""


CLOCK = ("time/fps", "time/time_elapsed", "train/plan_ms")


def run_part(folder: Path, algorithm: str, n_envs: int, total: int, **options: Any) -> Any:
    """Train to ``total`` steps, from the newest checkpoint in ``folder`` if there is one.

    :param options: ``every``, ``wait``, ``replay_dir``, ``env_id``, ``settings``, ``die_at``
    """
    cls = {cls.__name__: cls for cls in ALGORITHMS}[algorithm]
    every = options.get("every", 30)
    env = make_vec_env(options.get("env_id", "CartPole-v1"), n_envs)
    evaluation = make_vec_env(options.get("env_id", "CartPole-v1"), 1, seed=9)
    kwargs = {}
    if "replay_dir" in options:
        kwargs = {"replay_buffer_kwargs": {"replay_dir": options["replay_dir"], "spare_rows": 40 * n_envs}}
    if (folder / "checkpoints").exists() and list((folder / "checkpoints").glob("checkpoint_*")):
        model = cls.load_checkpoint(folder / "checkpoints", env=env, **kwargs)
    else:
        model = tiny(cls, "MlpPolicy", env, seed=3, **options.get("settings", {}), **kwargs)
    th.rand(7), np.random.rand(5)  # what a user's program draws before learn() must not matter
    model.set_logger(configure(str(folder / "log"), ["csv", "json"]))
    callbacks = [
        ResumableCheckpoint(folder / "checkpoints", every, keep=2, wait=options.get("wait", 0)),
        EvalCallback(evaluation, n_eval_episodes=1, eval_freq=max(1, 17 // n_envs), verbose=0, deterministic=False),
    ]
    if "die_at" in options:
        callbacks.append(Dies(options["die_at"]))
    return model.learn(total - model.num_timesteps, callbacks, log_interval=1, reset_num_timesteps=False)


def everything(model: Any, folder: Path) -> dict[str, Any]:
    """All that must be the same after a resume, as arrays and text."""
    found: dict[str, Any] = {f"policy.{name}": value.numpy() for name, value in model.policy.state_dict().items()}
    for name in model.optimizers:
        for index, state in getattr(model, name).state_dict()["state"].items():
            found |= {f"{name}.{index}.{key}": np.asarray(value) for key, value in state.items()}
    replay = model.replay_buffer
    for env in range(replay.n_envs):
        rows = (replay.cursor[env] - replay.filled[env] + np.arange(replay.filled[env])) % replay.ring
        found |= {f"replay.{env}.{name}": array[env, rows] for name, array in replay.arrays.items()}
    found |= {f"replay.{name}": getattr(replay, name) for name in ("cursor", "filled", "starts_episode")}
    found["replay.rng"] = np.array(str(replay.rng.bit_generator.state))
    found["torch"] = th.get_rng_state().numpy()
    found["numpy"] = np.random.get_state()[1]  # type: ignore[index]
    found["ratio"] = np.array(model._ratio_state)
    found["counters"] = np.array([model.num_timesteps, model._n_updates, model._episode_num])
    with open(folder / "log" / "progress.csv") as file:
        rows_of_log = [
            {key: value for key, value in row.items() if key not in CLOCK and value} for row in csv.DictReader(file)
        ]
    found["log"] = np.array(json.dumps(rows_of_log, sort_keys=True))
    lines = (folder / "log" / "progress.json").read_text().splitlines()
    entries = [{key: value for key, value in json.loads(line).items() if key not in CLOCK} for line in lines]
    found["json"] = np.array(json.dumps(entries, sort_keys=True))
    return found


def difference(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Names of all that is not the same bit for bit."""
    return sorted(
        name
        for name in left.keys() | right.keys()
        if name not in left or name not in right or left[name].tobytes() != right[name].tobytes()
    )


if __name__ == "__main__":
    th.set_num_threads(1)
    _folder, _options = Path(sys.argv[1]), json.loads(sys.argv[2])
    _model = run_part(_folder, **_options)
    np.savez(_folder / "state.npz", **everything(_model, _folder))
