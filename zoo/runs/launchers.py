"""Where the jobs of a benchmark run: processes here, a Slurm cluster through submitit, a Ray cluster."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.runs.jobs import Job, mark_done

ELSEWHERE = 75  #: status of a job that another process runs already


class Running:
    """Run a job in a process and session of its own, so that Ctrl-C reaches it only through us."""

    def __init__(self, job: Job):
        self.job = job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self.log = job.log.open("ab")
        self.process = subprocess.Popen(
            job.command(), stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def ended(self) -> int | None:
        """Return the exit status, None while it runs."""
        status = self.process.poll()
        if status is not None:
            self.log.close()
            if status == 0:
                mark_done(self.job)
        return status

    def stop(self) -> None:
        """Ask it to save and stop, with SIGTERM: processes started from the background of a shell ignore SIGINT."""
        self.process.terminate()

    def finish(self) -> int | None:
        """Ask it to save and stop, and wait until it has."""
        self.stop()
        self.process.wait()
        return self.ended()


def run_local(jobs: Sequence[Job], parallel: int | None, options: Mapping[str, Any]) -> Iterator[tuple[Job, int]]:
    """Run jobs, some at a time, yielding each with its exit status; all are asked to save if this is interrupted.

    :param parallel: jobs at a time; None: 1
    :param options: none
    :raises UsageError: if there are options
    """
    if options:
        raise UsageError("--launcher-options belongs to --launcher slurm or ray")
    return _run_here(jobs, parallel or 1)


def _run_here(jobs: Sequence[Job], parallel: int) -> Iterator[tuple[Job, int]]:
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


class Worker:
    """Run a job on the machine where this is called; do nothing if the job is done or another process runs it."""

    def __init__(self) -> None:
        self.running: Running | None = None

    def __call__(self, job: Job, directory: str) -> int:
        """Run it to its end; however this is interrupted, the training is asked to save.

        :param job: what to run
        :param directory: working directory, which all machines share
        :return: exit status
        """
        os.chdir(directory)
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(FileLock(Path(job.folder) / "job.lock", timeout=0))
            except Timeout:
                return ELSEWHERE
            except (OSError, NotImplementedError):  # a file system without locks; the training warns, too
                pass
            state = job.state()
            if state in ("done", "running"):
                return 0 if state == "done" else ELSEWHERE
            self.running = Running(job)
            try:
                while (status := self.running.ended()) is None:
                    time.sleep(0.2)
                return status
            finally:
                self.running.finish()

    def checkpoint(self, job: Job, directory: str) -> Any:
        """Stop the training and return what to queue again: submitit calls this when Slurm is about to end the job."""
        from submitit.helpers import DelayedSubmission

        if self.running is not None:
            self.running.finish()
        return DelayedSubmission(Worker(), job, directory)


def run_slurm(jobs: Sequence[Job], parallel: int | None, options: Mapping[str, Any]) -> Iterator[tuple[Job, int]]:
    """Run jobs on a Slurm cluster as one array, yielding each with its exit status; interrupting this ends none.

    A job that reaches its time limit, or is preempted, saves and is queued again.

    :param parallel: jobs at a time; None: as many as Slurm lets run
    :param options: submitit's names: ``timeout_min``, ``mem_gb``, ``cpus_per_task``, ``gpus_per_node``, and Slurm's own
        (``partition``, ``qos``, ``account``, ...); ``cluster``: ``local`` runs the jobs here, to try it out
    :raises UsageError: if submitit or Slurm is missing, or an option is unknown
    """
    try:
        import submitit
    except ImportError:
        raise UsageError('--launcher slurm needs submitit: pip install "sb3-dreamer[slurm]"') from None
    values = dict(options)
    cluster = values.pop("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise UsageError(f"--launcher-options cluster:{cluster} is unknown: use slurm or local")
    if not jobs:
        return iter(())
    if cluster == "slurm" and parallel:
        values["array_parallelism"] = parallel
    try:
        folder = Path(jobs[0].folder).parent / "slurm"
        executor = submitit.AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": 1000})
        executor.update_parameters(**{f"{cluster}_{name}": value for name, value in values.items()})
        with executor.batch():
            handles = [executor.submit(Worker(), job, os.getcwd()) for job in jobs]
    except Exception as error:  # submitit has no class of its own for what it refuses
        raise UsageError(f"--launcher slurm: {one_line(error)}") from error
    return _wait_for_slurm(dict(zip(handles, jobs, strict=True)))


def _wait_for_slurm(waiting: dict[Any, Job]) -> Iterator[tuple[Job, int]]:
    for handle, job in waiting.items():
        print(f"queued   {job.name} (job {handle.job_id}, output in {handle.paths.folder})", flush=True)
    while waiting:
        time.sleep(1.0)
        for handle in [handle for handle in waiting if handle.done()]:
            failure = handle.exception()
            if failure is not None:
                print(f"{handle.job_id}: {failure}", file=sys.stderr)
            yield waiting.pop(handle), handle.result() if failure is None else 1


def run_ray(jobs: Sequence[Job], parallel: int | None, options: Mapping[str, Any]) -> Iterator[tuple[Job, int]]:
    """Run jobs on a Ray cluster, yielding each with its exit status; all are asked to save if this is interrupted.

    :param parallel: jobs at a time; None: as many as the cluster has room for
    :param options: of ``ray.remote``: ``num_cpus`` (default: 1), ``num_gpus``, ``memory``, ``resources``, ...
    :raises UsageError: if Ray is not installed, or an option is unknown
    """
    try:
        import ray
    except ImportError:
        raise UsageError('--launcher ray needs Ray: pip install "sb3-dreamer[ray]"') from None

    def work(job: Job, directory: str) -> int:
        # Ray cancels a job with SIGINT, which its workers block, and also ignore if this program runs in the background
        # of a shell.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if os.name == "posix":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return Worker()(job, directory)

    try:
        remote: Any = ray.remote(**{"num_cpus": 1, **options})(work)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--launcher ray: {one_line(error)}") from error
    return _run_on_ray(remote, jobs, parallel or len(jobs))


def _run_on_ray(remote: Any, jobs: Sequence[Job], parallel: int) -> Iterator[tuple[Job, int]]:
    import ray

    if not jobs:
        return
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    waiting = list(jobs)
    running: dict[Any, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running[remote.remote(job, os.getcwd())] = job
                print(f"queued   {job.name}", flush=True)
            for reference in ray.wait(list(running))[0]:
                try:
                    status = ray.get(reference)
                except ray.exceptions.RayError as error:  # its worker was lost, retries included
                    print(f"{running[reference].name}: {error}", file=sys.stderr)
                    status = 1
                yield running.pop(reference), status
    finally:
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(list(running), num_returns=len(running))


Launcher = Callable[[Sequence[Job], int | None, Mapping[str, Any]], Iterator[tuple[Job, int]]]
LAUNCHERS: dict[str, Launcher] = {"local": run_local, "slurm": run_slurm, "ray": run_ray}
