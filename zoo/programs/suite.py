"""The program ``suite``: train on a whole benchmark, every task with several seeds; can be stopped and resumed."""

import shlex
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.benchmarks.suites import SUITES
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, algorithm_class, check_algorithm
from sb3_dreamer.zoo.config.arguments import (
    KeyValues,
    OneLineParser,
    check_output,
    folder,
    job_seed,
    positive,
    to_command,
    to_words,
)
from sb3_dreamer.zoo.config.errors import RunError, UsageError, plural
from sb3_dreamer.zoo.config.hyperparams import find_entry, suite_tasks
from sb3_dreamer.zoo.config.values import check_values
from sb3_dreamer.zoo.programs import train
from sb3_dreamer.zoo.runs.jobs import Job, read_jobs, write_jobs
from sb3_dreamer.zoo.runs.launchers import ELSEWHERE, LAUNCHERS

BEGUN = ("stopped", "running", "done")  #: states of jobs whose settings are those of their run
OF_THE_JOBS = {  #: flags of ``train`` that every job has its own of, and what to do instead
    "seed": "every job has its own; use --seeds before --",
    "env": "every job has its own; use --tasks before --",
    "algo": "every job has its own; use --algo before --",
    "log_folder": "every job has its own; use -f before --",
    "trained_agent": "every job starts a run of its own; train one task with sb3-dreamer train -i",
    "config": "every job has its own settings; use --conf-file or --hyperparams",
}


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer suite",
        description="Train on every task of a suite with several seeds. Ctrl-C saves the running jobs (those of Slurm\n"
        "continue); the same command resumes what is not done.",
        epilog="""\
Flags of train follow --, for example:
  suite atari100k --seeds 0 1 2 -- --device cuda
  suite atari100k --launcher slurm --launcher-options partition:gpu timeout_min:600 gpus_per_node:1 -- --device cuda
  suite atari100k --launcher ray --launcher-options num_cpus:4 num_gpus:1 -- --device cuda""",
    )
    parser.add_argument("suite", metavar="SUITE", help=f"classic, {', '.join(SUITES)}")
    parser.add_argument("--algo", default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)}")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="train only on these tasks")
    parser.add_argument(
        "--seeds", type=job_seed, nargs="+", default=[0], metavar="N", help="seeds of each task (default: 0)"
    )
    parser.add_argument(
        "-j", "--jobs", type=positive, metavar="N",
        help="jobs to run in parallel (default: 1 here, as many as there is room for on a cluster)",
    )  # fmt: skip
    parser.add_argument(
        "--launcher", choices=list(LAUNCHERS), default="local",
        help="run the jobs here, on a Slurm cluster (submitit), or on a Ray cluster",
    )  # fmt: skip
    parser.add_argument(
        "--launcher-options", nargs="+", action=KeyValues, metavar="KEY:VALUE",
        help="what each job gets. slurm: timeout_min, partition, gpus_per_node, cpus_per_task, mem_gb, account, ...; "
        "ray: num_cpus, num_gpus, memory, ...",
    )  # fmt: skip
    parser.add_argument(
        "-f", "--log-folder", type=folder, default="logs", metavar="DIR", help="where to write the run folders"
    )
    parser.add_argument("--status", action="store_true", help="show progress and exit")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the jobs and exit")
    return parser


def main(words: Sequence[str]) -> int:
    """Run the jobs that are not done.

    :param words: command-line arguments
    :return: exit status; 130 after Ctrl-C
    """
    split = list(words).index("--") if "--" in words else len(words)
    args = make_parser().parse_args(list(words[:split]))
    flags = list(words[split + 1 :])
    jobs = make_jobs(args, flags, check_flags(args.algo, flags))
    path = Path(args.log_folder) / f"{args.algo}-{args.suite}-jobs.json"
    stored = read_jobs(path) if path.exists() else []
    if args.status or args.dry_run:
        print_states(jobs, commands=args.dry_run)
        return 0
    check_output("--log-folder", args.log_folder, is_folder=True)
    left = [job for job in jobs if job.state() not in ("done", "running")]
    results = LAUNCHERS[args.launcher](left, args.jobs, args.launcher_options or {})  # refuses before a file is written
    write_jobs(path, merge(stored, jobs))
    warn_of_other_flags(stored, jobs)
    return run(jobs, left, results, args.launcher)


def check_flags(algo: str, flags: Sequence[str]) -> list[str]:
    """Check the flags after ``--`` now, not in every job; return those with which a job is resumed.

    :raises UsageError: for a flag or hyperparameter that is unknown, or that every job has its own of
    """
    parser = train.make_parser()
    parser.set_defaults(**dict.fromkeys(OF_THE_JOBS))
    given = parser.parse_args(flags)
    for name, instead in OF_THE_JOBS.items():
        if getattr(given, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} after --: {instead}")
    check_values(given.hyperparams or {}, algorithm_class(algo), "--hyperparams")
    return to_words(parser, given, train.NOT_FOR_RESUMING)


def make_jobs(args: Namespace, flags: Sequence[str], resume_flags: Sequence[str]) -> list[Job]:
    """Make a job per task and seed.

    :param flags: of ``train``
    :param resume_flags: those of them that are passed when a job is resumed, too
    :raises UsageError: for an unknown suite or task
    """
    algo = check_algorithm(args.algo)
    known = {name.rpartition(":")[2]: name for name in suite_tasks(args.suite, [algo])}
    for task in args.tasks or ():
        if task not in known:
            raise UsageError(
                f"--tasks {task!r} is not in {args.suite}{near(task, known)}: see sb3-dreamer list {args.suite}"
            )
    jobs = {}  # A task or seed that is named twice is one job.
    for name in [known[task] for task in args.tasks or known]:
        run_name = find_entry(algo, name).run_name
        for seed in args.seeds:
            folder = str(Path(args.log_folder) / f"{run_name}-seed{seed}")
            job = Job(algo, name, run_name, seed, folder, tuple(flags), tuple(resume_flags))
            jobs[job.name] = job
    return list(jobs.values())


def merge(old: Sequence[Job], new: Sequence[Job]) -> list[Job]:
    """Merge stored jobs with those asked for now, whose flags hold for all that begin now."""
    jobs = {job.name: job for job in old}
    begin = {job.name: job for job in new if job.state() not in BEGUN or job.name not in jobs}
    return list((jobs | begin).values())


def warn_of_other_flags(old: Sequence[Job], new: Sequence[Job]) -> None:
    """Name the jobs that have begun, and so keep their settings, with other flags than those asked for now."""
    flags = {job.name: job.flags for job in old}
    other = [job for job in new if flags.get(job.name, job.flags) != job.flags and job.state() in BEGUN]
    if other:
        print(
            f"{plural(len(other), 'job')} began with other flags after -- and keep the settings from then, those of "
            f"{other[0].name}: {shlex.join(flags[other[0].name]) or 'none'}. To train with the flags of this command, "
            f"pass another -f FOLDER, or remove {', '.join(job.folder for job in other)}"
        )


def run(jobs: Sequence[Job], left: Sequence[Job], results: Iterator[tuple[Job, int]], launcher: str) -> int:
    """Run what is not done, failed ones too.

    :param jobs: all that were asked for
    :param left: those of them that are not done
    :param results: each with its exit status, from the launcher
    :param launcher: its name
    """
    states = Counter(job.state() for job in jobs)
    running = f", {states['running']} running already" if states["running"] else ""
    print(f"{plural(len(jobs), 'job')}, {states['done']} already done{running}")
    failed = 0
    try:
        for job, status in results:
            failed += status != 0
            word = {0: "finished", 130: "stopped ", ELSEWHERE: "running "}.get(status, "failed  ")
            print(f"{word} {job.name}", flush=True)
            if word == "failed  ":
                print(f"         {job.last_line()}\n         full log: {job.log}", flush=True)
    except KeyboardInterrupt:
        what = "The jobs stay in Slurm's queue (scancel ends them)" if launcher == "slurm" else "Stopped"
        print(f"\n{what}. Run the same command to resume.")
        print_states(jobs)
        return 130
    print_states(jobs)
    if failed:
        raise RunError(f"{failed} of {plural(len(left), 'job')} did not finish: run the same command to resume them")
    return 0


def print_states(jobs: Sequence[Job], commands: bool = False) -> None:
    """Print how many jobs are in which state, or the command of each that is not done."""
    states = {job.name: job.state() for job in jobs}
    if commands:
        for job in jobs:
            if states[job.name] not in ("done", "running"):
                program, *words = job.words()
                print(to_command(program, words))
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states.values()).items()))
    print(f"# {counts}" if commands else counts)
