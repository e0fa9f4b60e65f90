"""README and docs: the site is built without warnings, every Python block runs, every command is understood.

What is checked:

- Python blocks run as a reader would copy them: each by itself, in an empty folder. On a page that says "The Python
  blocks on this page form one script." they run in order and share names. Nothing is set up for them. Networks and
  budgets are the smallest (:mod:`tests.docs_blocks`): ``learn`` stops after 40 steps, a few of which make updates.
  Arguments keep their names and kinds, so a wrong one fails. That agents learn is checked elsewhere.
- Notebooks of docs/tutorials are checked like a page whose blocks form one script; ``-m slow`` runs them in full.
- Commands of this repository are parsed by their own programs, which stop before any work; names of algorithms,
  environments, hyperparameters, files and extras must exist. Other commands (``git``, ``cd``) are not checked.
  ``.ci/run`` runs the README's two marked commands.
- Hyperparameter files (YAML) are read by the zoo's loader.
- Tables of defaults are compared with the constructors, tables of other libraries' arguments with their signatures
  (Stable-Baselines3) and, on our side, with ours.
"""

import argparse
import importlib
import importlib.util
import inspect
import itertools
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import pytest
from stable_baselines3 import DQN, PPO, SAC

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.dreamer_v3 import DreamerV3Spec2024, OpenLoopCallback
from sb3_dreamer.wrappers import SuiteNotInstalledError, make_env, make_vec_env
from sb3_dreamer.wrappers.benchmarks.presets import SETTING_NAMES
from sb3_dreamer.wrappers.benchmarks.suites import SUITES, split_name
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, algorithm_class
from sb3_dreamer.zoo.config.arguments import parse_value
from sb3_dreamer.zoo.config.hyperparams import find_entry, load_file
from sb3_dreamer.zoo.config.values import check_values
from sb3_dreamer.zoo.studies.planning_baselines import ENVS
from tests.docs_blocks import CHAIN, NOTEBOOKS, PAGES, ROOT, Block, page_name, page_text, read_blocks, small_algorithms

BLOCKS = {page_name(path): read_blocks(path) for path in PAGES}
CHAINED = {page_name(path) for path in PAGES if CHAIN in " ".join(page_text(path).split())}
OTHERS = (
    *("git", "cd", ".", "make", "pre-commit", "python3 -m venv", "python -m venv", "ruff", "tensorboard"),
    *("pip download", "tar"),
)
OPTIONAL = ("onnxruntime", "mlflow")  #: a page whose block imports one of these first is left out where it is missing
EXTRAS = metadata("sb3-dreamer").get_all("Provides-Extra")
UNSOURCED = {"train_freq", "verbose", "stats_window_size"}  # SB3's own, no hyperparameters
LANGUAGES = {"python", "bash", "console", "yaml", "text", "indented", "inline"}


def pages_with(language: str) -> list[str]:
    """Pages with blocks of a language that are executed."""
    return [page for page, all_ in BLOCKS.items() if any(b.language == language and b.reason is None for b in all_)]


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "html")]
    command += ["-D", "nb_execution_mode=off"]  # notebooks are executed below, and by `make docs`
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html/index.html").exists()


def test_every_block_has_a_known_language_and_every_exception_a_reason() -> None:
    blocks = [block for page in BLOCKS.values() for block in page if not block.language.startswith("{")]
    assert [block.where for block in blocks if block.language not in LANGUAGES] == []
    assert [block.where for block in blocks if block.reason is not None and len(block.reason) < 10] == []


# ---- Python --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder and the smallest versions of everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its database takes seconds to make
    with small_algorithms():
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page: str, small: None) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.language != "python" or block.reason is not None:
            continue
        if page not in CHAINED:
            namespace = {"__name__": "__main__"}
        try:
            exec(compile(block.text, block.where, "exec"), namespace)
        except SuiteNotInstalledError as error:
            pytest.skip(f"{block.where}: {error}")
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            pytest.skip(f"{block.where}: {error}")
        except Exception as error:
            raise AssertionError(f"{block.where} failed: {type(error).__name__}: {error}\n{block.text}") from error


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_as_they_are(path: Path, tmp_path: Path) -> None:
    """In a kernel of their own, at full size."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, 4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", ())]
    assert {"image/png", "image/gif"} <= set(shown)


# ---- commands ------------------------------------------------------------------------------------------------------


class Parsed(BaseException):
    """Raised in place of the work after the arguments of a program were read."""

    def __init__(self, namespace: argparse.Namespace):
        super().__init__("arguments are read")
        self.namespace = namespace


def parse_only(script: str, words: list[str]) -> argparse.Namespace:
    """Start a program of this repository and stop it when its arguments are read.

    :param script: path of its file
    :raises SystemExit: if it refuses its arguments
    """
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise Parsed(parse_args(parser, args, namespace))

    argv = [script, *words]
    with (
        patch.object(argparse.ArgumentParser, "parse_args", stop),
        patch.object(sys, "argv", argv),
    ):
        try:
            runpy.run_path(script, run_name="__main__")
        except Parsed as parsed:
            return parsed.namespace
    raise AssertionError(f"{script} read no arguments")


def commands(block: Block) -> list[list[str]]:
    """The words of every command of a block."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                found.append([])
            else:
                found[-1].append(word)
    return [words for words in found if words]


def check_command(words: list[str]) -> None:
    """Whether a command of ours would start; ``...`` among its arguments leaves them open."""
    while "=" in words[0]:  # NAME=value in front
        words = words[1:]
    line = " ".join(words)
    if line.startswith(OTHERS):
        return
    if words[0] == "pytest":
        paths = [word.partition("::")[0] for word in words[1:] if word.startswith("tests")]
        assert all((ROOT / path).exists() for path in paths), line
    elif words[:2] == ["pip", "install"]:
        wanted = {extra for word in words if "[" in word for extra in word.partition("[")[2].rstrip("]").split(",")}
        assert wanted <= set(EXTRAS), f"{line}: extras are {EXTRAS}"
    else:
        check_program(words)


def check_program(words: list[str]) -> None:
    """Find the program and let it read its arguments."""
    if words[0] == "sb3-dreamer":
        words = ["python", "-m", "sb3_dreamer.zoo", *words[1:]]
    if words[0] == "torchrun":
        words = ["python", *itertools.dropwhile(lambda word: word.startswith("-"), words[1:])]
    assert words[0] in ("python", "python3"), f"{words}: neither ours nor in OTHERS"
    if words[1] == "-m":
        words = words[1:]
        found = importlib.util.find_spec(words[1])
        if found is not None and found.submodule_search_locations:
            found = importlib.util.find_spec(f"{words[1]}.__main__")
        assert found is not None and found.origin is not None, f"there is no module {words[1]}"
        script = found.origin
    else:
        script = str(ROOT / words[1])
        assert Path(script).exists(), f"{words[1]} is no file of the repository"
    words = words[2:]
    if "..." in words or script.endswith("doctor.py"):  # The doctor has no arguments.
        return
    args = parse_only(script, words)
    check_names(vars(args), Path(script).stem)


def check_names(args: dict[str, Any], program: str) -> None:
    """Whether algorithm, environment and hyperparameters of a command exist."""
    named = args.get("algo") or "dreamerv3"
    algos = [name.replace("_", "").lower() for name in ([named] if isinstance(named, str) else named)]
    assert set(algos) <= set(ALGORITHMS), algos
    algo = algos[0]
    hyperparams = dict(args.get("hyperparams") or {})
    params = args.get("params") or {}
    pairs = [pair.partition(":") for pair in params] if isinstance(params, list) else []
    hyperparams |= params if isinstance(params, dict) else {name: parse_value(text, name) for name, _, text in pairs}
    check_values(hyperparams, algorithm_class(algo), program)
    for env in [args["env"]] if args.get("env") not in (None, *ENVS) else []:
        suite, task = split_name(find_entry(algo, env).env)
        if suite == "gymnasium":
            module, _, name = task.rpartition(":")  # gymnasium imports what is in front of the colon
            if module:
                importlib.import_module(module)
            gym.spec(name)
        else:
            assert task in SUITES[suite].tasks or suite in ("bsuite", "atari"), env
    assert args.get("suite", "classic") in ("classic", *SUITES), args["suite"]


def texts(block: Block) -> bool:
    """Whether a block without a language is something else than commands."""
    return block.language == "indented" and not block.text.startswith(("python", "pip", "pytest", "git", "sb3-dreamer"))


@pytest.mark.parametrize("page", BLOCKS)
def test_commands_are_understood(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in BLOCKS[page]:
        if block.language not in ("bash", "console", "inline", "indented") or texts(block) or block.reason is not None:
            continue
        for words in commands(block):
            try:
                check_command(words)
            except (Exception, SystemExit) as error:
                said = capsys.readouterr().err
                raise AssertionError(f"{block.where}: {shlex.join(words)}: {error} {said}") from error


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_hyperparameter_files_are_read(page: str, tmp_path: Path) -> None:
    for block in BLOCKS[page]:
        if block.language == "yaml":
            path = tmp_path / "own.yml"
            path.write_text(block.text)
            assert load_file(path, "dreamerv3")[0], block.where


# ---- tables of arguments -------------------------------------------------------------------------------------------


def rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(heading)[2].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[first + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def arguments(function: Any) -> dict[str, Any]:
    """Defaults by name, without ``self`` and private ones."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.name != "self" and not one.name.startswith("_")}


@pytest.mark.parametrize("page, algorithm", [("dreamer_v3", DreamerV3), ("dreamer_v2", DreamerV2), ("planet", PlaNet)])
def test_tables_of_defaults_are_those_of_the_constructor(page: str, algorithm: type) -> None:
    table = {cells[0].strip("`"): cells[1].strip("`") for cells in rows(f"{page}_equations.md", "Defaults and their")}
    defaults = arguments(algorithm.__init__)
    numbers = {k for k, v in defaults.items() if isinstance(v, float) or (type(v) is int and k not in UNSOURCED)}
    assert numbers <= table.keys(), "every number has a source"
    for name, text in table.items():
        expected = 1 - 1 / 333 if text == "1 - 1 / 333" else text
        assert defaults[name] == expected or str(defaults[name]) == expected, name


def test_tables_of_other_libraries_use_names_that_exist() -> None:
    for heading, classes in (("SAC or DQN", (SAC, DQN)), ("PPO", (PPO,))):
        table = rows("migrating.md", f"## From Stable-Baselines3's {heading}")
        theirs = {name for cells in table for name in re.findall(r"`(\w+)`", cells[0])}
        assert theirs == {name for cls in classes for name in arguments(cls.__init__)}, heading
    ours = {field.name for field in fields(DreamerV3Spec2024)} | {"total_timesteps"} | set(SETTING_NAMES)
    for function in (DreamerV3.__init__, make_env, make_vec_env, ResumableCheckpoint, OpenLoopCallback):
        ours |= arguments(function).keys()
    for heading in ("Stable-Baselines3's SAC", "Stable-Baselines3's PPO", "the official dreamerv3", "sheeprl"):
        for cells in rows("migrating.md", f"## From {heading}"):
            unknown = [name for name in re.findall(r"\b([a-z]\w*) ?=", cells[2]) if name not in ours]
            assert not unknown, cells


def test_recorded_results_name_no_path_of_a_machine() -> None:
    paths = sorted((ROOT / "docs/results").glob("*.json"))
    assert paths
    for path in paths:
        found = re.findall(
            r"(?<![\w./])/(?:home|root|tmp|work|Users|mnt|data)/[^\s\"']*", path.read_text(encoding="utf-8")
        )
        assert not found, f"{path.name}: {found[:3]}"
