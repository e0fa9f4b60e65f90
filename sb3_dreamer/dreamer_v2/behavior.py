"""Actor and critic losses of DreamerV2 (Section 2.2)."""

from typing import NamedTuple

import torch as th

from sb3_dreamer.core.functional import discount_weights, lambda_return
from sb3_dreamer.core.imagination import ImaginationActorCritic
from sb3_dreamer.core.types import ImaginedTrajectory


class Targets(NamedTuple):
    """Values and returns of a dreamed rollout that both losses use, for states 0 .. H-1.

    :param value: critic's values of the states, with a graph of the critic only, ``(N, H)``
    :param returns: λ-returns of the slow critic, with the graph of the dream if there is one, ``(N, H)``
    :param weight: product of the discounts up to each state, ``(N, H)``
    """

    value: th.Tensor
    returns: th.Tensor
    weight: th.Tensor


class DreamerV2Behavior(ImaginationActorCritic):
    """Actor that mixes REINFORCE and dynamics gradients; critic trained toward returns of its slow copy.

    Time alignment: a dreamed reward belongs to the action that led to it (see :class:`ImaginedTrajectory`). The
    released code adds the reward of the present state to its value and drops the last two states; here a value is
    what comes after its state, and only the last state is dropped. The advantage of an action has the same
    expectation. A dream that starts at a terminal row has weight 0 from its first state on.

    Parameters as :class:`ImaginationActorCritic`.
    """

    def targets(self, dream: ImaginedTrajectory, gamma: float, gae_lambda: float) -> Targets:
        """λ-returns of the slow critic (Eq. 4) and the critic's own values, the baseline (as in the paper).

        The last release takes the slow critic as baseline as well.
        """
        with th.set_grad_enabled(dream.feat.requires_grad):
            slow = self.slow_critic.mean(self.slow_critic(dream.feat))[:, 1:]
            returns = lambda_return(dream.reward, slow, dream.cont[:, 1:] * gamma, gae_lambda)
        value = self.value(dream.feat.detach())[:, :-1]
        return Targets(value, returns, discount_weights(dream.cont, gamma)[:, :-1])

    def actor_loss(self, dream: ImaginedTrajectory, targets: Targets, rho: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
        """``-ρ log π(a|s) sg(V^λ - v) - (1-ρ) V^λ - η H(π(s))`` (Eq. 6), averaged over the rollout.

        :param rho: ρ, share of REINFORCE, 0-d; the rest are dynamics gradients
        :param ent_coef: η, 0-d
        """
        advantage = (targets.returns - targets.value).detach()
        objective = rho * dream.log_prob * advantage + (1.0 - rho) * targets.returns
        return -(targets.weight * (objective + ent_coef * dream.entropy)).mean()

    def critic_loss(self, targets: Targets) -> th.Tensor:
        """``(v(s) - sg(V^λ))² / 2`` (Eq. 5), averaged over the rollout."""
        return (targets.weight * 0.5 * (targets.value - targets.returns.detach()).square()).mean()
