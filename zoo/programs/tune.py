"""The program ``tune``: search hyperparameters with Optuna; a study can be stopped and resumed."""

import argparse
import contextlib
import csv
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.zoo.config import building, environments
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, check_algorithm
from sb3_dreamer.zoo.config.arguments import (
    KeyValues,
    OneLineParser,
    check_output,
    count_or_default,
    drawn_seed,
    folder,
    natural,
    positive,
    to_command,
    to_words,
    write_value,
)
from sb3_dreamer.zoo.config.errors import RunError, UsageError, one_line, plural, quote
from sb3_dreamer.zoo.config.plan import DEFAULT_ENV, Plan, make_plan
from sb3_dreamer.zoo.config.search_space import check_study, load_space, suggest
from sb3_dreamer.zoo.programs import train
from sb3_dreamer.zoo.runs.provenance import describe_system

#: trials that ``--max-total-trials`` counts
COUNTED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer tune",
        description="Search hyperparameters. Run the same command again, or several times at once, to extend a study.",
    )
    what = parser.add_argument_group("what to search")
    what.add_argument("--algo", default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)}")
    what.add_argument("--env", default=DEFAULT_ENV, metavar="ENV", help="as for train")
    what.add_argument(
        "-n",
        "--n-timesteps",
        type=positive,
        metavar="N",
        help="agent steps of a trial (default: from the hyperparameter file)",
    )
    what.add_argument(
        "--space", default="", metavar="FILE", help="YAML file: name: [choices] or {low: 1, high: 9, log: true}"
    )
    what.add_argument(
        "-params", "--hyperparams", nargs="+", action=KeyValues, metavar="KEY:VALUE", help="values fixed for all trials"
    )
    what.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="NAME", help="packages that register environments"
    )
    search = parser.add_argument_group("search")
    search.add_argument("--n-trials", type=natural, default=20, metavar="N", help="trials to run; 0 only reports")
    search.add_argument("--max-total-trials", type=positive, metavar="N", help="stop when the study has N trials")
    search.add_argument("--sampler", choices=["tpe", "random"], default="tpe", help="how to choose values")
    search.add_argument(
        "--pruner", choices=["median", "halving", "none"], default="median", help="which trials stop early"
    )
    search.add_argument("--n-startup-trials", type=natural, default=5, metavar="N", help="random trials, never pruned")
    search.add_argument("--n-evaluations", type=positive, default=5, metavar="N", help="evaluations of a trial")
    search.add_argument("--eval-episodes", type=positive, default=5, metavar="N", help="episodes of an evaluation")
    search.add_argument("--n-jobs", type=positive, default=1, metavar="N", help="processes to run in parallel")
    search.add_argument(
        "--seed",
        type=drawn_seed,
        default=0,
        metavar="N",
        help="seed of the sampler; trial i trains with seed N + i (default: 0; -1: drawn)",
    )
    files = parser.add_argument_group("study")
    files.add_argument("--study-name", default="", metavar="NAME", help="name of the study (default: ALGO-ENV)")
    files.add_argument(
        "--storage",
        default="",
        metavar="URL",
        help="where the study is stored (default: sqlite:///LOG_FOLDER/ALGO/tune.db)",
    )
    files.add_argument("-f", "--log-folder", type=folder, default="logs", metavar="DIR", help="where to write results")
    files.add_argument(
        "--export", default="", metavar="FILE", help="write all trials with values, seeds and scores to this JSON file"
    )
    files.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1")
    files.add_argument(
        "--num-threads",
        type=count_or_default,
        default=-1,
        metavar="N",
        help="threads of PyTorch per process (default: PyTorch's choice)",
    )
    files.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one of --n-jobs
    return parser


def main(words: Sequence[str]) -> int:
    """Search.

    :param words: command-line arguments
    :return: exit status; 130 after Ctrl-C
    """
    parser = make_parser()
    args = parser.parse_args(words)
    check_algorithm(args.algo)
    environments.import_packages(args.gym_packages)
    check_output("--log-folder", args.log_folder, is_folder=True)
    if args.export:
        check_output("--export", args.export)
    space = load_space(args.algo, args.space)
    clash = sorted(set(args.hyperparams or {}) & set(space))
    if clash:
        space = {name: choices for name, choices in space.items() if name not in clash}
        if not space:
            raise UsageError(f"--hyperparams fixes all that is searched: {', '.join(clash)}; leave one of them out")
        if not args.worker:
            print(f"Fixed, not searched: {', '.join(clash)}")
    objective = Objective(space, args)
    plan = objective.check() if args.n_trials else None
    name_study(args)
    with storage_lock(args.storage):
        study = open_study(args)
        if plan is not None and not args.worker:
            check_study(study, space)
            check_settings(study, args, plan)
            limit_trials(study, args)
            given = to_words(parser, args, skip=("export", "log_folder", "storage", "study_name"))
            commands = dict.fromkeys([*study.user_attrs.get("commands", []), to_command("tune", given)])
            study.set_user_attr("commands", list(commands))
    workers = start_workers(parser, args)
    stopped = True
    try:
        stopped = run_trials(study, objective, args)
    finally:
        for worker in workers:
            if stopped:
                worker.terminate()
            worker.wait()
    if args.worker:
        return 0
    report(study, args, stopped)
    return 130 if stopped else 0


class SeededByTrial(optuna.samplers.BaseSampler):
    """Sample each trial with a seed of its own, from its number.

    So a study that is resumed, or that several processes work on, draws no trial twice.

    :param make: makes a sampler from a seed
    :param seed: of the study
    """

    def __init__(self, make: Callable[[int], Any], seed: int):
        self.make, self.seed, self.sampler = make, seed, make(seed)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Make the sampler of this trial."""
        self.sampler = self.make(int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]))
        self.sampler.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Tell the sampler of this trial."""
        self.sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Ask the sampler of this trial."""
        return dict(self.sampler.infer_relative_search_space(study, trial))

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        """Ask the sampler of this trial."""
        return dict(self.sampler.sample_relative(study, trial, search_space))

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Ask the sampler of this trial."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)


def name_study(args: Namespace) -> None:
    """Set the name of the study and where it is stored, if the flags do not; make the folder for that."""
    folder = Path(args.log_folder) / args.algo
    if not args.storage:
        folder.mkdir(parents=True, exist_ok=True)
        args.storage = f"sqlite:///{folder / 'tune.db'}"
    args.study_name = args.study_name or f"{args.algo}-{args.env}"


@contextlib.contextmanager
def storage_lock(storage: str) -> Iterator[None]:
    """Let one process at a time make a study in an SQLite file: Optuna makes its tables in several steps.

    :param storage: URL; other databases than SQLite are not locked
    :raises UsageError: if the URL is none, or the file cannot be locked
    """
    with contextlib.ExitStack() as held:
        try:
            url = make_url(storage)
            if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
                check_output("--storage", str(url.database))
                held.enter_context(FileLock(f"{url.database}.lock", timeout=60))
        except (ArgumentError, OSError, NotImplementedError) as error:
            raise UsageError(f"--storage {storage!r} cannot be used: {one_line(error)}") from error
        yield


def open_study(args: Namespace) -> Any:
    """Open the study, new or as it was left.

    :raises UsageError: if the storage cannot be used
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers: dict[str, Callable[[int], Any]] = {
        "tpe": lambda seed: optuna.samplers.TPESampler(n_startup_trials=args.n_startup_trials, seed=seed),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    }
    pruners: dict[str, Callable[[], Any]] = {
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
            sampler=SeededByTrial(samplers[args.sampler], args.seed),
            pruner=pruners[args.pruner](),
        )
    except Exception as error:
        raise UsageError(f"--storage {args.storage!r} cannot be used: {one_line(error)[:200]}") from error
    if not args.worker:
        print(f"Study {args.study_name!r} in {args.storage}: {plural(len(study.trials), 'trial')} so far", flush=True)
    return study


def check_settings(study: Any, args: Namespace, plan: Plan) -> None:
    """Refuse other settings than those of the study so far, with which its scores could not be compared.

    :raises UsageError: naming the first that differs
    """
    named = {"--algo": args.algo, "--env": plan.env, "--n-timesteps": plan.n_timesteps}
    settings = json.loads(json.dumps({**named, "--hyperparams": args.hyperparams or {}}))  # as the study stores them
    former = study.user_attrs.get("settings", {})
    for flag, value in settings.items():
        if former.get(flag, value) != value:
            raise UsageError(
                f"the study {args.study_name!r} has {flag} {quote(former[flag])}, not {quote(value)}, so the scores "
                "could not be compared: pass another --study-name"
            )
    study.set_user_attr("settings", settings)


def limit_trials(study: Any, args: Namespace) -> None:
    """Lower the number of trials to what ``--max-total-trials`` leaves."""
    if args.max_total_trials:
        left = max(0, args.max_total_trials - len(study.get_trials(states=COUNTED)))
        if not left:
            print(f"The study has {plural(args.max_total_trials, 'trial')} already: see --max-total-trials")
        args.n_trials = min(args.n_trials, left)


def start_workers(parser: OneLineParser, args: Namespace) -> list[subprocess.Popen[bytes]]:
    """Start further processes on the same study; all take the same number of trials, give or take one."""
    jobs = max(1, min(args.n_jobs, args.n_trials))
    share, rest = divmod(args.n_trials, jobs)
    shares = [share + (index < rest) for index in range(jobs)]
    args.n_trials = shares[0]
    workers = []
    for trials in shares[1:]:
        changed = Namespace(**{**vars(args), "n_jobs": 1, "n_trials": trials, "export": "", "worker": True})
        command = [sys.executable, "-m", "sb3_dreamer.zoo", "tune", *to_words(parser, changed)]
        workers.append(subprocess.Popen(command))
    return workers


def run_trials(study: Any, objective: Callable[[Any], float], args: Namespace) -> bool:
    """Run this process's trials; Ctrl-C discards the running one and ends.

    :return: whether it was stopped
    """
    callbacks = []
    if args.max_total_trials:
        callbacks.append(optuna.study.MaxTrialsCallback(args.max_total_trials, states=COUNTED))
    try:
        study.optimize(objective, n_trials=args.n_trials, callbacks=callbacks, catch=(TrialFailedError,))
    except KeyboardInterrupt:
        if not args.worker:
            print("\nStopped. Run the same command to extend the study.", flush=True)
        return True
    return False


class TrialFailedError(Exception):
    """The hyperparameters of a trial do not work; the study continues."""


class Objective:
    """Train with a trial's hyperparameters; its value is the mean return of the last evaluation.

    :param space: search space
    :param args: flags of ``tune``
    """

    def __init__(self, space: dict[str, Any], args: Namespace):
        self.space, self.args = space, args
        building.set_threads(args.num_threads)

    def check(self) -> Plan:
        """Make environments and a model with the values that are fixed, so that wrong flags fail before a trial.

        Each name that can be chosen (a size, a kind of target) is tried as well: numbers may need other numbers.

        :return: the plan with the fixed values
        :raises UsageError: for whatever no trial could do
        """
        fixed, seed = self.args.hyperparams or {}, self.args.seed
        lists = {name: choices for name, choices in self.space.items() if isinstance(choices, list)}
        named = [{name: choice} for name, choices in lists.items() for choice in choices if isinstance(choice, str)]
        plan = self.plan(fixed, seed)
        env = building.make_training_env(plan, None)
        try:
            for each in (plan, *(self.plan(fixed | one, seed) for one in named)):
                building.make_model(each, env, self.args.device)
        finally:
            env.close()
        return plan

    def plan(self, values: dict[str, Any], seed: int) -> Plan:
        """Make the plan of ``train`` with these hyperparameters."""
        args = train.make_parser().parse_args(["--algo", self.args.algo, "--env", self.args.env, "--seed", str(seed)])
        args.hyperparams, args.n_timesteps = values, self.args.n_timesteps
        plan = make_plan(args, {})[0]
        plan.n_eval_envs = self.args.eval_episodes
        return plan

    def __call__(self, trial: optuna.Trial) -> float:
        """Train and evaluate."""
        values = {**(self.args.hyperparams or {}), **suggest(trial, self.space)}
        print(
            f"Trial {trial.number}: {', '.join(f'{name} {_short(value)}' for name, value in values.items())}",
            flush=True,
        )
        trial.set_user_attr("hyperparams", values)
        plan = self.plan(values, self.args.seed + trial.number)
        trial.set_user_attr("seed", plan.seed)
        trial.set_user_attr("n_timesteps", plan.n_timesteps)
        env = eval_env = None
        try:
            env = building.make_training_env(plan, None)
            model = building.make_model(plan, env, self.args.device)
            eval_env = building.make_evaluation_env(plan, None, model)
            reports = Reports(trial, eval_env, plan, self.args)
            model.learn(plan.n_timesteps, callback=reports)
        except (UsageError, ValueError, RuntimeError) as error:
            print(f"Trial {trial.number} failed: {one_line(error)}", flush=True)
            raise TrialFailedError(one_line(error)) from error
        finally:
            for each in (env, eval_env):
                if each is not None:
                    each.close()
        if reports.pruned:
            print(f"Trial {trial.number}: pruned at {reports.last:.1f}", flush=True)
            raise optuna.TrialPruned
        print(f"Trial {trial.number}: {reports.last:.1f}", flush=True)
        return reports.last


class Reports:
    """Evaluate at even intervals, report to Optuna, and stop a trial that is not worth its time: a ``learn`` callback.

    :param trial: Optuna's
    :param env: evaluation environments
    :param plan: of the trial
    :param args: flags of ``tune``
    """

    def __init__(self, trial: optuna.Trial, env: Any, plan: Plan, args: Namespace):
        self.trial, self.env, self.plan, self.args = trial, env, plan, args
        self.frequency = max(1, plan.n_timesteps // args.n_evaluations)
        self.done, self.pruned, self.last = 0, False, float("nan")

    def __call__(self, local: dict[str, Any], _: dict[str, Any]) -> bool:
        """Evaluate if it is time.

        :param local: variables of ``learn``
        :return: whether the trial continues
        """
        model = local["self"]
        if model.num_timesteps < self.frequency * (self.done + 1):
            return True
        from stable_baselines3.common.evaluation import evaluate_policy

        self.done += 1
        returns, _lengths = evaluate_policy(
            model,
            self.env,
            n_eval_episodes=self.args.eval_episodes,
            deterministic=environments.deterministic_by_default(self.plan.env),
            return_episode_rewards=True,
            warn=False,
        )
        self.last = float(np.mean(returns))
        self.trial.report(self.last, model.num_timesteps)
        # Not in the first third, where agents are hardly trained and returns are noise; at the end nothing is saved.
        evaluations = self.args.n_evaluations
        self.pruned = evaluations // 3 < self.done < evaluations and self.trial.should_prune()
        return not self.pruned


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def report(study: Any, args: Namespace, stopped: bool) -> None:
    """Print the best trial and the command that trains with its values; write all trials as CSV.

    :param stopped: by Ctrl-C
    :raises RunError: if no trial was completed, unless that is why
    """
    states = optuna.trial.TrialState
    counts = {state.name.lower(): len(study.get_trials(states=(state,))) for state in states}
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no trial")
    if not counts["complete"]:
        if stopped:
            return
        if not args.n_trials:
            raise RunError(f"the study {args.study_name!r} has no completed trial yet: pass --n-trials 10")
        raise RunError("no trial completed: see the reasons above")
    if args.export:
        export(study, Path(args.export), args)
    path = Path(args.log_folder) / args.algo / f"{args.study_name.replace('/', '-').replace(':', '-')}-trials.csv"
    write_trials(study, path)
    best = study.best_trial
    values = best.user_attrs.get("hyperparams", {**(args.hyperparams or {}), **best.params})
    params = [f"{name}:{write_value(value)}" for name, value in values.items()]
    number = best.user_attrs.get("n_timesteps", args.n_timesteps)
    steps = ["-n", str(number)] if number else []
    steps += ["--gym-packages", *args.gym_packages] if args.gym_packages else []
    print(f"Best of {counts['complete']}: {best.value:.1f} (trial {best.number}). All trials: {path}")
    print(f"  {to_command('train', ['--algo', args.algo, '--env', args.env, *steps, '--hyperparams', *params])}")


def write_trials(study: Any, path: Path) -> None:
    """Write state, value, duration and hyperparameters of every trial."""
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
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
