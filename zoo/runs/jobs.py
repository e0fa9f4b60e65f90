"""Run the jobs of a benchmark: one training per task and seed, whose state is read from its files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Job:
    """One training.

    :param algo: algorithm name
    :param env: environment with its suite
    :param run_name: the environment's part of the run folder's name
    :param seed: seed
    :param folder: its log folder
    :param flags: further flags of ``train``
    """

    algo: str
    env: str
    run_name: str
    seed: int
    folder: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.run_name}-seed{self.seed}"

    @property
    def log(self) -> Path:
        """File with what ``train`` printed in all attempts."""
        return Path(self.folder) / f"{self.name}.log"

    def last_line(self) -> str:
        """Return the last line of its log: the error, if it failed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def latest(self) -> RunFolder | None:
        """Return its latest run folder."""
        try:
            return run_folder.find(self.folder, self.algo, self.run_name)
        except UsageError:
            return None

    def state(self) -> str:
        """Return ``new``, ``stopped`` (can be resumed), ``failed`` or ``done``; a running job looks failed."""
        run = self.latest()
        if run is None:
            return "failed" if self.log.exists() else "new"
        if (run.path / "done").exists():
            return "done"
        saved = run.has_checkpoint or (run.model.exists() and run.replay.exists())
        return "stopped" if saved else "failed"

    def words(self) -> list[str]:
        """Return the arguments of ``train`` that start or resume it."""
        run = self.latest()
        words = ["train", "--algo", self.algo, "-f", self.folder, *self.flags]
        if run is not None and self.state() == "stopped":
            return [*words, "-i", str(run.path if run.has_checkpoint else run.model)]
        return [*words, "--env", self.env, "--seed", str(self.seed)]


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Write the list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(job) for job in jobs], indent=2) + "\n", encoding="utf-8")


def read_jobs(path: Path) -> list[Job]:
    """Read the list.

    :raises UsageError: if the file is damaged
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Job(**{**row, "flags": tuple(row["flags"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a list of jobs: {error}") from error


def mark_done(job: Job) -> None:
    """Mark the latest run of a job as finished."""
    run = job.latest()
    assert run is not None
    (run.path / "done").touch()


class Running:
    """Run a job in a process and session of its own, so that Ctrl-C reaches it only through us."""

    def __init__(self, job: Job):
        self.job = job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self.log = job.log.open("ab")
        command = [sys.executable, "-m", "sb3_dreamer.zoo", *job.words()]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def ended(self) -> int | None:
        """Return the exit status, None while it runs."""
        status = self.process.poll()
        if status is not None:
            self.log.close()
            if status == 0:
                mark_done(self.job)
        return status

    def stop(self) -> None:
        """Ask it to save and stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)


def run_local(jobs: Sequence[Job], parallel: int) -> Iterator[tuple[Job, int]]:
    """Run jobs, some at a time, yielding each with its exit status; all are asked to save if this is interrupted."""
    waiting = list(jobs)
    running: list[Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(Running(waiting.pop(0)))
                print(f"started  {running[-1].job.name}", flush=True)
            time.sleep(0.2)
            for item in list(running):
                status = item.ended()
                if status is not None:
                    running.remove(item)
                    yield item.job, status
    finally:
        for item in running:
            item.stop()
        for item in running:
            item.process.wait()
            item.ended()


def run_ray(jobs: Sequence[Job], parallel: int) -> Iterator[tuple[Job, int]]:
    """Run jobs on a Ray cluster whose machines share the log folder.

    :raises UsageError: if Ray is not installed
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs Ray: pip install ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False)

    def work(job: Job) -> int:
        running = Running(job)
        while (status := running.ended()) is None:
            time.sleep(1.0)
        return status

    remote: Any = ray.remote(num_cpus=1)(work)
    waiting = list(jobs)
    references: dict[Any, Job] = {}
    while waiting or references:
        while waiting and len(references) < parallel:
            job = waiting.pop(0)
            references[remote.remote(job)] = job
            print(f"started  {job.name}", flush=True)
        ready, _ = ray.wait(list(references), num_returns=1)
        for reference in ready:
            yield references.pop(reference), ray.get(reference)
