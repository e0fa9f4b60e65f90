"""The command line: ``sb3-dreamer PROGRAM ...``, which is also ``python zoo/PROGRAM.py ...``."""

import contextlib
import importlib
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.errors import RunError, UsageError, one_line

PROGRAMS = {  # modules of this package, and what they do
    "train": "train an agent",
    "enjoy": "watch a trained agent, episode by episode",
    "record_video": "record a video of a trained agent",
    "evaluate": "evaluate trained agents: scores with intervals, also as JSON",
    "plot": "plot learning curves, with published ones behind",
    "tune": "search hyperparameters with Optuna",
    "suite": "train on a whole benchmark with several seeds",
    "list": "list suites and their tasks, runs, trained agents",
    "push_to_hub": "upload a trained agent to the Hugging Face Hub",
    "load_from_hub": "download a trained agent from the Hugging Face Hub",
    "bench": "measure speed on this machine, alone and against other programs",
    "doctor": "check what training needs on this machine",
}
ZOO_PACKAGES = ("yaml", "rich", "tqdm", "tensorboard", "matplotlib", "moviepy", "pygame", "psutil", "optuna")
COLOR = re.compile(r"\x1b\[[\d;]*m")  # what a terminal shows as a color, and a log as it is
DEBUG = "SB3_DREAMER_TRACEBACK"  # set it to see where an error was raised


def main(argv: Sequence[str] | None = None) -> int:
    """Run one program; every error is one line on stderr.

    :param argv: program and its arguments; None takes those of the process
    :return: exit status: 0, 1 if a run failed, 2 if what was asked for cannot be done, 130 after Ctrl-C or SIGTERM
    """
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without complaining about the missing screen
    name = f"sb3-dreamer {words[0]}" if words and words[0] in PROGRAMS else "sb3-dreamer"
    former = warnings.formatwarning
    warnings.formatwarning = _WarningInOneLine(name)
    try:
        with _interrupted_by_sigterm():
            return _run(words)
    except (Exception, KeyboardInterrupt) as error:
        return _status(name, error)
    finally:
        warnings.formatwarning = former


def run_study(study: Callable[[], int | None]) -> int:
    """Run a study: what it refuses is one line on stderr, and other errors keep their traceback.

    :param study: does its work and returns the exit status; None is 0
    :return: exit status, as of :func:`main`
    """
    try:
        return int(study() or 0)
    except (UsageError, RunError, ModuleNotFoundError, KeyboardInterrupt) as error:
        return _status(Path(sys.argv[0]).stem, error)


class _WarningInOneLine:
    """Format a warning in one line, once: gymnasium colors its own, and repeats them for every environment.

    :param name: of the program
    """

    def __init__(self, name: str):
        self.name, self.seen = name, set[str]()

    def __call__(self, message: object, *_: object, **__: object) -> str:
        text = one_line(COLOR.sub("", str(message))).removeprefix("WARN: ")
        if text in self.seen:
            return ""
        self.seen.add(text)
        return f"{self.name}: warning: {text}\n"


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM, which ``kill`` and job schedulers send, like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # Only the main thread can set handlers.
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        from sb3_dreamer import __version__

        print(f"sb3-dreamer {__version__}")
    elif words[0] in PROGRAMS:
        module = importlib.import_module(f"sb3_dreamer.zoo.programs.{words[0]}")
        return int(module.main(words[1:]) or 0)
    else:
        raise UsageError(f"unknown program {words[0]!r}{near(words[0], PROGRAMS)}: use {', '.join(PROGRAMS)}")
    return 0


def _status(name: str, error: BaseException) -> int:
    """Print an error in one line and return the exit status for it."""
    status, message = 1, f"{type(error).__name__}: {one_line(error)} (set {DEBUG}=1 to see where)"
    if isinstance(error, KeyboardInterrupt):
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):  # The reader of our output, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, UsageError | RunError):
        status, message = (2 if isinstance(error, UsageError) else 1), one_line(error)
    elif isinstance(error, ModuleNotFoundError):
        hint = 'pip install "sb3-dreamer[zoo]"' if error.name in ZOO_PACKAGES else f"pip install {error.name}"
        status, message = 2, f"the package {error.name} is missing: {hint}"
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    print(f"{name}: error: {message}", file=sys.stderr)
    return status


def overview() -> str:
    """List the programs."""
    lines = [
        "usage: sb3-dreamer PROGRAM [--help] ...",
        "",
        "World-model reinforcement learning: PlaNet, DreamerV2, DreamerV3.",
        "",
    ]
    width = max(map(len, PROGRAMS))
    lines += [f"  {name:<{width}}  {text}" for name, text in PROGRAMS.items()]
    return "\n".join([*lines, "", "For example: sb3-dreamer train --algo dreamerv3 --env CartPole-v1"])


if __name__ == "__main__":
    sys.exit(main())
