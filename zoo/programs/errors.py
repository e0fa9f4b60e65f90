"""Errors of the command line, each told in one line."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """What was asked for cannot be done; exit status 2. The message says what to write instead."""


class RunError(Exception):
    """A run failed after it had started; exit status 1."""


def one_line(message: object) -> str:
    """The message with its line breaks and runs of blanks replaced by single blanks."""
    return " ".join(str(message).split())


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` or nothing; capitals do not count.

    :param name: what was written
    :param known: what could have been meant
    """
    names = {str(candidate).lower(): str(candidate) for candidate in known}
    matches = difflib.get_close_matches(name.lower(), names, n=1)
    return f" (did you mean {names[matches[0]]!r}?)" if matches else ""
