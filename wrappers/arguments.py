"""Check the numbers that wrappers take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def whole_number(name: str, value: Any, least: int, most: int | None = None, what: str = "number") -> int:
    """Return a whole number as an ``int``.

    :param name: name of the argument, for the message
    :param value: what was passed; bools and floats are refused
    :param least: smallest value allowed
    :param most: largest value allowed, None for no bound
    :param what: what it counts, for the message
    :raises ValueError: if it is no whole number in that range
    """
    fits = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r}: must be a whole {what}, {bounds}.")
    return int(value)


def finite_number(name: str, value: Any, positive: bool = False) -> float:
    """Return a finite number as a ``float``.

    :param name: name of the argument, for the message
    :param value: what was passed; bools and strings are refused
    :param positive: also refuse 0 and less
    :raises ValueError: if it is not such a number
    """
    fits = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or (positive and value <= 0):
        raise ValueError(f"{name}={value!r}: must be a finite number{', above 0' if positive else ''}.")
    return float(value)
