"""Parse command lines (``key:value`` pairs without ``eval``, errors in one line) and write commands to copy."""

import argparse
import ast
import math
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.errors import UsageError

BARE_WORD = re.compile(r"\d*[A-Za-z_][\w./:+-]*")  # a word, or a size such as 12m


class OneLineParser(argparse.ArgumentParser):
    """Raise :class:`UsageError`, with the nearest known flag, instead of printing the usage and exiting."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise the error in one line."""
        if message.startswith("unrecognized arguments: "):
            words = message.removeprefix("unrecognized arguments: ").split() or [""]
            flags = [flag for action in self._actions for flag in action.option_strings]
            flag = next((word for word in words if word.startswith("-")), words[0]).split("=")[0]
            raise UsageError(f"unknown argument {flag!r}{near(flag, flags)}: see {self.prog} --help")
        match = re.match(r"argument .*?: invalid choice: '?([^' ]*)'? \(choose from (.*)\)", message)
        if match:
            choices = [choice.strip(" '") for choice in match[2].split(",")]
            message = (
                f"{message.partition(':')[0]}: {match[1]!r} is unknown{near(match[1], choices)}: {', '.join(choices)}"
            )
        raise UsageError(f"{message} (see {self.prog} --help)")


class _HelpFormatter(argparse.HelpFormatter):
    """Format help in wide columns, with the default of every flag that has one worth showing."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=min(110, shutil.get_terminal_size((112, 24)).columns - 2))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keep the lines of a text that has several."""
        return text if "\n" in text else super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        shown = action.default not in (None, "", False, [], argparse.SUPPRESS) and action.option_strings
        if not shown or "default" in text:
            return text
        several = isinstance(action.default, list)
        return f"{text} (default: {' '.join(map(str, action.default)) if several else '%(default)s'})"


class KeyValues(argparse.Action):
    """Collect ``key:value`` words into a dict; values are literals, ``dict(...)`` of literals, or bare words."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add the pairs to those of an earlier use of the flag."""
        pairs = dict(getattr(namespace, self.dest) or {})
        for word in values:
            key, colon, text = word.partition(":")
            if not colon or not key or not text:
                raise UsageError(f"{option_string} {word!r}: write key:value, for example learning_rate:0.001")
            pairs[key] = parse_value(text.strip(), f"{option_string} {key}")
        setattr(namespace, self.dest, pairs)


def parse_value(text: str, where: str) -> Any:
    """Read one value; nothing is evaluated.

    :param text: a Python literal (``0.1``, ``[64, 64]``, ``{'units': 64}``, ``None``), ``dict(units=64)``, or a word
    :param where: flag and key, for the message
    :raises UsageError: for anything else, with the value
    """
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return _literal(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        if BARE_WORD.fullmatch(text):
            return text
    raise UsageError(f"{where}: cannot read {text!r}: write a number, a word, a list [1, 2] or a mapping {{'a': 1}}")


def _literal(node: ast.expr) -> Any:
    """Read a literal, where ``dict(a=1)`` counts as one (rl-zoo3's way of writing it)."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("** in dict()")
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    return ast.literal_eval(node)


def write_value(value: Any) -> str:
    """Write a value as :func:`parse_value` reads it."""
    bare = isinstance(value, str) and BARE_WORD.fullmatch(value) and parse_value(value, "") == value
    return value if bare else repr(value)


def to_words(parser: argparse.ArgumentParser, args: argparse.Namespace, skip: Iterable[str] = ()) -> list[str]:
    """Write the arguments that differ from the defaults as words of a command.

    :param parser: the parser that read them
    :param args: what it read
    :param skip: destinations to leave out
    """
    words: list[str] = []
    for action in parser._actions:
        value = getattr(args, action.dest, action.default)
        if not action.option_strings or action.dest in skip or value == action.default:
            continue
        flag = next((o for o in action.option_strings if o.startswith("--")), action.option_strings[0])
        if isinstance(action, KeyValues):
            words += [flag, *(f"{key}:{write_value(item)}" for key, item in value.items())]
        elif action.nargs == 0:
            words.append(flag)
        else:
            words += [flag, *(map(str, value) if isinstance(value, list | tuple) else [str(value)])]
    return words


def to_command(program: str, words: Sequence[str]) -> str:
    """Write the shell command of a program, in the way in which this process was started.

    :param program: its name
    :param words: its arguments
    """
    script = Path(sys.argv[0])
    start = ["sb3-dreamer", program]
    if script.name == "__main__.py" and script.parent.name == "zoo":
        start = ["python", "-m", "sb3_dreamer.zoo", program]
    elif script.suffix == ".py" and script.with_name(f"{program}.py").is_file():
        start = ["python", str(script.with_name(f"{program}.py"))]
    return shlex.join([*start, *words])


def check_output(flag: str, name: str, *, is_folder: bool = False) -> None:
    """Refuse a place that cannot be written, before the work whose results go there; nothing is made.

    :param flag: that named it
    :param name: file, or folder that is made with those above it
    :param is_folder: whether it is a folder
    :raises UsageError: if it lies in a file, in no folder, or where writing is not permitted
    """
    path = Path(name)
    if not is_folder and path.is_dir():
        raise UsageError(f"{flag} {name!r} is a folder: name a file in it")
    if not is_folder and not path.parent.is_dir():
        raise UsageError(f"{flag} {name!r}: there is no folder {path.parent}")
    there = next(part for part in (path, *path.absolute().parents) if os.path.exists(part))
    if is_folder and not there.is_dir():
        raise UsageError(f"{flag} {name!r} cannot be made: {there} is a file")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{flag} {name!r} cannot be written: no permission for {there}")


def output_file(text: str) -> Path:
    """Read the name of a file to write, before the work whose results go there."""
    try:
        check_output("", text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None
    return Path(text)


def positive(text: str) -> int:
    """Read a whole number of at least 1, also written ``1e6``."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1")
    return value


def natural(text: str) -> int:
    """Read a whole number of at least 0, also written ``1e6``."""
    value = whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 0")
    return value


def interval(text: str, otherwise: str = "none") -> int:
    """Read a whole number of at least 1, or -1.

    :param otherwise: what -1 stands for
    """
    value = whole(text)
    if value < 1 and value != -1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1, or -1 for {otherwise}")
    return value


def count_or_default(text: str) -> int:
    """Read a whole number of at least 1, or -1 for the default."""
    return interval(text, "the default")


def positive_number(text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def seed(text: str) -> int:
    """Read a seed: a whole number below 2^32, or -1 for one that is drawn."""
    value = whole(text)
    if not -1 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} must be from 0 to 4294967295, or -1 to draw one")
    return value


def job_seed(text: str) -> int:
    """Read a seed that names a folder, so that the same command finds it again; none is drawn."""
    value = seed(text)
    if value < 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} would draw other seeds every time, so that no job could be resumed: write them, such as 0 1 2"
        )
    return value


def drawn_seed(text: str) -> int:
    """Read a seed, and draw one for -1."""
    value = seed(text)
    return secrets.randbelow(2**31) if value < 0 else value


def folder(text: str) -> str:
    """Read the name of a folder, which an unset variable of the shell leaves empty."""
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    return text


def whole(text: str) -> int:
    """Read a whole number, also written ``1e6``."""
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
