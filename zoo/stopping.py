"""Ctrl-C: training ends after the running step, so that what is saved is whole."""

import signal
import sys
from types import FrameType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


class StopOnSignal(BaseCallback):
    """Stops training at the next step after SIGINT or SIGTERM; a second signal interrupts at once.

    Used as a context manager around ``learn``, which installs and removes the signal handlers. Work that may be thrown
    away (an evaluation) sets ``at_once`` so that it is interrupted by the first signal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self.at_once = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.stopped
        self.stopped = True
        if again or self.at_once:
            raise KeyboardInterrupt
        print("\nStopping after this step; once more stops at once, without saving.", file=sys.stderr, flush=True)

    def _on_step(self) -> bool:
        return not self.stopped
