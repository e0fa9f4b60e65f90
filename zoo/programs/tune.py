"""The program ``tune``: search hyperparameters with Optuna; a study goes on where it was stopped."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, check_algorithm
from sb3_dreamer.zoo.config.plan import DEFAULT_ENV
from sb3_dreamer.zoo.config.search_space import load_space
from sb3_dreamer.zoo.programs import cli
from sb3_dreamer.zoo.programs.arguments import (
    KeyValues,
    OneLineParser,
    positive,
    to_command,
    to_words,
    whole,
    write_value,
)
from sb3_dreamer.zoo.programs.errors import UsageError, one_line
from sb3_dreamer.zoo.runs.provenance import describe_system


def make_parser() -> OneLineParser:
    """The parser of ``tune``."""
    parser = OneLineParser(
        prog="sb3-dreamer tune",
        description="Search hyperparameters. Start the same command again, or several times, to go on with a study.",
    )
    what = parser.add_argument_group("what to search")
    what.add_argument("--algo", default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)}")
    what.add_argument("--env", default=DEFAULT_ENV, metavar="ENV", help="as for train")
    what.add_argument("-n", "--n-timesteps", type=positive, metavar="N", help="steps of a trial (default: the file's)")
    what.add_argument("--space", default="", metavar="FILE", help="YAML: name: [choices] or {low: , high: , log: true}")
    what.add_argument(
        "-params", "--hyperparams", nargs="+", action=KeyValues, metavar="KEY:VALUE", help="fixed for all trials"
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--n-trials", type=whole, default=20, metavar="N", help="trials of this command; 0: only report"
    )
    search.add_argument("--max-total-trials", type=positive, metavar="N", help="stop when the study has so many")
    search.add_argument("--sampler", choices=["tpe", "random"], default="tpe", help="how values are chosen")
    search.add_argument("--pruner", choices=["median", "halving", "none"], default="median", help="who stops early")
    search.add_argument("--n-startup-trials", type=whole, default=5, metavar="N", help="random trials, never pruned")
    search.add_argument("--n-evaluations", type=positive, default=5, metavar="N", help="evaluations of a trial")
    search.add_argument("--eval-episodes", type=positive, default=5, metavar="N", help="episodes of an evaluation")
    search.add_argument("--n-jobs", type=positive, default=1, metavar="N", help="processes on the study")
    search.add_argument("--seed", type=whole, default=0, metavar="N", help="of the sampler; trial i trains with N + i")
    files = parser.add_argument_group("study")
    files.add_argument("--study-name", default="", metavar="NAME", help="default: ALGO-ENV")
    files.add_argument("--storage", default="", metavar="URL", help="default: sqlite:///LOG_FOLDER/ALGO/tune.db")
    files.add_argument("-f", "--log-folder", default="logs", metavar="DIR", help="where the results go")
    files.add_argument("--export", default="", metavar="FILE", help="JSON: all trials with values, seeds and scores")
    files.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1")
    files.add_argument("--num-threads", type=whole, default=-1, metavar="N", help="threads of PyTorch per process")
    return parser


def import_optuna() -> Any:
    """The package.

    :raises UsageError: if it is not installed
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("tune needs Optuna: pip install optuna") from None
    return optuna


def main(words: Sequence[str]) -> int:
    """Search.

    :param words: command-line arguments
    :return: exit status
    """
    parser = make_parser()
    args = parser.parse_args(words)
    optuna = import_optuna()
    check_algorithm(args.algo)
    if args.export and not Path(args.export).resolve().parent.is_dir():
        raise UsageError(f"--export {args.export!r}: there is no folder {Path(args.export).parent}")
    space = load_space(args.algo, args.space)
    clash = sorted(set(args.hyperparams or {}) & set(space))
    if clash:
        space = {name: choices for name, choices in space.items() if name not in clash}
        print(f"Fixed, not searched: {', '.join(clash)}")
    study = open_study(optuna, args)
    if args.n_trials:
        given = to_words(parser, args, skip=("export", "log_folder", "storage", "study_name"))
        commands = dict.fromkeys([*study.user_attrs.get("commands", []), to_command(["sb3-dreamer", "tune", *given])])
        study.set_user_attr("commands", list(commands))
    workers = start_workers(parser, args)
    try:
        run_trials(optuna, study, space, args)
    finally:
        for worker in workers:
            worker.wait()
    return report(optuna, study, args)


def open_study(optuna: Any, args: Namespace) -> Any:
    """The study, new or as it was left.

    :raises UsageError: if the storage cannot be used
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = Path(args.log_folder) / args.algo
    if not args.storage:
        folder.mkdir(parents=True, exist_ok=True)
        args.storage = f"sqlite:///{folder / 'tune.db'}"
    args.study_name = args.study_name or f"{args.algo}-{args.env}"
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(n_startup_trials=args.n_startup_trials, seed=args.seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=args.seed),
    }
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(args.n_startup_trials, n_warmup_steps=args.n_evaluations // 3),
        "halving": optuna.pruners.SuccessiveHalvingPruner,
        "none": optuna.pruners.NopPruner,
    }
    try:
        study = optuna.create_study(
            storage=args.storage,
            study_name=args.study_name,
            direction="maximize",
            load_if_exists=True,
            sampler=samplers[args.sampler](),
            pruner=pruners[args.pruner](),
        )
    except Exception as error:
        raise UsageError(f"--storage {args.storage!r} cannot be used: {one_line(error)[:200]}") from error
    print(f"Study {args.study_name!r} in {args.storage}: {len(study.trials)} trial(s) so far")
    return study


def start_workers(parser: OneLineParser, args: Namespace) -> list[subprocess.Popen[bytes]]:
    """Further processes on the same study; each takes its share of the trials."""
    if args.n_jobs == 1:
        return []
    share, rest = divmod(args.n_trials, args.n_jobs)
    args.n_trials = share + rest
    workers = []
    for index in range(1, args.n_jobs if share else 1):
        changed = Namespace(**{**vars(args), "n_jobs": 1, "n_trials": share, "seed": args.seed + 1000 * index})
        command = [sys.executable, "-m", "sb3_dreamer.zoo", "tune", *to_words(parser, changed)]
        workers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    return workers


def run_trials(optuna: Any, study: Any, space: dict[str, Any], args: Namespace) -> None:
    """Run this process's trials; Ctrl-C ends after the running one is thrown away."""
    from sb3_dreamer.zoo.programs.tune_trial import Objective, TrialFailedError

    callbacks = []
    if args.max_total_trials:
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        callbacks.append(optuna.study.MaxTrialsCallback(args.max_total_trials, states=states))
    try:
        study.optimize(Objective(space, args), n_trials=args.n_trials, callbacks=callbacks, catch=(TrialFailedError,))
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on with the study.")


def report(optuna: Any, study: Any, args: Namespace) -> int:
    """Print the best trial, write all trials as CSV.

    :return: exit status; 1 if no trial was completed
    """
    from sb3_dreamer.zoo.programs.errors import RunError

    states = optuna.trial.TrialState
    counts = {state.name.lower(): len(study.get_trials(states=(state,))) for state in states}
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    if not counts["complete"]:
        raise RunError("no trial was completed: look at the reasons above")
    if args.export:
        export(study, Path(args.export), args)
    path = Path(args.log_folder) / args.algo / f"{args.study_name.replace('/', '-').replace(':', '-')}-trials.csv"
    write_trials(study, path)
    best = study.best_trial
    params = [f"{name}:{write_value(value)}" for name, value in {**(args.hyperparams or {}), **best.params}.items()]
    steps = ["-n", str(args.n_timesteps)] if args.n_timesteps else []
    print(f"Best of {counts['complete']}: {best.value:.1f} (trial {best.number}). All trials: {path}")
    print(f"  {cli.command('train', ['--algo', args.algo, '--env', args.env, *steps, '--hyperparams', *params])}")
    return 0


def write_trials(study: Any, path: Path) -> None:
    """Write state, value, duration and hyperparameters of every trial."""
    import csv

    names = sorted({name for trial in study.trials for name in trial.params})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "value", "seconds", *names])
        for trial in study.trials:
            seconds = trial.duration.total_seconds() if trial.duration else ""
            row = [trial.number, trial.state.name.lower(), trial.value, seconds]
            writer.writerow([*row, *(trial.params.get(name) for name in names)])


def export(study: Any, path: Path, args: Namespace) -> None:
    """Write the study as JSON: for each trial its state, hyperparameters, seed, steps and mean returns by step.

    :param study: Optuna's
    :param path: file to write, whole or not at all
    :param args: flags of this command
    """
    trials = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "evaluations": trial.intermediate_values,
            "params": trial.params,
            "seed": trial.user_attrs.get("seed"),
            "n_timesteps": trial.user_attrs.get("n_timesteps"),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
        }
        for trial in study.trials
    ]
    system = describe_system()
    content = {
        "commands": study.user_attrs.get("commands"),
        "algo": args.algo,
        "env": args.env,
        "best_trial": study.best_trial.number,
        "trials": trials,
        "python": system["python"],
        "versions": system["packages"],
    }
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
