"""The folder of a run, and ``train -i FOLDER``: going on from a checkpoint as if the run had never stopped."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any
from uuid import uuid4

from sb3_dreamer.zoo.config import building
from sb3_dreamer.zoo.runs import provenance
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.programs.errors import UsageError, near
from sb3_dreamer.zoo.config.plan import Plan
from sb3_dreamer.zoo.runs.run_folder import RunFolder
from sb3_dreamer.zoo.programs.training_arguments import make_parser
from sb3_dreamer.zoo.config.yaml_files import read_yaml

MODEL = "model.zip"  # of a checkpoint
#: flags that config.yml does not hold, and that the run would not be the same without
RECALLED = ("log_interval", "save_replay_buffer", "vec_env", "num_threads", "tensorboard_log", "gym_packages")


def find_checkpoint(args: Namespace) -> Path | None:
    """The checkpoint that ``-i`` names, if it names a folder; puts the run's own flags where none were given.

    :param args: flags of ``train``; ``trained_agent`` becomes the checkpoint's model file
    :raises UsageError: if the folder has no checkpoint, or does not belong to a run
    """
    given = Path(args.trained_agent)
    if not args.trained_agent or not given.is_dir():
        return None
    path = newest(given)
    run = run_folder.of_model(path / MODEL)
    if run is None:
        raise UsageError(f"--trained-agent: {path} lies in no run folder with a config.yml: use load_checkpoint()")
    args.trained_agent = str(path / MODEL)
    stored = read_yaml(run.settings / "args.yml") if (run.settings / "args.yml").exists() else {}
    defaults = vars(make_parser().parse_args([]))
    for name in RECALLED:
        if getattr(args, name) == defaults[name] and stored.get(name) is not None:
            setattr(args, name, stored[name])
    return path


def stored_seed(checkpoint: Path) -> int:
    """The seed of the run that a checkpoint belongs to."""
    return int(run_folder.read_config(run_folder.of_model(checkpoint / MODEL))["seed"])


def newest(folder: Path) -> Path:
    """The checkpoint that a folder is, or the newest one of a run.

    :raises UsageError: if there is none, with what there is
    """
    if re.fullmatch(run_folder.CHECKPOINT, folder.name):
        return folder
    for parent in (folder / run_folder.CHECKPOINTS, folder):
        found = [path for path in parent.glob("checkpoint_*") if re.fullmatch(run_folder.CHECKPOINT, path.name)]
        if found:
            return max(found, key=lambda path: int(path.name.split("_")[1]))
    files = sorted(path.name for path in folder.glob("*.zip"))
    has = f"; it has {', '.join(files[:5])}, give one of these" if files else near(folder.name, _siblings(folder))
    raise UsageError(f"--trained-agent: {folder} has no checkpoint, which train --save-freq N writes{has}")


def _siblings(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.glob("*") if path.is_dir() and path != folder]


def load(path: Path, plan: Plan, env: Any, device: str, changes: dict[str, Any]) -> Any:
    """The model of a checkpoint, whose ``learn`` goes on exactly.

    :param changes: hyperparameters that were changed on the command line
    :raises UsageError: if it is damaged or does not fit
    """
    cls = algorithm_class(plan.algo)
    values = building.to_constructor_or_attribute(changes, cls)
    try:
        return cls.load_checkpoint(path, env=env, device=device, **values)
    except Exception as error:
        raise building.refusal(error) from error


def make_folder(args: Namespace, plan: Plan, checkpoint: Path | None, command: str) -> RunFolder:
    """The run folder: a new one with what the run was started with, or that of the checkpoint."""
    if checkpoint is not None:
        return _reopen(checkpoint, plan, command)
    uuid = str(uuid4()) if args.uuid else ""
    run = run_folder.create(args.log_folder, plan.algo, plan.run_name, uuid)
    run.write_settings(plan.to_config(), vars(args) | {"seed": plan.seed}, command, provenance.describe_system())
    return run


def _reopen(checkpoint: Path, plan: Plan, command: str) -> RunFolder:
    """Write to a run's settings that it goes on: its new total of steps, and the command."""
    run = run_folder.of_model(checkpoint / MODEL)
    assert run is not None
    former = run_folder.read_config(run)
    with open(run.settings / "command.txt", "a", encoding="utf-8") as file:
        file.write(command + "\n")
    run.write_config(plan.to_config() | {"trained_agent": former.get("trained_agent", "")})
    return run
