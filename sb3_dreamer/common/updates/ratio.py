"""From agent steps to updates, with nothing lost in rounding."""

from fractions import Fraction


class UpdateRatio:
    """Counts how many updates are owed: ``agent steps · train_ratio / (batch_size · batch_length)``.

    The fraction of an update that is left is carried over exactly, as a rational number, and saved with the model.

    :param train_ratio: replayed steps per agent step
    :param batch_size: B
    :param batch_length: T
    """

    def __init__(self, train_ratio: float, batch_size: int, batch_length: int):
        if not train_ratio >= 0:
            raise ValueError(f"train_ratio={train_ratio!r} must be 0 or positive: replayed steps per agent step")
        if batch_size < 1 or batch_length < 2:
            raise ValueError(f"batch_size={batch_size}, batch_length={batch_length}: need at least 1 and 2")
        self.per_step = Fraction(train_ratio).limit_denominator(10**9) / (batch_size * batch_length)
        self.owed = Fraction(0)

    def updates(self, steps: int) -> int:
        """Add ``steps`` agent steps and take out the whole updates that are owed."""
        self.owed += self.per_step * steps
        whole = int(self.owed)
        self.owed -= whole
        return whole

    def state(self) -> list[int]:
        """The carried fraction as numerator and denominator."""
        return [self.owed.numerator, self.owed.denominator]

    def restore(self, state: list[int]) -> None:
        """Take over what :meth:`state` gave."""
        self.owed = Fraction(*state)
