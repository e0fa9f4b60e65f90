"""Diagnosis in words: what the metrics of a run that does not learn have in common (docs/metrics.md)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sb3_dreamer.core.action_heads import ActionHead, BoundedNormalHead
from sb3_dreamer.core.functional import UNIT_NORMAL_ENTROPY
from sb3_dreamer.core.types import ActionLayout

PATIENCE = 3  #: log lines in a row that must show the same before it is said
MIN_UPDATES = 1000  #: updates before anything but skipped updates is judged
CONSTANT = 0.01  #: the reward head counts as constant below this share of the deviation of the real rewards
AT_MAXIMUM = 0.98  #: share of the way from the lowest to the highest entropy that counts as "at its maximum"


@dataclass(frozen=True)
class Facts:
    """Facts that the checks know besides the metrics.

    :param updates: updates so far
    :param steps: agent steps so far
    :param episodes: episodes that ended so far
    :param terminations: whether replay holds a row that the task ended; None: no head learns ends
    :param entropy_range: smallest and largest entropy of the actor; infinite where that is not known
    """

    updates: int
    steps: int
    episodes: int
    terminations: bool | None
    entropy_range: tuple[float, float]


@dataclass
class Diagnosis:
    """Remembers what the log showed, and says each thing once."""

    streaks: dict[str, int] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    terminated: bool = False  #: replay held such a row at some log line

    def check(self, metrics: Mapping[str, float], facts: Facts) -> list[str]:
        """Sentences that are due now.

        :param metrics: means since the last log line, without the prefix ``train/``
        """
        found = {"skipped": skipped_updates(metrics)}
        self.terminated |= bool(facts.terminations)
        if facts.updates >= MIN_UPDATES:
            found |= {
                "reward": constant_reward(metrics),
                "entropy": maximal_entropy(metrics, facts),
                "continue": None if self.terminated else no_termination(facts),
            }
        patience = {"skipped": 1, "continue": 1}
        return [text for name, text in found.items() if self.due(name, text, patience.get(name, PATIENCE)) and text]

    def due(self, name: str, text: str | None, patience: int = 1) -> bool:
        """Whether ``text`` is to be said now: found ``patience`` times in a row, and not said before."""
        self.streaks[name] = self.streaks.get(name, 0) + 1 if text else 0
        if self.streaks[name] < patience or name in self.said:
            return False
        self.said.add(name)
        return True


def skipped_updates(metrics: Mapping[str, float]) -> str | None:
    """Updates with gradients that are not finite."""
    shares = {name: value for name, value in metrics.items() if name.endswith("_skipped") and value > 0}
    if not shares:
        return None
    name, share = max(shares.items(), key=lambda item: item[1])
    return (
        f"{share:.1%} of the updates were skipped because their gradients were not finite (train/{name}): "
        "look for extreme rewards or observations, then lower the learning rate"
    )


def constant_reward(metrics: Mapping[str, float]) -> str | None:
    """A reward head that says the same everywhere although the rewards differ."""
    real, dreamed = metrics.get("batch_reward_std", 0.0), metrics.get("dream_reward_std", math.inf)
    if real < 1e-8 or dreamed >= CONSTANT * real:
        return None
    return (
        f"the reward head predicts a constant: its predictions vary by {dreamed:.2g}, the rewards in replay by "
        f"{real:.2g}. The actor has nothing to follow. Are the rewards caused by something the agent sees? Very sparse "
        "rewards need more random steps (learning_starts)"
    )


def maximal_entropy(metrics: Mapping[str, float], facts: Facts) -> str | None:
    """An actor that is still random."""
    low, high = facts.entropy_range
    if "entropy" not in metrics or not math.isfinite(high - low):
        return None
    share = (metrics["entropy"] - low) / (high - low) if high > low else 0.0
    if share < AT_MAXIMUM:
        return None
    return (
        f"the action entropy is still at its maximum ({metrics['entropy']:.3g} of {high:.3g}) after {facts.steps:,} "
        "steps: the actor sees no difference between actions. Look at train/loss_reward and train/returns; if they "
        "move, lower ent_coef"
    )


def no_termination(facts: Facts) -> str | None:
    """A continue head without an example of an end."""
    if facts.terminations is not False or facts.episodes < 10:
        return None
    return (
        f"the continue head never saw an end: all {facts.episodes} episodes were cut by a time limit. That is right "
        "for tasks that neither fail nor finish; for others, check that step() returns terminated=True"
    )


def open_loop_no_better(model_error: float, copy_error: float) -> str | None:
    """Predictions that do not beat the last frame.

    :param model_error: mean squared error of open-loop predictions
    :param copy_error: of repeating the last frame that was seen
    """
    if model_error < copy_error:
        return None
    return (
        f"open-loop prediction is no better than copying the last frame (error {model_error:.3g} against "
        f"{copy_error:.3g}): the dreams do not look like the task yet. Expect it early in training; if it stays, use a "
        "larger model_size or a higher train_ratio"
    )


def entropy_range(layout: ActionLayout, actor: ActionHead | None) -> tuple[float, float]:
    """Smallest and largest entropy that the actor can have, in nats; infinite where that is not known."""
    if layout.kind == "discrete":
        return 0.0, sum(math.log(n) for n in layout.sizes)
    if not isinstance(actor, BoundedNormalHead):
        return -math.inf, math.inf
    low, high = (layout.size * (math.log(std) + UNIT_NORMAL_ENTROPY) for std in (actor.min_std, actor.max_std))
    return low, high
