"""Jobs on clusters: they do nothing twice, and resume when they were stopped; with stand-ins for the trainings."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.programs import suite
from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.runs.jobs import Job, mark_done
from sb3_dreamer.zoo.runs.launchers import ELSEWHERE, Worker, run_local, run_ray, run_slurm

with contextlib.suppress(ImportError):
    import submitit  # noqa: F401 - its import closes all log handlers, so it comes before pytest opens any

#: a training that waits until it is stopped, saves a checkpoint then, and ends at once when it is resumed
TRAINING = """
import pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1])
def stop(*_):
    (run / "checkpoints/checkpoint_000001_step_9").mkdir(parents=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print(*sys.argv[2:], flush=True)
if "-i" not in sys.argv and "wait" in sys.argv:
    (run / "CartPole-v1").mkdir(parents=True)
    (run / "CartPole-v1/config.yml").touch()
    time.sleep(60)
run.mkdir(parents=True, exist_ok=True)
"""


def make_job(folder: Path, *flags: str) -> Job:
    """Make a job whose training is a stand-in; a local class, which travels to other processes by value."""
    code = TRAINING

    class StandIn(Job):
        def command(self) -> list[str]:
            run = Path(self.folder) / self.algo / f"{self.run_name}_1"
            return [sys.executable, "-c", code, str(run), *self.words()]

    return StandIn("dreamerv3", "CartPole-v1", "CartPole-v1", 0, str(folder / "CartPole-v1-seed0"), flags)


def attempts(job: Job) -> list[str]:
    """The arguments of every training that was started."""
    return job.log.read_text(encoding="utf-8").splitlines() if job.log.exists() else []


def wait_for(path: Path, what: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 120
    while not (path.exists() and what()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore SIGINT, as programs in the background of a shell do; child processes inherit that."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def started(job: Job) -> Path:
    """The file of a stand-in that waits to be stopped."""
    return Path(job.folder) / "dreamerv3/CartPole-v1_1/CartPole-v1/config.yml"


def test_a_job_that_is_done_or_runs_elsewhere_does_nothing(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    Path(job.folder).mkdir()
    with FileLock(Path(job.folder) / "job.lock"):
        assert Worker()(job, str(tmp_path)) == ELSEWHERE
    run = run_folder.create(job.folder, "dreamerv3", "CartPole-v1")
    with FileLock(run.path / ".lock"):  # a training of which no launcher knows
        assert job.state() == "running" and Worker()(job, str(tmp_path)) == ELSEWHERE
    mark_done(job)
    assert Worker()(job, str(tmp_path)) == 0
    assert attempts(job) == []


def test_a_job_that_was_killed_in_its_final_evaluation_is_done(trained_once: Path) -> None:
    job = Job("dreamerv3", "CartPole-v1", "CartPole-v1", 3, str(trained_once))
    run = job.latest()
    assert run is not None and not (run.path / "done").exists() and job.state() == "done"


def test_a_resumed_job_gets_the_flags_that_are_no_settings_of_the_run(tmp_path: Path, capsys) -> None:
    """``-n`` would train longer, and hyperparameters are in the checkpoint."""
    words = ["suite", "classic", "--tasks", "CartPole-v1", "-f", str(tmp_path), "--dry-run", "--"]
    flags = ["-n", "60", "--hyperparams", "model_size:debug", "--device", "cpu"]
    assert main([*words, *flags]) == 0
    assert " ".join(flags) in capsys.readouterr().out
    run = run_folder.create(tmp_path / "CartPole-v1-seed0", "dreamerv3", "CartPole-v1")
    (run.path / "checkpoints/checkpoint_000001_step_9").mkdir(parents=True)
    assert main([*words, *flags]) == 0
    command = capsys.readouterr().out.splitlines()[0]
    assert command.endswith(f"--device cpu -i {run.path}") and "-n" not in command.split() and "debug" not in command


def test_a_job_that_has_begun_keeps_its_settings(trained_once: Path, tmp_path: Path, capsys) -> None:
    """A job that is resumed gets no hyperparameters again: the flags of the list are those that it began with."""
    folder = shutil.copytree(trained_once, tmp_path / "CartPole-v1-seed3")
    for state, begun in (("done", True), ("stopped", True), ("failed", False)):
        if state == "stopped":
            (folder / "dreamerv3/CartPole-v1_1/CartPole-v1.zip").unlink()
        elif state == "failed":
            shutil.rmtree(folder / "dreamerv3/CartPole-v1_1/checkpoints")
        old = Job("dreamerv3", "CartPole-v1", "CartPole-v1", 3, str(folder), ("-n", "200"))
        new = replace(old, flags=("-n", "300"))
        assert old.state() == state
        assert suite.merge([old], [new]) == [old if begun else new]
        suite.warn_of_other_flags([old], [new])
        out = capsys.readouterr().out
        assert ("began with other flags" in out and "-n 200" in out) is begun


def test_a_dry_run_prints_what_a_shell_can_run(tmp_path: Path, capsys) -> None:
    """Not the command of a job that another process runs, which would begin it once more."""
    run = run_folder.create(tmp_path / "CartPole-v1-seed0", "dreamerv3", "CartPole-v1")
    words = ["suite", "classic", "--tasks", "CartPole-v1", "-f", str(tmp_path), "--dry-run"]
    with FileLock(run.path / ".lock"):
        assert main(words) == 0
    assert capsys.readouterr().out == "# 1 running\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["local", "--launcher-options", "num_cpus:2"], "--launcher-options belongs to --launcher slurm or ray"),
        (["slurm", "--launcher-options", "cluster:debug"], "cluster:debug is unknown: use slurm or local"),
        (["ray"], "--launcher ray needs Ray"),
    ],
)
def test_what_a_launcher_refuses_leaves_nothing(flags, message, tmp_path: Path, monkeypatch, capsys) -> None:
    if "slurm" in flags:
        pytest.importorskip("submitit")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["suite", "classic", "-f", str(tmp_path / "logs"), "--launcher", *flags]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == "" and not list(tmp_path.iterdir())


def test_options_belong_to_a_cluster(tmp_path: Path, capsys) -> None:
    words = ["suite", "classic", "-f", str(tmp_path), "--launcher-options", "partition:gpu"]
    assert main(words) == 2 and "--launcher-options belongs to --launcher slurm or ray" in capsys.readouterr().err
    with pytest.raises(UsageError):
        next(run_local([make_job(tmp_path)], None, {"partition": "gpu"}))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a program of Windows at once")
def test_a_suite_that_is_terminated_in_the_background_stops_its_trainings(tmp_path: Path, small: list[str]) -> None:
    words = [sys.executable, "-m", "sb3_dreamer.zoo", "suite", "classic", "--tasks", "CartPole-v1", "-f", str(tmp_path)]
    words += ["--", "-n", "100000", "--save-freq", "50", "--eval-freq", "-1", *small]
    with (tmp_path / "log.txt").open("w") as log, interrupts_ignored():
        suite = subprocess.Popen(words, stdout=log, stderr=log)
    job = Job("dreamerv3", "CartPole-v1", "CartPole-v1", 0, str(tmp_path / "CartPole-v1-seed0"))
    checkpoints = Path(job.folder) / "dreamerv3/CartPole-v1_1/checkpoints"
    wait_for(checkpoints, lambda: any(checkpoints.glob("checkpoint_*")))
    suite.terminate()
    assert suite.wait(60) == 130
    assert job.state() == "stopped" and "Stopped at step" in job.log.read_text(encoding="utf-8")
    text = (tmp_path / "log.txt").read_text()
    assert "Stopped. Run the same command to resume." in text and "Traceback" not in text


def test_slurm_requeues_a_job_that_is_about_to_be_ended(tmp_path: Path, capsys) -> None:
    """With submitit's local executor, and the signal that Slurm sends before a time limit."""
    pytest.importorskip("submitit")
    job = make_job(tmp_path, "wait")
    other = replace(make_job(tmp_path), folder=str(tmp_path / "CartPole-v1-seed1"), seed=1)

    def preempt() -> None:
        wait_for(started(job))
        (pickled,) = (
            p for p in (tmp_path / "slurm").glob("*_submitted.pkl") if "seed0" in p.read_bytes().decode("latin1")
        )
        (worker,) = psutil.Process(int(pickled.name.partition("_")[0])).children()
        worker.send_signal(signal.SIGUSR2)

    with ThreadPoolExecutor() as pool:
        preempted = pool.submit(preempt)
        ended = list(run_slurm([job, other], None, {"cluster": "local", "timeout_min": 2}))
        preempted.result()
    assert sorted((one.seed, status) for one, status in ended) == [(0, 0), (1, 0)]
    first, second = attempts(job)
    assert "--env" in first.split() and second.split()[-2] == "-i"
    assert job.state() == other.state() == "done" and len(attempts(other)) == 1
    assert "queued   CartPole-v1-seed0 (job " in capsys.readouterr().out


#: programs of Slurm: sbatch runs the tasks of an array here, in the background
SLURM = {
    "sbatch": """
cp "$1" "$(dirname "$0")/script.sh"
for task in 0 1; do
    SLURM_JOB_ID=8$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task bash "$1" > /dev/null 2>&1 &
done
echo Submitted batch job 7
""",
    "srun": """
while [[ $1 == -* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done
exec "$@"
""",
    "sacct": "true",
}


def test_slurm_gets_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for Slurm's programs."""
    pytest.importorskip("submitit")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in SLURM.items():
        (programs / name).write_text(f"#!/bin/bash{text if text[0] == chr(10) else chr(10) + text}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    job = make_job(tmp_path)
    other = replace(job, folder=str(tmp_path / "CartPole-v1-seed1"), seed=1)
    options = {"partition": "gpu", "timeout_min": 600, "gpus_per_node": 1, "cpus_per_task": 4, "mem_gb": 32}
    ended = list(run_slurm([job, other], 1, options))
    assert sorted((one.seed, status) for one, status in ended) == [(0, 0), (1, 0)]
    script = (programs / "script.sh").read_text()
    for flag in ("partition=gpu", "time=600", "gpus-per-node=1", "cpus-per-task=4", "mem=32GB", "array=0-1%1"):
        assert f"#SBATCH --{flag}\n" in script


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "srun"), ({"cluster": "local", "partion": "gpu"}, "partion"), ({"cluster": "sun"}, "sun")],
)
def test_slurm_refuses_what_it_does_not_know(
    options: dict[str, str], message: str, tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")  # no srun
    with pytest.raises(UsageError, match=message):
        next(run_slurm([make_job(tmp_path)], None, options))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch):
    """A cluster of this machine alone."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token to the home folder
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with interrupts_ignored():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_ray_runs_jobs_and_stops_them_with_the_program(ray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="num_gpu"):
        next(run_ray([make_job(tmp_path)], None, {"num_gpu": 1}))
    job = make_job(tmp_path, "wait")
    other = replace(make_job(tmp_path), folder=str(tmp_path / "CartPole-v1-seed1"), seed=1)
    running = run_ray([job, other], None, {"num_cpus": 1})
    assert next(running) == (other, 0)
    wait_for(started(job))
    running.close()  # as Ctrl-C does
    assert job.state() == "stopped" and other.state() == "done"
    assert [(one.seed, status) for one, status in run_ray([job, other], 1, {})] == [(0, 0), (1, 0)]
    assert len(attempts(job)) == 2 and len(attempts(other)) == 1


@pytest.mark.slow
def test_a_training_that_slurm_preempts_ends_with_the_steps_it_was_asked_for(tmp_path: Path, small: list[str]) -> None:
    pytest.importorskip("submitit")
    words = ["suite", "classic", "--tasks", "CartPole-v1", "-f", str(tmp_path), "--launcher", "slurm"]
    words += [
        "--launcher-options",
        "cluster:local",
        "--",
        "-n",
        "4000",
        "--save-freq",
        "50",
        "--eval-freq",
        "-1",
        *small,
    ]
    job = Job("dreamerv3", "CartPole-v1", "CartPole-v1", 0, str(tmp_path / "CartPole-v1-seed0"))
    checkpoints = Path(job.folder) / "dreamerv3/CartPole-v1_1/checkpoints"

    def preempt() -> None:
        wait_for(checkpoints, lambda: any(checkpoints.glob("checkpoint_*")))
        (pickled,) = (tmp_path / "slurm").glob("*_submitted.pkl")
        os.kill(psutil.Process(int(pickled.name.partition("_")[0])).children()[0].pid, signal.SIGUSR2)

    with ThreadPoolExecutor() as pool:
        preempted = pool.submit(preempt)
        assert main(words) == 0
        preempted.result()
    assert "Stopped at step" in job.log.read_text(encoding="utf-8")
    run = job.latest()
    assert run is not None and run.steps_done == 4000 and run.path.name == "CartPole-v1_1"
