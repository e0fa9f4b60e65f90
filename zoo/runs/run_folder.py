"""The folder of a run: ``<logs>/<algo>/<env>_<id>/``, laid out as rl_zoo3 does.

::

    CartPole-v1_1/
        CartPole-v1.zip               the model at the end
        best_model.zip                the model of the best evaluation
        rl_model_20000_steps.zip      the model so far (--save-freq)
        checkpoints/                  all that the run needs to resume exactly: train -i RUN_FOLDER
        replay_buffer.safetensors     --save-replay-buffer, or after Ctrl-C without checkpoints
        evaluations.npz               episodes of all evaluations, SB3's format
        0.monitor.csv                 every training episode, SB3's format and more columns
        progress.csv                  the training log
        tensorboard/                  the same for TensorBoard
        CartPole-v1/config.yml        all settings: train --config repeats the run
        CartPole-v1/args.yml, command.txt, system.yml
        CartPole-v1/tracking.yml      --track: the tracked run that belongs to it
        scores.json                   of an agent that is packed to share
        .lock                         locked by the process that trains, so that no other one writes here
"""

import contextlib
import csv
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.errors import UsageError, quote
from sb3_dreamer.zoo.config.hyperparams import find_entry, slug
from sb3_dreamer.zoo.config.values import UNSUPPORTED
from sb3_dreamer.zoo.config.yaml_files import read_yaml, write_yaml

REPLAY = "replay_buffer.safetensors"
CHECKPOINTS = "checkpoints"
CHECKPOINT = r"checkpoint_\d{6,}_step_\d+"  # folders in it
STEPS = re.compile(r"_step_(\d+)$|_(\d+)_steps\.zip$")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run.

    :param path: the folder
    :param name: the environment's part of its name
    """

    path: Path
    name: str

    @property
    def model(self) -> Path:
        """The model at the end of training."""
        return self.path / f"{self.name}.zip"

    @property
    def best_model(self) -> Path:
        """The model of the best evaluation."""
        return self.path / "best_model.zip"

    @property
    def settings(self) -> Path:
        """The folder of config, arguments and command."""
        return self.path / self.name

    @property
    def config(self) -> Path:
        """All settings of the run."""
        return self.settings / "config.yml"

    @property
    def command(self) -> Path:
        """The command that started it."""
        return self.settings / "command.txt"

    @property
    def scores(self) -> Path:
        """Scores of its agent, in a folder that was packed to share (:mod:`sb3_dreamer.zoo.runs.sharing`)."""
        return self.path / "scores.json"

    @property
    def replay(self) -> Path:
        """The replay buffer."""
        return self.path / REPLAY

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed exactly."""
        return any((self.path / CHECKPOINTS).glob("checkpoint_*"))

    @property
    def steps_done(self) -> int:
        """Count the agent steps that its checkpoints, model and episode log tell of; damaged files tell of none."""
        names = [path.name for path in (*self.path.glob("rl_model_*.zip"), *self.path.glob(f"{CHECKPOINTS}/*"))]
        steps = [int(match[1] or match[2]) for match in map(STEPS.search, names) if match]
        steps.append(self.model_steps)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
            *_, last = csv.DictReader((self.path / "0.monitor.csv").read_text(encoding="utf-8").splitlines()[1:])
            steps.append(int(last["timesteps"]) if last["env"] else 0)
        return max(steps, default=0)

    @property
    def model_steps(self) -> int:
        """Count the agent steps of the model at the end; a damaged file tells of none."""
        with contextlib.suppress(Exception), zipfile.ZipFile(self.model) as file:  # zipfile raises a dozen kinds
            return int(json.loads(file.read("data.json"))["num_timesteps"])
        return 0

    def write_settings(
        self, config: dict[str, Any], args: dict[str, Any], command: str, system: dict[str, Any]
    ) -> None:
        """Write what the run was started with."""
        self.write_config(config)
        write_yaml(self.settings / "args.yml", args)
        write_yaml(self.settings / "system.yml", system)
        self.command.write_text(command + "\n", encoding="utf-8")

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the settings that ``train --config`` repeats."""
        self.settings.mkdir(parents=True, exist_ok=True)
        write_yaml(self.config, config)


def create(root: str | Path, algo: str, name: str, uuid: str = "") -> RunFolder:
    """Make the folder with the next free number; safe when several processes start at once.

    :param root: the log folder
    :param algo: algorithm name
    :param name: the environment's part of the folder's name
    :param uuid: added to the name
    """
    parent = Path(root) / algo
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = max(run_numbers(parent, name), default=0)
        while True:
            number += 1
            path = parent / (f"{name}_{number}_{uuid}" if uuid else f"{name}_{number}")
            if number in run_numbers(parent, name):
                continue
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunFolder(path, name)
    except OSError as error:
        raise UsageError(f"cannot make a run folder in {parent}: {error}") from error


def run_numbers(parent: Path, name: str) -> list[int]:
    """List the numbers of the runs of an environment."""
    pattern = re.compile(re.escape(name) + r"_(\d+)(_.*)?")
    matches = (pattern.fullmatch(path.name) for path in parent.glob(f"{name}_*") if path.is_dir())
    return [int(match[1]) for match in matches if match]


def all_runs(root: str | Path, algo: str) -> list[RunFolder]:
    """List the runs of an algorithm, by name; then the latest run of each job of the program ``suite``."""
    configs = sorted((Path(root) / algo).glob("*/*/config.yml"))
    return [RunFolder(config.parent.parent, config.parent.name) for config in configs] + runs_of_jobs(root, algo)


def runs_of_jobs(root: str | Path, algo: str) -> list[RunFolder]:
    """List the latest run of each job of the program ``suite``, whose log folders lie in ``root``."""
    jobs = sorted((path for path in Path(root).glob("*-seed*") if path.is_dir()), key=_with_seed)
    names = [(job, job.name.rpartition("-seed")[0]) for job in jobs]
    return [find(job, algo, name) for job, name in names if run_numbers(job / algo, name)]


def _with_seed(job: Path) -> tuple[str, int]:
    name, _, number = job.name.rpartition("-seed")
    return name, int(number) if number.isdecimal() else 0


def names_for(root: str | Path, algo: str, env: str) -> list[str]:
    """List the names of runs that ``--env`` stands for, as ``train`` takes it: with its suite or without, best first.

    :param env: ``Pong``, ``atari:pong``, ``walker_walk`` (of every suite), ``CartPole-v1``, or the name of a run
    """
    present = {run.name for run in all_runs(root, algo)}
    literal = slug(env)
    wanted = [literal]
    if present and literal not in present:
        with contextlib.suppress(UsageError):  # without hyperparameters, it was trained from a file of the user's own
            wanted.append(find_entry(algo, env).run_name)
    plain = re.compile(r"[\W_]")
    task = plain.sub("", env.lower()) if ":" not in env else None
    for name in sorted(present):
        rest = name.partition("-")[2]  # without its suite or namespace
        if not re.fullmatch(r"v\d+", rest) and (rest == literal or plain.sub("", rest.lower()) == task):
            wanted.append(name)
    return [name for name in dict.fromkeys(wanted) if name in present or run_numbers(Path(root) / algo, name)]


def find_all(root: str | Path, algo: str, name: str) -> list[RunFolder]:
    """List the runs of an environment, by number; or those of the jobs of the program ``suite``, by seed."""
    numbers = sorted(run_numbers(Path(root) / algo, name))
    own = [find(root, algo, name, number) for number in numbers]
    return own or [run for run in runs_of_jobs(root, algo) if run.name == name]


def find(root: str | Path, algo: str, name: str, exp_id: int = 0) -> RunFolder:
    """Find an existing run.

    :param name: the environment's part of the folder's name
    :param exp_id: number of the run; 0: the latest, or the first job of the program ``suite``
    :raises UsageError: if there is none, with what there is
    """
    parent = Path(root) / algo
    numbers = run_numbers(parent, name)
    if not numbers:
        jobs = [run for run in runs_of_jobs(root, algo) if run.name == name]
        if jobs and exp_id:
            folders = ", ".join(f"-f {run.path.parents[1]}" for run in jobs)
            raise UsageError(f"--exp-id {exp_id}: the runs of {name} are in folders of their own: pass {folders}")
        if jobs:
            return jobs[0]
        raise UsageError(f"there is no run of {name!r} in {parent}")
    if exp_id and exp_id not in numbers:
        raise UsageError(f"--exp-id {exp_id}: {parent} has runs {', '.join(map(str, sorted(numbers)))} of {name}")
    number = exp_id or max(numbers)
    paths = [p for p in parent.glob(f"{name}_{number}*") if re.fullmatch(rf"_{number}(_.*)?", p.name[len(name) :])]
    return RunFolder(paths[0], name)


def of_model(path: Path) -> RunFolder | None:
    """Return the run folder that a model file lies in, itself or in a checkpoint; None if it lies in none."""
    inside = re.fullmatch(CHECKPOINT, path.resolve().parent.name)
    folder = path.resolve().parents[2] if inside else path.parent
    for settings in sorted(folder.glob("*/config.yml")):
        return RunFolder(folder, settings.parent.name)
    return None


def read_args(run: RunFolder) -> dict[str, Any]:
    """Read the flags that a run was started with; empty for an agent that was packed to share."""
    path = run.settings / "args.yml"
    return read_yaml(path) if path.exists() else {}


def read_config(run: RunFolder | None) -> dict[str, Any]:
    """Read the settings that a run was started with, of rl_zoo3's runs too; empty without a run folder.

    :raises UsageError: if the file is damaged
    """
    values = read_yaml(run.config) if run is not None and run.config.exists() else {}
    if run is None or not values or "hyperparams" in values:
        _check_types(run, values)
        return values
    args = read_args(run)
    zoo: dict[str, Any] = {
        name: values.pop(name) for name in ("n_timesteps", "n_envs", "policy", "env_wrapper") if name in values
    }
    steps = zoo.get("n_timesteps") or args.get("n_timesteps") or 1
    try:
        zoo["n_timesteps"] = int(float(steps))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{run.config}: n_timesteps={quote(steps)} is not a number") from None
    hyperparams = {name: value for name, value in values.items() if name not in UNSUPPORTED}
    named = {"algo": args.get("algo"), "env": args.get("env"), "seed": args.get("seed", 0)}
    kwargs = {name: args.get(name) or {} for name in ("env_kwargs", "eval_env_kwargs")}
    config = {**named, **kwargs, **zoo, "run_name": run.name, "source": str(run.config), "hyperparams": hyperparams}
    _check_types(run, config)
    return config


def _check_types(run: RunFolder | None, config: dict[str, Any]) -> None:
    """Refuse settings that other programs could not use.

    :raises UsageError: naming file and value
    """
    types = dict.fromkeys(("hyperparams", "env_kwargs", "eval_env_kwargs"), (dict, "a mapping (name: value)"))
    for name, (kind, noun) in (types | {"n_timesteps": ((int, float), "a number")}).items():
        if run is not None and config.get(name) and not isinstance(config[name], kind):
            raise UsageError(f"{run.config}: {name}={quote(config[name])} is not {noun}")
