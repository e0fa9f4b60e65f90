"""Track runs with Weights & Biases or MLflow: settings, metrics, videos and files of the run folder."""

import functools
import importlib
import os
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.config.yaml_files import read_yaml, write_yaml
from sb3_dreamer.zoo.runs.run_folder import RunFolder

TOOLS = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
PROJECT = "sb3-dreamer"
FAILURES = 3  #: in a row, after which a tool is no longer called
LONGEST_PARAM = 500  #: characters; older MLflow servers refuse more
RESULTS = ("evaluations.npz", "final_evaluation.csv", "0.monitor.csv", "error.txt")
HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  #: its 7 times 120 s stop training


class TrackedRun(Protocol):
    """A run at a tracking tool. Once it is started, its methods warn where the tool fails; they never raise.

    :param formats: outputs for the logger, besides TensorBoard's
    :param stored: what finds the run again, as plain values
    """

    formats: tuple[Any, ...]
    stored: dict[str, str]

    def save(self, path: Path, base: Path) -> None:
        """Upload a file under its path in the folder ``base``."""

    def finish(self, failed: bool) -> None:
        """End the run."""


def import_package(tool: str) -> Any:
    """Import the package of a tool.

    :raises UsageError: if it is not installed
    """
    try:
        package = importlib.import_module(tool)
    except ImportError:
        package = None
    if getattr(package, "__file__", None) is None:  # a folder wandb/ of logs imports as an empty package
        raise UsageError(f'--track {tool} needs {TOOLS[tool]}: pip install "sb3-dreamer[{tool}]"')
    return package


def start(args: Namespace, run: RunFolder, config: Mapping[str, Any]) -> TrackedRun:
    """Start to track a run, or resume the tracked run that belongs to the run folder.

    :param args: flags of ``train``
    :param run: the run folder; ``tracking.yml`` among its settings says which tracked run belongs to it
    :param config: settings, nested
    :raises UsageError: if the tool works neither online nor on this machine
    """
    file = run.settings / "tracking.yml"
    known = read_yaml(file) if file.exists() else {}
    classes: dict[str, Callable[..., TrackedRun]] = {"wandb": WandbRun, "mlflow": MLflowRun}
    try:
        tracked = classes[args.track](args, run, config, known.get(args.track, {}))
    except Exception as error:
        raise UsageError(f"--track {args.track}: {TOOLS[args.track]} cannot start: {one_line(error)}") from error
    write_yaml(file, known | {args.track: tracked.stored})
    return tracked


def finish(tracked: TrackedRun, run: RunFolder, failed: bool) -> None:
    """Upload the models, settings and results of a run folder, and end the tracked run."""
    settings = sorted(run.settings.glob("*.*"))
    for path in (run.model, run.best_model, *settings, *(run.path / name for name in RESULTS)):
        if path.is_file():
            tracked.save(path, run.path)
    tracked.finish(failed)


class Patience:
    """Turn errors of a tool into warnings; after three in a row, stop calling it.

    :param tool: its name
    """

    def __init__(self, tool: str):
        self.tool, self.failures = tool, 0

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function of the tool."""
        if self.failures >= FAILURES:
            return
        try:
            function(*args, **kwargs)
            self.failures = 0
        except Exception as error:
            self.failures += 1
            then = "it gets nothing more of this run" if self.failures == FAILURES else "training continues"
            warnings.warn(f"{self.tool} failed: {one_line(error)}; {then}", stacklevel=3)


class WandbRun:
    """A run at Weights & Biases, offline where the service cannot be reached.

    Metrics and videos are those that TensorBoard gets.

    :param args: flags of ``train``
    :param run: the run folder, which also gets the files of an offline run unless ``WANDB_DIR`` names a folder
    :param config: settings
    :param stored: of the run to resume; empty for a new one
    """

    formats: tuple[Any, ...] = ()

    def __init__(self, args: Namespace, run: RunFolder, config: Mapping[str, Any], stored: Mapping[str, str]):
        wandb = import_package("wandb")
        settings = {
            "id": stored.get("id"),
            "resume": "allow",
            "name": run.path.name,
            "project": args.wandb_project_name or os.environ.get("WANDB_PROJECT") or PROJECT,
            "entity": args.wandb_entity,
            "group": args.wandb_group,
            "tags": args.wandb_tags,
            "dir": os.environ.get("WANDB_DIR") or str(run.path),
            "sync_tensorboard": True,
            "save_code": False,
        }
        try:
            self.run = wandb.init(**settings)
        except Exception as error:
            self.run = wandb.init(**settings, mode="offline")
            upload = f"wandb sync {Path(self.run.dir).parent}"
            warnings.warn(f"Weights & Biases is used offline: {one_line(error)} To upload: {upload}", stacklevel=4)
        self.run.config.update(dict(config), allow_val_change=True)
        self.stored = {"id": self.run.id}
        self.careful = Patience("Weights & Biases")

    def save(self, path: Path, base: Path) -> None:
        """Upload a file."""
        self.careful(self.run.save, str(path), base_path=str(base), policy="now")

    def finish(self, failed: bool) -> None:
        """Wait for uploads and end the run."""
        self.careful(self.run.finish, exit_code=int(failed))


class MLflowRun:
    """A run of MLflow, in a database in the run folder where the server cannot be reached.

    :param args: flags of ``train``; project, group and tags of W&B are experiment and tags here
    :param run: the run folder
    :param config: settings
    :param stored: of the run to resume; empty for a new one
    """

    def __init__(self, args: Namespace, run: RunFolder, config: Mapping[str, Any], stored: Mapping[str, str]):
        from sb3_dreamer.zoo.runs.mlflow_output import MLflowOutputFormat

        self.mlflow = import_package("mlflow")
        for name, value in HTTP.items():
            os.environ.setdefault(name, value)
        tags = {"group": args.wandb_group} if args.wandb_group else {}
        tags |= dict.fromkeys(args.wandb_tags, "true")
        experiment = args.wandb_project_name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        former, folder = stored.get("id"), run.path.resolve()
        uri = stored.get("uri") or self.mlflow.get_tracking_uri()
        try:
            self._start(uri, experiment, former, run_name=run.path.name, tags=tags)
        except Exception as error:
            uri, former = f"sqlite:///{folder / 'mlflow.db'}", None
            warnings.warn(f"MLflow writes to {uri}: {one_line(error)}", stacklevel=4)
            artifacts = (folder / "mlartifacts").as_uri()
            self._start(uri, experiment, former, artifacts, run_name=run.path.name, tags=tags)
        self.stored = {"id": self.mlflow.active_run().info.run_id, "uri": uri}
        self.careful = Patience("MLflow")
        if former is None:  # MLflow keeps the parameters of a run as they are
            self.careful(self.mlflow.log_params, flat(config))
        output = MLflowOutputFormat()
        output.write = functools.partial(self.careful, output.write)  # type: ignore[method-assign]
        self.formats: tuple[Any, ...] = (output,)

    def _start(self, uri: str, experiment: str, run_id: str | None, artifacts: str | None = None, **named: Any) -> None:
        self.mlflow.set_tracking_uri(uri)
        found = self.mlflow.get_experiment_by_name(experiment)
        where = found.experiment_id if found else self.mlflow.create_experiment(experiment, artifacts)
        self.mlflow.start_run(run_id, experiment_id=where, **named)

    def save(self, path: Path, base: Path) -> None:
        """Upload a file."""
        folder = path.parent.relative_to(base).as_posix()
        self.careful(self.mlflow.log_artifact, str(path), None if folder == "." else folder)

    def finish(self, failed: bool) -> None:
        """End the run."""
        self.careful(self.mlflow.end_run, "FAILED" if failed else "FINISHED")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Write nested settings as text under dotted names.

    :param config: names are text
    :param prefix: in front of every name
    """
    texts: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            texts |= flat(value, f"{prefix}{name}.")
        else:
            texts[prefix + name] = str(value)[:LONGEST_PARAM]
    return texts
