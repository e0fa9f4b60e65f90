"""The jobs of a benchmark: one training per task and seed, whose state is read from its files."""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from sb3_dreamer.common.files.atomic import atomic_write
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
    :param resume_flags: those of them with which it is resumed; the others are settings of the run
    """

    algo: str
    env: str
    run_name: str
    seed: int
    folder: str
    flags: tuple[str, ...] = ()
    resume_flags: tuple[str, ...] = ()

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
        """Return ``new``, ``running``, ``stopped`` (can be resumed), ``failed`` or ``done``."""
        run = self.latest()
        if run is None:
            return "failed" if self.log.exists() else "new"
        if (run.path / "done").exists():
            return "done"
        if in_use(run.path):
            return "running"
        with contextlib.suppress(UsageError):  # of a damaged config.yml, which the resumed training names
            if run.model.exists() and run.steps_done >= run_folder.read_config(run).get("n_timesteps", inf):
                return "done"  # It was killed in its final evaluation.
        saved = run.has_checkpoint or (run.model.exists() and run.replay.exists())
        return "stopped" if saved else "failed"

    def words(self) -> list[str]:
        """Return the arguments of ``train`` that start or resume it."""
        run = self.latest()
        words = ["train", "--algo", self.algo, "-f", self.folder]
        if run is not None and self.state() == "stopped":
            return [*words, *self.resume_flags, "-i", str(run.path if run.has_checkpoint else run.model)]
        return [*words, *self.flags, "--env", self.env, "--seed", str(self.seed)]

    def command(self) -> list[str]:
        """Return the command of a process that starts or resumes it."""
        return [sys.executable, "-m", "sb3_dreamer.zoo", *self.words()]


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Write the list."""
    with atomic_write(path) as file:
        file.write((json.dumps([asdict(job) for job in jobs], indent=2) + "\n").encode())


def read_jobs(path: Path) -> list[Job]:
    """Read the list.

    :raises UsageError: if the file is damaged
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        flags = ("flags", "resume_flags")
        return [Job(**row | {name: tuple(row.get(name, ())) for name in flags}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a list of jobs: {error}") from error


def mark_done(job: Job) -> None:
    """Mark the latest run of a job as finished."""
    run = job.latest()
    assert run is not None
    (run.path / "done").touch()


def in_use(folder: Path) -> bool:
    """Return whether a training, on this machine or another one, writes to a run folder."""
    from sb3_dreamer.common.resume.folder import LOCK, FolderInUseError, sole_writer

    try:
        if (folder / LOCK).exists():
            with sole_writer(folder):
                pass
    except FolderInUseError:
        return True
    return False
