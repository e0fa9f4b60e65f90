"""One case of ``bench``: an algorithm of a size on a kind of observation, measured in a process of its own.

A new process for every case gives each its own peak of memory and the number of threads from the start.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.errors import RunError, one_line
from sb3_dreamer.zoo.speed.env import EPISODE, SyntheticEnv, fill_replay

PARTS = ("floor", "sampling", "predict", "learn")
MARK = "bench-result "  # begins the line of the child's output that holds the result
REPLAY_MIB = 64  # of synthetic rows: beyond the caches, so that sampling reads memory


@dataclass(frozen=True)
class Case:
    """What is measured.

    :param algo: name of the algorithm
    :param size: named model size
    :param obs: ``vectors`` or ``images``
    :param action: ``box`` or ``discrete``
    :param batch_size: B; None: the algorithm's default
    :param batch_length: T; None: the algorithm's default
    :param device: of the model
    :param threads: of torch
    :param updates: timed updates
    :param warmup: updates before them
    :param train_ratio: replayed steps per agent step in the end-to-end run
    :param seed: of everything
    :param hyperparams: further constructor arguments
    :param parts: what is measured besides updates, some of ``PARTS``
    :param task: ``measure``, ``profile`` or ``gpu``
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
    seed: int = 0
    hyperparams: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = PARTS
    task: str = "measure"

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.algo} {self.size} {self.obs}"


def build(case: Case) -> Any:
    """The model with a filled replay, in the state in which ``learn`` would update it."""
    env = SyntheticEnv(case.obs, case.action, case.seed)
    given = {"batch_size": case.batch_size, "batch_length": case.batch_length}
    values = {name: value for name, value in given.items() if value is not None} | case.hyperparams
    if case.algo == "planet":
        values |= {"seed_episodes": 0}  # replay is there already
    row = env.observations[0].nbytes + 64
    rows = max(4 * EPISODE, min(50_000, REPLAY_MIB * 2**20 // row))
    model = algorithm_class(case.algo)(
        "CnnPolicy" if case.obs == "images" else "MlpPolicy",
        env,
        model_size=case.size,
        buffer_size=rows + 2 * (EPISODE + 1),
        learning_starts=0,
        train_ratio=case.train_ratio,
        seed=case.seed,
        device=case.device,
        **values,
    )
    fill_replay(model, rows, case.seed)
    model.policy.set_training_mode(True)
    return model


def run_case(case: Case) -> dict[str, Any]:
    """Measure in a new process.

    :return: what :func:`sb3_dreamer.zoo.speed.measure.measure` or the profile gives, with the case under ``case``
    :raises RunError: if the process fails, with its last line
    """
    words = [sys.executable, "-m", "sb3_dreamer.zoo.speed.case", json.dumps(asdict(case))]
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


def run_cases(cases: dict[str, Case], console: Any) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure cases one after the other; one that fails leaves the others worth measuring.

    :param cases: by the name under which a case is shown
    :param console: shows what is being measured
    :return: results of those that worked, and messages of those that did not, by name
    :raises RunError: if all fail
    """
    results, failures = [], {}
    for name, case in cases.items():
        try:
            with console.status(f"{name} ..."):
                results.append(run_case(case))
        except RunError as error:
            failures[name] = str(error)
    if not results:
        raise RunError("; ".join(failures.values()))
    return results, failures


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that hold numerical libraries to a number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def main(words: list[str]) -> int:
    """The child's side: measure the case that the one argument describes."""
    import torch as th

    values = json.loads(words[0])
    case = Case(**values | {"parts": tuple(values["parts"])})
    th.set_num_threads(case.threads)
    if case.task == "profile":
        from sb3_dreamer.zoo.speed.profile import profile as task
    elif case.task == "gpu":
        from sb3_dreamer.zoo.speed.gpu import measure as task
    else:
        from sb3_dreamer.zoo.speed.measure import measure as task
    result = task(case)
    print(MARK + json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
