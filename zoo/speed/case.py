"""A case of ``bench``: an algorithm of some size on synthetic data, measured in a new process.

A new process for every case gives each its own peak of memory and the right number of threads from the start.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.errors import RunError, one_line

OBSERVATIONS = ("vectors", "images")
ACTIONS = ("box", "discrete")
PARTS = ("floor", "sampling", "predict", "learn")
VECTOR, IMAGE = (24,), (64, 64, 3)  # walker_walk's numbers; the image of all benchmark suites
EPISODE = 250  # steps, so that batches hold some rows where an episode begins
STOCK = 64  # different observations
REPLAY_MIB = 64  # of synthetic rows: beyond the caches, so that sampling reads memory
MARK = "bench-result "  # begins the line of the child's output that holds the result

Result = dict[str, Any]  #: plain values, times in seconds


@dataclass(frozen=True)
class Case:
    """What is measured.

    :param algo: name of the algorithm
    :param size: named model size
    :param obs: ``vectors`` (24 numbers) or ``images`` (64x64 RGB)
    :param action: ``box`` (6 numbers) or ``discrete`` (6 actions with vectors; 18, as in Atari, with images)
    :param batch_size: B; None: the algorithm's default
    :param batch_length: T; None: the algorithm's default
    :param device: of the model
    :param threads: of torch
    :param updates: timed updates
    :param warmup: updates before them
    :param train_ratio: replayed steps per agent step in the end-to-end run
    :param n_envs: environments of the end-to-end run, in one process
    :param seed: of everything
    :param hyperparams: further constructor arguments
    :param parts: what is measured besides updates, some of ``PARTS``
    :param replay_rows: rows of synthetic replay, fewer if they would take more than ``REPLAY_MIB``
    """

    algo: str
    size: str
    obs: str = "vectors"
    action: str = "box"
    batch_size: int | None = None
    batch_length: int | None = None
    device: str = "cpu"
    threads: int = 1
    updates: int = 8
    warmup: int = 2
    train_ratio: float = 64.0
    n_envs: int = 1
    seed: int = 0
    hyperparams: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = PARTS
    replay_rows: int = 50_000

    @property
    def name(self) -> str:
        """Algorithm, size and observation."""
        return f"{self.algo} {self.size} {self.obs}"


def sizes_of(algo: str) -> list[str]:
    """Names of an algorithm's sizes."""
    from sb3_dreamer.dreamer_v2.spec import SIZES as V2
    from sb3_dreamer.dreamer_v3.spec import SIZES as V3
    from sb3_dreamer.planet.spec import SIZES as PLANET

    return {"dreamerv3": list(V3), "dreamerv2": list(V2), "planet": list(PLANET)}[algo]


# ---- synthetic data -------------------------------------------------------------------------------------------------


def noise(space: gym.Space, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw observations ``(count, ...)``: uniform bytes for an image, standard normal numbers for a vector."""
    shape = (count, *(space.shape or ()))
    image = space.dtype == np.uint8
    return rng.integers(0, 256, shape, np.uint8) if image else rng.standard_normal(shape).astype(np.float32)


def random_actions(space: gym.Space, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw random actions ``(count, ...)`` in one call, which is much faster than one ``sample()`` for each."""
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, count)
    assert isinstance(space, spaces.Box)
    return rng.uniform(space.low, space.high, (count, *space.shape)).astype(space.dtype)


class SyntheticEnv(gym.Env):
    """Show a fixed stock of noise in turn, whatever the action; costs next to nothing.

    :param observation_space: images or vectors
    :param action_space: any
    :param seed: of the stock
    :param length: steps after which an episode is cut
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, seed: int = 0, length: int = EPISODE):
        rng = np.random.default_rng(seed)
        self.observation_space, self.action_space, self.length = observation_space, action_space, length
        self.observations, self.rewards = noise(observation_space, STOCK, rng), rng.standard_normal(STOCK)
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.t = 0
        return self.observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Do one step; every episode is cut at the same length."""
        self.t += 1
        now = self.t % STOCK
        return self.observations[now], float(self.rewards[now]), False, self.t >= self.length, {}


def make_env(case: Case) -> SyntheticEnv:
    """Make the environment of a case."""
    images = case.obs == "images"
    space = spaces.Box(0, 255, IMAGE, np.uint8) if images else spaces.Box(-np.inf, np.inf, VECTOR, np.float32)
    actions = spaces.Discrete(18 if images else 6) if case.action == "discrete" else spaces.Box(-1.0, 1.0, (6,))
    return SyntheticEnv(space, actions, case.seed)


def fill_replay(model: Any, rows: int, seed: int = 0) -> None:
    """Fill a model's replay with noise through the buffer's public way in, half of the episodes terminated.

    :param model: algorithm with an empty replay
    :param rows: at least so many rows are stored, in whole episodes of ``EPISODE`` steps
    :param seed: of the noise
    """
    rng, replay = np.random.default_rng(seed), model.replay_buffer
    episodes = 0
    while replay.size() < rows:
        obs = noise(model.observation_space, EPISODE + 1, rng)
        actions = random_actions(model.action_space, EPISODE, rng)
        episode = {"observations": obs, "actions": actions, "rewards": rng.standard_normal(EPISODE)}
        replay.add_episodes(episode | {"terminated": episodes % 2 == 0})
        episodes += 1


def build(case: Case) -> Any:
    """Build the model with a filled replay, in the state in which ``learn`` would update it."""
    env = DummyVecEnv([lambda: make_env(case)] * case.n_envs)
    given = {"batch_size": case.batch_size, "batch_length": case.batch_length}
    values = {name: value for name, value in given.items() if value is not None} | case.hyperparams
    if case.algo == "planet":
        values |= {"seed_episodes": 0}  # replay is there already
    row_bytes = noise(env.observation_space, 1, np.random.default_rng(0)).nbytes + 64
    rows = max(4 * EPISODE, min(case.replay_rows, REPLAY_MIB * 2**20 // row_bytes))
    model = algorithm_class(case.algo)(
        "CnnPolicy" if case.obs == "images" else "MlpPolicy",
        env,
        model_size=case.size,
        buffer_size=rows + 2 * (EPISODE + 1) * case.n_envs,
        learning_starts=0,
        train_ratio=case.train_ratio,
        seed=case.seed,
        device=case.device,
        **values,
    )
    fill_replay(model, rows, case.seed)
    model.policy.set_training_mode(True)
    return model


# ---- processes ------------------------------------------------------------------------------------------------------


def run_case(case: Case, measure: Callable[[Case], Result]) -> Result:
    """Measure a case in a new process.

    :param case: what to measure
    :param measure: function of a module that measures
    :return: what ``measure`` returns, with the case under ``case``
    :raises RunError: if the process fails, with its last line
    """
    task = [measure.__module__, measure.__name__, json.dumps(asdict(case))]
    words = [sys.executable, "-m", "sb3_dreamer.zoo.speed.case", *task]
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | thread_limits(case.threads)
    )
    try:
        out, err = child.communicate()
    finally:
        child.kill()
    for line in out.splitlines():
        if line.startswith(MARK):
            return {"case": asdict(case), **json.loads(line.removeprefix(MARK))}
    if os.environ.get("SB3_DREAMER_TRACEBACK"):
        sys.stderr.write(err)
    last = one_line((err.strip().splitlines() or [f"exit status {child.returncode}"])[-1])
    raise RunError(f"{case.name}: {last}")


def run_cases(
    cases: dict[str, Case], measure: Callable[[Case], Result], console: Any
) -> tuple[list[Result], dict[str, str]]:
    """Measure cases one after the other; one that fails leaves the others worth measuring.

    :param cases: by the name under which a case is shown
    :param measure: as in :func:`run_case`
    :param console: shows what is being measured
    :return: results of those that worked, and messages of those that did not, by name
    :raises RunError: if all fail
    """
    results, failures = [], {}
    for name, case in cases.items():
        try:
            with console.status(f"{name} ..."):
                results.append(run_case(case, measure))
        except RunError as error:
            failures[name] = str(error)
    if not results:
        raise RunError("; ".join(failures.values()))
    return results, failures


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that hold numerical libraries to a number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def main(module: str, function: str, text: str) -> int:
    """Measure in the child: a function of a module, and the case as JSON."""
    import torch as th

    values = json.loads(text)
    case = Case(**values | {"parts": tuple(values["parts"])})
    th.set_num_threads(case.threads)
    result = getattr(importlib.import_module(module), function)(case)
    print(MARK + json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
