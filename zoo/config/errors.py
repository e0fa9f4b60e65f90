"""Errors of the command line, each in one line."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """What was asked for cannot be done; exit status 2. The message says what to write instead."""


class RunError(Exception):
    """A run failed after it had started; exit status 1."""


def one_line(message: object) -> str:
    """Replace line breaks and runs of spaces by single spaces."""
    return " ".join(str(message).split())


def quote(value: object) -> str:
    """Write a value for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def near(name: str, known: Iterable[str]) -> str:
    """Suggest the closest match: `` (did you mean 'x'?)``, or nothing; case does not matter.

    :param name: what the user wrote
    :param known: what could have been meant
    """
    names = {str(candidate).lower(): str(candidate) for candidate in known}
    matches = difflib.get_close_matches(name.lower(), names, n=1)
    return f" (did you mean {names[matches[0]]!r}?)" if matches else ""
