"""Import the package of a suite, or say how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType


class SuiteNotInstalledError(ImportError):
    """Raised when a suite's package is missing; the message says what to install."""


def require(module: str, suite: str, install: str) -> ModuleType:
    """Import a module of an optional package.

    :param module: module name
    :param suite: suite that needs it, for the message
    :param install: what to do if it is missing
    :raises SuiteNotInstalledError: if the module, or one it imports, is missing
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SuiteNotInstalledError(f"suite {suite!r} needs {module!r} ({error}). To install it: {install}") from error
