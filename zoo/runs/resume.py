"""Resume training: ``train -i`` with a run folder (exactly, in the same folder) or with a model file (a new run)."""

import re
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config import building
from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.config.plan import FIXED, Plan, is_env_of
from sb3_dreamer.zoo.config.yaml_files import read_yaml
from sb3_dreamer.zoo.runs import provenance, run_folder
from sb3_dreamer.zoo.runs.run_folder import RunFolder

MODEL = "model.zip"  # of a checkpoint
OF_THE_REPLAY = ("n_envs", "buffer_size", "replay_buffer_class")  # what the replay of a checkpoint was made with
#: flags that config.yml does not hold, and that the run would not be the same without
RECALLED = (
    *("log_interval", "save_replay_buffer", "vec_env", "num_threads", "tensorboard_log", "gym_packages", "video_freq"),
    *("track", "wandb_project_name", "wandb_entity", "wandb_group", "wandb_tags"),
)


def find_checkpoint(args: Namespace, defaults: dict[str, Any]) -> Path | None:
    """Find the checkpoint to resume from; None unless ``-i`` names a folder.

    :param args: flags of ``train``; ``trained_agent`` becomes the checkpoint's model file, and flags that were not
        passed become the run's own
    :param defaults: values of the flags that were not passed
    :raises UsageError: if the folder has no checkpoint, or does not belong to a run
    """
    given = Path(args.trained_agent)
    if not args.trained_agent or not given.is_dir():
        return None
    path = newest(given)
    if len(path.parts) < 5:  # LOGS/ALGO/RUN/checkpoints/CHECKPOINT: the folders above it are read off it
        path = path.resolve()
    run = run_folder.of_model(path / MODEL)
    if run is None:
        raise UsageError(f"--trained-agent: {path} is not in a run folder with a config.yml: use load_checkpoint()")
    for name in OF_THE_REPLAY:
        if name in (args.hyperparams or {}):
            raise UsageError(
                f"--hyperparams {name}: a run resumes with the {name} of its replay; -i {run.model} starts a new run"
            )
    own_folder = run.path.resolve().parents[1]
    if args.log_folder != defaults["log_folder"] and Path(args.log_folder).resolve() != own_folder:
        raise UsageError(
            f"--log-folder {args.log_folder}: a run resumes in its own folder, {run.path}; leave it out, or pass "
            "-i with a model file to start a new run"
        )
    args.trained_agent = str(path / MODEL)
    stored = run_folder.read_args(run)
    for name in RECALLED:
        if getattr(args, name) == defaults[name] and stored.get(name) is not None:
            setattr(args, name, stored[name])
    args.track = {True: "wandb", False: None}.get(args.track, args.track)  # older versions stored a bool
    return path


def newest(folder: Path) -> Path:
    """Return the checkpoint that a folder is, or the newest one of a run.

    :raises UsageError: if there is none, with what there is
    """
    if re.fullmatch(run_folder.CHECKPOINT, folder.name):
        return folder
    for parent in (folder / run_folder.CHECKPOINTS, folder):
        found = [path for path in parent.glob("checkpoint_*") if re.fullmatch(run_folder.CHECKPOINT, path.name)]
        if found:
            return max(found, key=lambda path: int(path.name.split("_")[1]))
    files = sorted(map(str, folder.glob("*.zip")))
    siblings = [path.name for path in folder.parent.glob("*") if path.is_dir() and path != folder]
    runs = sorted({str(path.parents[1]) for path in folder.glob(f"**/{run_folder.CHECKPOINTS}/checkpoint_*")})
    has = (
        f"; it has {', '.join((files or runs)[:5])}: pass one of these"
        if files or runs
        else near(folder.name, siblings)
    )
    raise UsageError(f"--trained-agent: {folder} has no checkpoint to resume from{has}")


def stored_config(args: Namespace) -> dict[str, Any]:
    """Read the settings of the run that ``-i`` or ``--config`` names; empty for neither, or a model without a run.

    :param args: flags of ``train``; ``trained_agent`` gets the suffix that it lacks, ``gym_packages`` those of the run
    :raises UsageError: if there is no such file
    """
    if not args.trained_agent:
        return given_config(args) if args.config else {}
    path = Path(args.trained_agent)
    if path.suffix == "" and not path.exists():
        path = path.with_suffix(".zip")
    if not path.is_file():
        zips = [str(other) for other in path.parent.glob("*.zip")]
        raise UsageError(f"--trained-agent: there is no file {path}{near(str(path), zips)}")
    args.trained_agent = str(path)
    try:
        run = run_folder.of_model(path)
        if run is not None and not args.gym_packages:
            args.gym_packages = run_folder.read_args(run).get("gym_packages") or []
        return run_folder.read_config(run)
    except UsageError as error:
        warnings.warn(f"the settings beside {path} are not used: {error}", stacklevel=2)
        return {}


def check_env(args: Namespace, config: dict[str, Any]) -> None:
    """Refuse another environment than that of the run that is resumed from a checkpoint.

    :raises UsageError: naming both
    """
    own = config.get("env")
    if own is not None and not is_env_of(config, args, str(config.get("algo"))):
        raise UsageError(f"--env {args.env}: a run resumes in its own environment, {own}; leave --env out")


def with_env(error: UsageError, path: Path, env: str | None) -> UsageError:
    """Say of a model whose spaces are not those of ``--env`` that the flag can be left out."""
    if env is None or "space" not in str(error):
        return error
    return UsageError(f"--env {env}: its spaces are not those of {path}; leave --env out ({error})")


def given_config(args: Namespace) -> dict[str, Any]:
    """Read the file that ``--config`` names.

    :raises UsageError: for a folder, an empty file, or beside ``--conf-file``
    """
    path = Path(args.config)
    if args.conf_file:
        raise UsageError("--config and --conf-file: pass one of them")
    if path.is_dir():
        inside = next((str(file) for file in sorted(path.glob("**/config.yml"))), "")
        raise UsageError(f"--config {path} is a folder: pass the config.yml of a run{inside and f', {inside}'}")
    content = read_yaml(path)
    if not content:
        raise UsageError(f"--config {path} is empty: pass the config.yml of a run")
    return content


def seed_of(config: dict[str, Any], args: Namespace) -> int:
    """Return the seed of the run that is resumed from a checkpoint.

    :param config: of the run
    :raises UsageError: if its settings cannot be read, or another seed is asked for
    """
    if "seed" not in config:
        raise UsageError(
            f"the config.yml of the run of {args.trained_agent} is empty or damaged: restore it, or start a new run "
            f"with --algo, --env and -i {args.trained_agent}"
        )
    if args.seed not in (-1, config["seed"]):
        raise UsageError(f"--seed {args.seed}: a run resumes with its own seed, {config['seed']}; leave --seed out")
    return int(config["seed"])


def load_checkpoint(path: Path, plan: Plan, env: Any, device: str) -> Any:
    """Load the model of a checkpoint, whose ``learn`` resumes exactly.

    The plan's hyperparameters count: they may have been changed since, now or in a session that wrote no checkpoint.

    :raises UsageError: if it is damaged or does not fit
    """
    cls, fixed = algorithm_class(plan.algo), (*FIXED, *OF_THE_REPLAY)
    changes = {name: value for name, value in plan.hyperparams.items() if name not in fixed}
    values = building.to_constructor_or_attribute(changes, cls) | {"verbose": 0}
    try:
        return cls.load_checkpoint(path, env=env, device=device, **values)
    except Exception as error:
        raise building.refusal(error) from error


def load_replay(model: Any, path: Path) -> str:
    """Load the replay buffer that was saved with a model, if it was; else the agent fills it before the next update.

    :param path: the model's file
    :return: a line that says what was found
    :raises UsageError: if it is damaged or does not fit
    """
    replay = replay_of(path)
    if replay is not None and replay.is_file():
        try:
            model.load_replay_buffer(replay)
        except Exception as error:
            raise building.refusal(error) from error
        return f"{model.replay_buffer.size():,} steps from {replay}"
    return f"none beside {path.name}: starts empty, with {model.learning_starts:,} steps before the next update"


def replay_of(path: Path) -> Path | None:
    """Return the replay file that was written together with a model file; None for a best model, which has none."""
    if path.stem == "best_model":
        return None
    checkpoint = re.fullmatch(r"(.+)_(\d+_steps)", path.stem)
    name = f"{checkpoint[1]}_replay_buffer_{checkpoint[2]}.safetensors" if checkpoint else run_folder.REPLAY
    of_rl_zoo3 = path.with_name(name).with_suffix(".pkl")  # our format under the name that rl_zoo3 gives it
    return of_rl_zoo3 if of_rl_zoo3.is_file() and not path.with_name(name).is_file() else path.with_name(name)


def make_folder(args: Namespace, plan: Plan, checkpoint: Path | None, command: str, uuid: str = "") -> RunFolder:
    """Make the folder of a new run, or open that of the checkpoint, and write what the run was started with.

    :raises UsageError: if it cannot be written
    """
    run = None if checkpoint is None else run_folder.of_model(checkpoint / MODEL)
    run = run or run_folder.create(args.log_folder, plan.algo, plan.run_name, uuid)
    try:
        if checkpoint is None:
            run.write_settings(
                plan.to_config(), vars(args) | {"seed": plan.seed}, command, provenance.describe_system()
            )
        else:
            former = run_folder.read_config(run)
            with open(run.command, "a", encoding="utf-8") as file:
                file.write(command + "\n")
            run.write_config(plan.to_config() | {"trained_agent": former.get("trained_agent", "")})
    except OSError as error:  # of a full disk, which names no file
        raise UsageError(f"cannot write the settings of the run to {run.settings}: {one_line(error)}") from error
    return run
