"""Actor-critic learning in imagination: the rollout, its values, the slow critic and the return statistics.

What differs between DreamerV2 and DreamerV3 is how the actor's and the critic's losses use them: see the two
``behavior.py``.
"""

import copy
from typing import Literal

import torch as th
from torch import nn

from sb3_dreamer.core.action_heads import ActionHead
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.functional import repeated, unroll
from sb3_dreamer.core.heads import ScalarHead
from sb3_dreamer.core.state_space import StateSpaceModel
from sb3_dreamer.core.types import ImaginedTrajectory, LatentState
from sb3_dreamer.core.world_model import WorldModel

ActorGradient = Literal["reinforce", "dynamics", "both"]


class ImaginationActorCritic(Behavior):
    """An actor and a critic that learn from dreamed rollouts.

    :param actor: features to action distributions
    :param critic: features to values
    :param actor_gradient: ``reinforce`` (score function; the dream needs no graph), ``dynamics`` (through the model)
        or ``both`` (DreamerV2 mixes them)
    """

    def __init__(self, actor: ActionHead, critic: ScalarHead, *, actor_gradient: ActorGradient):
        super().__init__()
        if actor_gradient not in ("reinforce", "dynamics", "both"):
            raise ValueError(f"actor_gradient={actor_gradient!r} is unknown: use 'reinforce', 'dynamics' or 'both'")
        self.actor = actor
        self.critic = critic
        self.slow_critic = copy.deepcopy(critic)
        self.actor_gradient = actor_gradient

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """See :class:`Behavior`."""
        out = self.actor(state.feat)
        return self.actor.mode(out) if deterministic else self.actor.sample(out)

    def rollout(
        self, world_model: WorldModel, start: LatentState, start_cont: th.Tensor | None, horizon: int
    ) -> ImaginedTrajectory:
        """Dream ``horizon`` steps from replayed posteriors, acting with the actor (DreamerV3, Section "Actor Critic").

        The actor reads features cut from the graph, so that its gradient reaches earlier actions only through the
        model's predictions (``dynamics``) or through the log-probabilities (``reinforce``).

        :param start: ``(N, ...)``, cut from the graph here
        :param start_cont: real continue flags of the start rows, ``(N,)``; None: predicted as all others
        :param horizon: H
        """
        dynamics = self.actor_gradient != "reinforce"
        with th.set_grad_enabled(dynamics):
            feat, out, action = self._dream(world_model.rssm, start.detach(), horizon)
            # Heads read all states and their outputs are sliced: a slice of the features would be copied for each head.
            reward, cont = world_model.reward(feat)[:, 1:], world_model.cont(feat)
            if start_cont is not None:
                cont = th.cat([start_cont.unsqueeze(1), cont[:, 1:]], 1)
        if not dynamics:  # one pass over all steps costs less than a graph of each step
            out = self.actor(feat)[:, :-1]
        stats = self.actor.stats(out, action.detach())
        return ImaginedTrajectory(feat, action, stats.log_prob, stats.entropy, reward, cont)

    def _dream(self, rssm: StateSpaceModel, start: LatentState, horizon: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Features of s_0 .. s_H, and the actor's raw outputs and actions up to H-1, with the batch axis first."""
        feats, outs = [start.feat], []

        def step(carry: LatentState) -> tuple[LatentState, th.Tensor]:
            after, feat, out, action = self._dream_step(rssm, carry, feats[-1])
            feats.append(feat)
            outs.append(out)
            return after, action

        actions = unroll(step, start, (), length=horizon)
        return th.stack(feats, 1), th.stack(outs, 1), actions

    @repeated
    def _dream_step(
        self, rssm: StateSpaceModel, state: LatentState, feat: th.Tensor
    ) -> tuple[LatentState, th.Tensor, th.Tensor, th.Tensor]:
        """Dream one step.

        :param state: ``(N, ...)``
        :param feat: its features, ``(N, F)``
        :return: the next state, its features, the actor's raw output and the action
        """
        out = self.actor(feat.detach())
        action = self.actor.sample(out)
        after = rssm.img_step(state, action)
        return after, after.feat, out, action

    @th.no_grad()
    def metrics(self, dream: ImaginedTrajectory, value: th.Tensor, returns: th.Tensor) -> dict[str, th.Tensor]:
        """Metrics to judge the dreams by, 0-d each."""
        return {
            "entropy": dream.entropy.mean(),
            "dream_reward": dream.reward.mean(),
            "dream_reward_std": dream.reward.std(),
            "dream_cont": dream.cont[:, 1:].mean(),
            "value": value.mean(),
            "returns": returns.mean(),
        }

    def value(self, feat: th.Tensor) -> th.Tensor:
        """Mean of the critic, ``(..., F)`` to ``(...)``."""
        return self.critic.mean(self.critic(feat))

    def slow_value(self, feat: th.Tensor) -> th.Tensor:
        """Mean of the slow critic, ``(..., F)`` to ``(...)``, without graph."""
        with th.no_grad():
            return self.slow_critic.mean(self.slow_critic(feat))

    @th.no_grad()
    def update_slow_critic(self, tau: float) -> None:
        """Move the slow critic towards the critic: ``slow += tau (critic - slow)``; 1 copies."""
        slow: list[th.Tensor] = list(self.slow_critic.parameters())
        th._foreach_lerp_(slow, list(self.critic.parameters()), tau)


class ReturnNormalizer(nn.Module):
    """Scale of the returns: an average of their 5 to 95 percentile range, never below 1 (DreamerV3, Eq. 12 and 13).

    :param minimum: smallest scale (1.0)
    :cvar decay: of the moving average, which starts at 0 and is not corrected for it
    """

    decay = 0.99
    low: th.Tensor
    high: th.Tensor

    def __init__(self, *, minimum: float = 1.0):
        super().__init__()
        self.minimum = minimum
        self.register_buffer("low", th.zeros(()))
        self.register_buffer("high", th.zeros(()))

    @th.no_grad()
    def update(self, returns: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Take in new returns of any shape and give the offset and scale, both 0-d.

        Returns that are not finite leave the averages as they were: the update that they belong to is skipped.
        """
        low, high = self.bounds(returns.detach().float().flatten())
        finite = th.isfinite(low) & th.isfinite(high)
        for buffer, now in ((self.low, low), (self.high, high)):
            buffer.copy_(th.where(finite, th.lerp(buffer, now, 1.0 - self.decay), buffer))
        return self.stats()

    def bounds(self, returns: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Lower and upper end of the range that one batch of returns ``(M,)`` spans: its percentiles."""
        ordered = returns.sort().values
        return _quantile_of_sorted(ordered, 0.05), _quantile_of_sorted(ordered, 0.95)

    def stats(self) -> tuple[th.Tensor, th.Tensor]:
        """Offset and scale, 0-d."""
        return self.low.clone(), (self.high - self.low).clamp(min=self.minimum)


class StdNormalizer(ReturnNormalizer):
    """Scale by an average of the standard deviation instead of the percentile range (DreamerV3, Figure D.3)."""

    def bounds(self, returns: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Mean, and mean plus standard deviation, so that their distance is the deviation."""
        mean = returns.mean()
        return mean, mean + returns.std(unbiased=False)


def _quantile_of_sorted(ordered: th.Tensor, share: float) -> th.Tensor:
    """Linear interpolation between order statistics; ``th.quantile`` refuses more than 16M values."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return th.lerp(ordered[below], ordered[above], position - below)
