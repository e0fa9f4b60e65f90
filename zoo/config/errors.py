"""Errors of the command line, each in one line."""


class UsageError(Exception):
    """What was asked for cannot be done; exit status 2. The message says what to write instead."""


class RunError(Exception):
    """A run failed after it had started; exit status 1."""


def one_line(message: object) -> str:
    """Replace line breaks and runs of spaces by single spaces; leave out the traceback of a ``WorkerError``."""
    return " ".join(str(message).partition("\n\nTraceback there:\n")[0].split())


def quote(value: object) -> str:
    """Write a value for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def plural(count: int, noun: str) -> str:
    """Write ``1 episode`` or ``1,000 episodes``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
