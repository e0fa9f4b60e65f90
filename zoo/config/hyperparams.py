"""Read hyperparameter files: ``hyperparams/<algo>/<suite>.yml``, an entry per task, ``default`` for the other tasks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.wrappers.benchmarks.suites import SUITES
from sb3_dreamer.zoo.config.algorithms import SUITE_ORDER, algorithm_class, check_algorithm
from sb3_dreamer.zoo.config.errors import UsageError, quote
from sb3_dreamer.zoo.config.values import check_value, check_values
from sb3_dreamer.zoo.config.yaml_files import read_yaml

FOLDER = Path(__file__).parents[1] / "hyperparams"
STOP = "stop_at_return"  #: by task: training ends when two evaluations in a row reach it
RUN_DEFAULTS = ("eval_freq", "eval_episodes", "final_eval_episodes", "n_eval_envs", "save_freq", STOP)
LEAST = {"eval_episodes": 1, "final_eval_episodes": 0, "n_eval_envs": 1}  #: of the flags of these names
CLASSIC = "classic"  # the file for gymnasium's own tasks
PLAIN = "other"  # the file for environments that no other file names


@dataclass(frozen=True)
class Entry:
    """Settings of one task in a file.

    :param algo: algorithm name
    :param task: name as it was asked for, without the suite; names the run folder
    :param suite: stem of the file
    :param env: name for ``make_env``
    :param values: hyperparameters and zoo keys, checked
    :param run_defaults: what the programs use where no flag is passed
    :param note: which suite was chosen, if the name left it open
    :param source: file that the values are from
    """

    algo: str
    task: str
    suite: str
    env: str
    values: dict[str, Any]
    run_defaults: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    source: str = ""

    @property
    def run_name(self) -> str:
        """Name of the run's folder and model file: the environment without ``/`` and ``:``."""
        return slug(self.env if self.suite in SUITES else self.task)


def slug(env: str) -> str:
    """Write an environment's name as the name of a folder."""
    return re.sub(r"[^\w.+-]", "-", env)


def suite_files(algo: str) -> dict[str, Path]:
    """Find the hyperparameter files of an algorithm, by suite."""
    return {path.stem: path for path in sorted((FOLDER / check_algorithm(algo)).glob("*.yml"))}


def suite_tasks(suite: str, algorithms: Sequence[str]) -> list[str]:
    """List the tasks of a suite as ``--env`` takes them; of ``classic``, those that an algorithm has values for.

    :raises UsageError: if there is no such suite
    """
    if suite == CLASSIC:
        files = [(suite_files(algo).get(CLASSIC), algo) for algo in algorithms]
        return sorted({task for path, algo in files if path for task in load_file(path, algo)[0]} - {"default"})
    if suite not in SUITES:
        raise UsageError(f"unknown suite {suite!r}{near(suite, [CLASSIC, *SUITES])}: use classic, {', '.join(SUITES)}")
    return [f"{suite}:{task}" for task in SUITES[suite].tasks]


def load_file(path: Path, algo: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Read and check the entries of a file, and its run defaults.

    :raises UsageError: for anything that is not an entry, naming file, task and value
    """
    content = read_yaml(path)
    run_defaults = content.pop("run_defaults", {}) or {}
    _check_run_defaults(run_defaults, f"{path}, run_defaults")
    entries = {}
    for task, values in content.items():
        if not isinstance(values, dict):
            raise UsageError(f"{path}: entry {task!r} must be a mapping, not {quote(values)}")
        entries[str(task)] = check_values(values, algorithm_class(algo), f"{path.name}, {task}")
    return entries, run_defaults


def _check_run_defaults(run_defaults: Any, where: str) -> None:
    """Refuse what the flags of the same names would refuse."""
    if not isinstance(run_defaults, dict):
        raise UsageError(f"{where}: must be a mapping of {', '.join(RUN_DEFAULTS)}, not {quote(run_defaults)}")
    for name, value in run_defaults.items():
        if name not in RUN_DEFAULTS:
            raise UsageError(f"{where}: unknown run default {name}={quote(value)}: use {', '.join(RUN_DEFAULTS)}")
        if name == STOP:
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {STOP}={quote(value)} must be a mapping of tasks to returns")
            for task, number in value.items():
                check_value(str(task), number, float, f"{where}, {STOP}")
        elif name in LEAST and check_value(name, value, int, where) < LEAST[name]:
            raise UsageError(f"{where}: {name}={value} must be at least {LEAST[name]}")
        elif check_value(name, value, int, where) < 1 and name in ("eval_freq", "save_freq") and value != -1:
            raise UsageError(f"{where}: {name}={value} must be at least 1, or -1 for none")


def _for_task(run_defaults: dict[str, Any], task: str) -> dict[str, Any]:
    """Select the run defaults of one task: returns to stop at are listed by task."""
    stops = run_defaults.get(STOP) or {}
    return run_defaults | {STOP: stops[task]} if task in stops else {k: v for k, v in run_defaults.items() if k != STOP}


def find_entry(algo: str, name: str, conf_file: str | None = None) -> Entry:
    """Find the entry for an environment name.

    A name with a suite (``atari:pong``) is that suite's; a task of a file is its; a bare task name (``Pong``,
    ``walker_walk``) goes to the first suite of the algorithm that has it; anything else is a gymnasium id.

    :param algo: algorithm name
    :param name: environment as the user wrote it
    :param conf_file: a file to use instead of the library's
    :raises UsageError: for an unknown algorithm, an unreadable file, or a file without a fitting entry
    """
    check_algorithm(algo)
    if not name:
        raise UsageError("the environment's name is empty: for example --env CartPole-v1")
    if conf_file is not None:
        return _from_conf_file(algo, name, Path(conf_file))
    files = suite_files(algo)
    suite, task, note = _place(algo, name, files)
    entries, run_defaults = load_file(files[suite], algo)
    values = entries.get(task, entries.get("default"))
    if values is None:
        raise UsageError(f"{files[suite]} has neither an entry {task!r} nor a default: use --conf-file")
    env = values.get("env") or (f"{suite}:{task}" if suite in SUITES else task)
    return Entry(algo, task, suite, env, values, _for_task(run_defaults, task), note, f"{algo}/{suite}.yml")


def _place(algo: str, name: str, files: dict[str, Path]) -> tuple[str, str, str]:
    """Resolve a name to suite, task and a note to print."""
    import gymnasium as gym

    suite, colon, task = name.partition(":")
    if colon and suite in SUITES:
        if suite not in files:
            raise UsageError(f"{algo} has no hyperparameters for suite {suite!r}: it has {', '.join(files)}")
        return suite, _spelling(suite, task) or task, ""
    for other, path in files.items():  # Entries under their own names, such as PixelCatch.
        if other not in SUITES and other != PLAIN and name != "default" and name in read_yaml(path):
            return other, name, ""
    if name not in gym.registry and CLASSIC in files:  # CartPole is CartPole-v1 before it is bsuite's
        versions = [task for task in read_yaml(files[CLASSIC]) if task.rpartition("-v")[0].lower() == name.lower()]
        if versions:
            return CLASSIC, versions[-1], f"{name} resolved to {versions[-1]}"
    homes = [] if name in gym.registry else [s for s in SUITE_ORDER[algo] if s in files and _spelling(s, name)]
    if homes:
        full = [f"{home}:{_spelling(home, name)}" for home in homes]
        also = f" (also: {', '.join(full[1:])})" if full[1:] else ""
        return homes[0], str(_spelling(homes[0], name)), f"{name} resolved to {full[0]}{also}"
    untuned = f"no tuned values for {name}: the algorithm's defaults are used"
    return PLAIN, name, untuned if name in gym.registry else ""


def _spelling(suite: str, name: str) -> str | None:
    """Return the suite's own spelling of a task (``MsPacman`` is ``ms_pacman``), None if it has no such task."""
    known = {task.replace("_", "").lower(): task for task in SUITES[suite].tasks}
    return known.get(name.replace("_", "").lower())


def _from_conf_file(algo: str, name: str, path: Path) -> Entry:
    if path.suffix not in (".yml", ".yaml"):
        raise UsageError(f"--conf-file {str(path)!r}: only YAML files are read (.yml); Python files are never run")
    entries, run_defaults = load_file(path, algo)
    values = entries.get(name, entries.get("default"))
    if values is None:
        raise UsageError(f"{path} has no entry {name!r} and no default: it has {', '.join(entries) or 'nothing'}")
    return Entry(
        algo, name, "conf-file", values.get("env") or name, values, _for_task(run_defaults, name), "", str(path)
    )
