"""Pack a trained agent to share, and check what others share.

::

    CartPole-v1_1/
        CartPole-v1.zip          the model without optimizers and replay
        scores.json              an evaluation of this very file, as the program evaluate writes it
        CartPole-v1/config.yml   its settings
        CartPole-v1/command.txt  the command that trained it

This is a run folder, so that every program finds the agent in it. ``zoo/agents/`` has those that come with the package;
a repository on the Hugging Face Hub holds one.
"""

import argparse
import json
import shlex
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sb3_dreamer.wrappers.benchmarks.suites import SUITES
from sb3_dreamer.zoo.config.errors import UsageError, one_line, plural, quote
from sb3_dreamer.zoo.config.yaml_files import read_yaml
from sb3_dreamer.zoo.runs.run_folder import RunFolder

TRUSTED = ("gymnasium", "sb3_dreamer")  #: packages whose environments and wrappers a stranger's config may name
WRITERS = ("RecordVideo", "EpisodeRecorder")  #: wrappers that write where their arguments say


def files(run: RunFolder) -> dict[str, Path]:
    """List the files of a packed agent, by their path inside the folder."""
    paths = (run.model, run.scores, run.config, run.command)
    return {path.relative_to(run.path).as_posix(): path for path in paths}


def pack(model: Any, run: RunFolder, target: RunFolder) -> None:
    """Write the agent of a run to a folder of its own; the scores follow.

    :param model: the loaded model
    :param run: where it was trained
    :param target: folder to make
    """
    target.settings.mkdir(parents=True, exist_ok=True)
    model.save(target.model, exclude=["optimizers"])
    shutil.copy(run.config, target.config)
    target.command.write_text(without_folder(run.command.read_text(encoding="utf-8")) + "\n", encoding="utf-8")


def without_folder(command: str) -> str:
    """Remove the folder of the logs from a command, which means nothing on another machine.

    :param command: of ``train``
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-f", "--log-folder")
    return shlex.join(parser.parse_known_args(shlex.split(command))[1])


def write_scores(run: RunFolder, scores: dict[str, Any]) -> None:
    """Write the evaluation of a packed agent.

    :param scores: as from :func:`sb3_dreamer.zoo.programs.evaluate.evaluate_run`
    """
    run.scores.write_text(json.dumps(scores | {"model": run.model.name}, indent=1) + "\n", encoding="utf-8")


def read_scores(run: RunFolder) -> dict[str, Any]:
    """Read the evaluation of a packed agent.

    :raises UsageError: if there is none
    """
    try:
        scores = json.loads(run.scores.read_text(encoding="utf-8"))
        return scores | {name: float(scores[name]) for name in ("mean", "std")} | {"n": len(scores["returns"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{run.scores} holds no scores ({type(error).__name__}: {one_line(error)})") from error


def score_in_words(run: RunFolder) -> str:
    """Write ``mean return 12.3 +- 4.5 over 100 episodes``."""
    scores = read_scores(run)
    return f"mean return {scores['mean']:.1f} +- {scores['std']:.1f} over {plural(scores['n'], 'episode')}"


def check_config(path: Path, packages: Collection[str] = ()) -> None:
    """Refuse a stranger's config that would import other packages than ours, or write files, when it is used.

    :param path: ``config.yml``
    :param packages: names that the user trusts as well
    :raises UsageError: naming the value
    """
    config = read_yaml(path)
    wrappers = config.get("env_wrapper") or []
    wrappers = [next(iter(one), "") if isinstance(one, dict) else one for one in _as_list(wrappers)]
    package, colon, _ = str(config.get("env")).partition(":")
    for name in [*wrappers, *([package] if colon and package not in SUITES else [])]:
        module, _, attribute = str(name).rpartition(".")
        top = str(name).partition(".")[0]
        if top not in (*TRUSTED, *packages):
            hint = f"pass --gym-packages {top} if you trust it"
            raise UsageError(f"{path.name} names {quote(name)}, which would be imported: {hint}")
        if attribute in WRITERS and module:
            raise UsageError(f"{path.name} names {quote(name)}, which writes files, so it is refused")
    replay = (config.get("hyperparams") or {}).get("replay_buffer_kwargs") or {}
    if "replay_dir" in replay:
        raise UsageError(
            f"{path.name} names the folder {quote(replay['replay_dir'])} to write replay to, so it is refused"
        )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
