"""The program ``suite``: train on a whole benchmark, every task with several seeds; can be stopped and resumed."""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sb3_dreamer.wrappers.benchmarks.suites import SUITES
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, check_algorithm
from sb3_dreamer.zoo.config.arguments import OneLineParser, positive, whole
from sb3_dreamer.zoo.config.errors import RunError, UsageError, near
from sb3_dreamer.zoo.config.hyperparams import find_entry, suite_tasks
from sb3_dreamer.zoo.programs import train
from sb3_dreamer.zoo.runs.jobs import Job, read_jobs, run_local, run_ray, write_jobs


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer suite",
        description="Train on every task of a suite with several seeds. Ctrl-C saves the running jobs;\n"
        "the same command resumes them.",
        epilog="Flags of train follow --, for example:\n  suite atari100k --seeds 0 1 2 -- --device cuda",
    )
    parser.add_argument("suite", metavar="SUITE", help=f"classic, {', '.join(SUITES)}")
    parser.add_argument("--algo", default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)}")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="train only on these tasks")
    parser.add_argument(
        "--seeds", type=whole, nargs="+", default=[0], metavar="N", help="seeds of each task (default: 0)"
    )
    parser.add_argument("-j", "--jobs", type=positive, default=1, metavar="N", help="jobs to run in parallel")
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="run processes here, or on a Ray cluster"
    )
    parser.add_argument("-f", "--log-folder", default="logs", metavar="DIR", help="where to write the run folders")
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
    train.make_parser().parse_args(flags)  # An error shows now, not in every job.
    path = Path(args.log_folder) / f"{args.algo}-{args.suite}-jobs.json"
    jobs = merge(read_jobs(path) if path.exists() else [], make_jobs(args, flags))
    if args.status or args.dry_run:
        print_states(jobs, commands=args.dry_run)
        return 0
    write_jobs(path, jobs)
    return run(jobs, args)


def make_jobs(args: Namespace, flags: Sequence[str]) -> list[Job]:
    """Make a job per task and seed.

    :raises UsageError: for an unknown suite or task
    """
    algo = check_algorithm(args.algo)
    known = {name.rpartition(":")[2]: name for name in suite_tasks(args.suite, [algo])}
    for task in args.tasks or ():
        if task not in known:
            raise UsageError(
                f"--tasks {task!r} is not in {args.suite}{near(task, known)}: see sb3-dreamer list {args.suite}"
            )
    jobs = []
    for name in [known[task] for task in args.tasks or known]:
        run_name = find_entry(algo, name).run_name
        for seed in args.seeds:
            folder = str(Path(args.log_folder) / f"{run_name}-seed{seed}")
            jobs.append(Job(algo, name, run_name, seed, folder, tuple(flags)))
    return jobs


def merge(old: Sequence[Job], new: Sequence[Job]) -> list[Job]:
    """Merge stored jobs with those asked for now, whose flags hold for all that are not done."""
    jobs = {job.name: job for job in old}
    return list((jobs | {job.name: job for job in new}).values())


def run(jobs: Sequence[Job], args: Namespace) -> int:
    """Run what is not done, failed ones too."""
    left = [job for job in jobs if job.state() != "done"]
    print(f"{len(jobs)} job(s), {len(jobs) - len(left)} already done")
    failed = 0
    engine = run_ray if args.engine == "ray" else run_local
    try:
        for job, status in engine(left, args.jobs):
            failed += status != 0
            word = {0: "finished", 130: "stopped "}.get(status, "failed  ")
            print(f"{word} {job.name}", flush=True)
            if word == "failed  ":
                print(f"         {job.last_line()}\n         full log: {job.log}", flush=True)
    except KeyboardInterrupt:
        print("\nStopped. Run the same command to resume.")
        print_states(jobs)
        return 130
    print_states(jobs)
    if failed:
        raise RunError(f"{failed} of {len(left)} job(s) did not finish: run the same command to resume them")
    return 0


def print_states(jobs: Sequence[Job], commands: bool = False) -> None:
    """Print how many jobs are in which state, or the command of each that is not done."""
    states = {job.name: job.state() for job in jobs}
    if commands:
        for job in jobs:
            if states[job.name] != "done":
                print("sb3-dreamer " + " ".join(job.words()))
    print(", ".join(f"{count} {state}" for state, count in sorted(Counter(states.values()).items())))
