"""What ends a training early: Ctrl-C (after the running step, so that what is saved is whole), or a solved task."""

import signal
import sys
from types import FrameType
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy


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


class StopWhenSolved(BaseCallback):
    """Ends training once two evaluations in a row, on different episodes, reach a return.

    For ``callback_on_new_best`` of an ``EvalCallback``. The first of many evaluations that reaches a mark is often
    a lucky one, which SB3's ``StopTrainingOnRewardThreshold`` cannot tell. If the second misses it, the best return so
    far becomes the mean of both, so that a later policy has a fair chance to be the new best.

    :param threshold: mean return that both evaluations have to reach
    """

    parent: EvalCallback

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def _on_step(self) -> bool:
        first = self.parent.best_mean_reward
        if first < self.threshold:
            return True
        returns, _ = evaluate_policy(
            self.model,
            self.parent.eval_env,
            self.parent.n_eval_episodes,
            deterministic=self.parent.deterministic,
            return_episode_rewards=True,
            warn=False,
        )
        second = float(np.mean(returns))
        if second >= self.threshold:
            return False
        self.parent.best_mean_reward = (first + second) / 2
        return True
