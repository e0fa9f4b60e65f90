"""From agent steps to updates, with nothing lost in rounding."""

from fractions import Fraction


def updates_per_step(train_ratio: float, batch_size: int, batch_length: int) -> Fraction:
    """Updates that one agent step asks for: ``train_ratio / (B · T)``.

    :param train_ratio: replayed steps per agent step
    :param batch_size: sequences of a batch, B, over all ranks
    :param batch_length: rows of a sequence, T
    :raises ValueError: for numbers that make no batch
    """
    if not 0 <= train_ratio < float("inf"):
        raise ValueError(f"train_ratio={train_ratio!r} must be 0 or positive: replayed steps per agent step")
    if batch_size < 1 or batch_length < 2:
        raise ValueError(f"batch_size={batch_size}, batch_length={batch_length}: need at least 1 and 2")
    return Fraction(train_ratio).limit_denominator(10**9) / (batch_size * batch_length)


def whole_updates(per_step: Fraction, steps: int, carry: Fraction) -> tuple[int, Fraction]:
    """Whole updates that ``steps`` agent steps ask for, and the fraction that is left over.

    :param per_step: see :func:`updates_per_step`
    :param steps: agent steps
    :param carry: what was left over before
    """
    owed = carry + per_step * steps
    whole = int(owed)
    return whole, owed - whole
