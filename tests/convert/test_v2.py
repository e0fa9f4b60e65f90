"""Ours against updates of the authors' DreamerV2 code, computed in float64 there and in float32 here.

Where our actor and critic differ by choice (docs/dreamer_v2.md: alignment of rewards, baseline, weight of the first
state), the losses of that code stand in below; world model, dreams, gradients and optimizers are ours.
"""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch as th

from sb3_dreamer import DreamerV2
from sb3_dreamer.convert import weights_v2
from sb3_dreamer.core.types import ImaginedTrajectory
from tests.convert.traces import (
    Trace,
    close,
    make_batch,
    make_v2,
    params,
    record,
    same_changes,
    start,
    take_modes,
)
from tests.golden.reduce_traces import UPDATES

HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)  #: constant of a normal's log-likelihood, which our losses leave out


class ReleasedTargets(NamedTuple):
    """Of states 0 .. H, time last; ``returns`` of states 0 .. H-1."""

    reward: th.Tensor
    slow: th.Tensor
    returns: th.Tensor
    weight: th.Tensor
    value: th.Tensor


class ReleasedLosses:
    """Targets and losses of agent.py: a state's value includes its own reward, and two states are dropped."""

    def __init__(self, model: DreamerV2):
        self.model = model

    def targets(self, dream: ImaginedTrajectory, gamma: float, gae_lambda: float) -> ReleasedTargets:
        behavior, world_model = self.model.behavior, self.model.policy.world_model
        with th.set_grad_enabled(dream.feat.requires_grad):
            reward = world_model.reward(dream.feat)
            slow = behavior.slow_critic.mean(behavior.slow_critic(dream.feat))
            cont = dream.cont if world_model.cont_head is not None else th.ones_like(dream.cont)
            discount = gamma * cont
            returns, later = [], slow[:, -1]
            for t in reversed(range(reward.shape[1] - 1)):
                mixed = (1.0 - gae_lambda) * slow[:, t + 1] + gae_lambda * later
                later = reward[:, t] + discount[:, t] * mixed
                returns.insert(0, later)
        weight = th.cat([th.ones_like(discount[:, :1]), discount[:, :-1]], 1).cumprod(1).detach()
        value = behavior.value(dream.feat[:, :-1].detach())
        return ReleasedTargets(reward, slow, th.stack(returns, 1), weight, value)

    def actor_loss(
        self, dream: ImaginedTrajectory, targets: ReleasedTargets, rho: th.Tensor, ent_coef: th.Tensor
    ) -> th.Tensor:
        later = targets.returns[:, 1:]
        advantage = (later - targets.slow[:, :-2]).detach()
        objective = rho * dream.log_prob[:, :-1] * advantage + (1.0 - rho) * later
        return -(targets.weight[:, :-2] * (objective + ent_coef * dream.entropy[:, :-1])).mean()

    def critic_loss(self, targets: ReleasedTargets) -> th.Tensor:
        return (targets.weight[:, :-1] * 0.5 * (targets.value - targets.returns.detach()).square()).mean()


def with_released_losses(model: DreamerV2, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = ReleasedLosses(model)
    for name in ("targets", "actor_loss", "critic_loss"):
        monkeypatch.setattr(model.behavior, name, getattr(losses, name))
    monkeypatch.setattr(model.behavior, "metrics", lambda *_: {})


@pytest.mark.parametrize("kind", ["discrete", "both", "continuous", "untruncated"])
def test_updates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, model = Trace("trace_v2", kind), make_v2(kind)
    before = weights_v2(model.policy, trace.under("init/"))
    start(model, before)
    take_modes(monkeypatch)
    with_released_losses(model, monkeypatch)
    losses = record(monkeypatch, model.policy.world_model, "loss")
    dreams, targets = (record(monkeypatch, model.behavior, name) for name in ("rollout", "targets"))
    for update in range(1, UPDATES + 1):
        data = trace.under(f"data{update}/")
        result = model._update(make_batch(data, data["action"]))
        expected = trace.under(f"update{update}/")
        check_losses(losses[-1].losses, expected)
        for part in ("model", "actor", "critic"):
            norm = f"{part}_grad_norm"
            close(norm, result.metrics[norm], expected[f"metric/{norm}"], 1e-3)
        close("actor's loss", result.metrics["actor_loss"], expected["metric/actor_loss"], 1e-4)
        constant = HALF_LOG_TAU * targets[-1].weight[:, :-1].mean()
        close("critic's loss", result.metrics["critic_loss"] + constant, expected["metric/critic_loss"], 1e-4)
        if update == 1:
            check_dream(model, dreams[-1], targets[-1], trace.under("update1/dream/"))
    close("deter", result.post.deter, expected["post/deter"], 1e-4)
    changes = {name: value - before[name] for name, value in params(model).items()}
    same_changes(changes, weights_v2(model.policy, trace.sampled("delta")), 1e-2)


def check_losses(losses: dict[str, th.Tensor], expected: dict[str, np.ndarray]) -> None:
    """Ours against log-likelihoods, which have constants; reconstructions are halved by their scales."""
    close("image", losses["recon_image"] / 2 + HALF_LOG_TAU * 64 * 64 * 3, -expected["like/image"], 1e-5)
    close("vector", losses["recon_vector"] / 2 + HALF_LOG_TAU * 5, -expected["like/vector"], 1e-4)
    close("reward", losses["reward"] + HALF_LOG_TAU, -expected["like/reward"], 1e-4)
    close("kl", losses["kl"].mean(), expected["metric/kl_loss"], 1e-4)
    if "cont" in losses:
        close("discount", losses["cont"], -expected["like/discount"], 1e-4)


def check_dream(model: DreamerV2, dream, targets: ReleasedTargets, expected: dict[str, np.ndarray]) -> None:
    """Time comes first there; actions are those that led to the states."""
    close("action", dream.action.transpose(0, 1), expected["action"][1:], 1e-4)
    close("reward", targets.reward.T, expected["reward"], 1e-4)
    close("slow value", targets.slow.T, expected["slowvalue"], 1e-4)
    close("value", targets.value.T, expected["value"][:-1], 1e-4)
    close("returns", targets.returns.T, expected["target"], 1e-4)
    close("weight", targets.weight.T, expected["weight"], 1e-4)
    close("log-probability", dream.log_prob.T[:-1], expected["logpi"], 1e-4)
    close("entropy", dream.entropy.T[:-1], expected["ent"], 1e-4)
