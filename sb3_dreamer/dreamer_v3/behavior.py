"""Actor and critic losses of DreamerV3 (Section "Actor Critic Learning")."""

from typing import NamedTuple

import torch as th

from sb3_dreamer.core.action_heads import ActionHead
from sb3_dreamer.core.functional import discount_weights, lambda_return
from sb3_dreamer.core.heads import TwoHotHead
from sb3_dreamer.core.imagination import ActorGradient, ImaginationActorCritic, ReturnNormalizer
from sb3_dreamer.core.types import ImaginedTrajectory


class Targets(NamedTuple):
    """What both losses read off the critic in a dreamed rollout, for states 0 .. H-1.

    :param value_log_probs: log-probabilities of the critic's bins, with a graph, ``(N, H, K)``
    :param value: critic's means, ``(N, H)``
    :param returns: λ-returns, ``(N, H)``
    :param weight: how likely each state is still part of the episode, ``(N, H)``
    """

    value_log_probs: th.Tensor
    value: th.Tensor
    returns: th.Tensor
    weight: th.Tensor


class DreamerV3Behavior(ImaginationActorCritic):
    """Actor with percentile-normalised returns and a two-hot critic regularised towards its own average.

    Parameters as :class:`ImaginationActorCritic`.
    """

    critic: TwoHotHead
    slow_critic: TwoHotHead

    def __init__(self, actor: ActionHead, critic: TwoHotHead, *, actor_gradient: ActorGradient):
        super().__init__(actor, critic, actor_gradient=actor_gradient)
        self.return_norm = ReturnNormalizer()

    def targets(self, dream: ImaginedTrajectory, gamma: float, gae_lambda: float) -> Targets:
        """λ-returns from the critic itself, not from its average (Eq. 7). One forward pass serves both losses."""
        log_probs = self.critic.log_probs(self.critic(dream.feat))
        value = self.critic.mean_from_log_probs(log_probs)
        returns = lambda_return(dream.reward, value[:, 1:], dream.cont[:, 1:] * gamma, gae_lambda)
        return Targets(log_probs[:, :-1], value[:, :-1], returns, discount_weights(dream.cont, gamma)[:, :-1])

    def actor_loss(self, dream: ImaginedTrajectory, targets: Targets, ent_coef: float) -> th.Tensor:
        """Normalised advantage and entropy (Eq. 11 to 13), averaged over the rollout.

        Dynamics gradients maximise the advantage through the model; the released code keeps the gradient of the
        baseline in it, which the paper does not mention.
        """
        _, scale = self.return_norm.update(targets.returns)
        advantage = (targets.returns - targets.value) / scale
        objective = advantage if self.actor_gradient == "dynamics" else dream.log_prob * advantage.detach()
        return -(targets.weight * (objective + ent_coef * dream.entropy)).mean()

    def critic_loss(self, dream: ImaginedTrajectory, targets: Targets) -> th.Tensor:
        """Two-hot regression of the returns and of the slow critic's prediction (Eq. 8 to 10), averaged."""
        loss = self.critic.loss_from_log_probs(targets.value_log_probs, targets.returns.detach())
        slow = self.slow_value(dream.feat[:, :-1])
        regularizer = self.critic.loss_from_log_probs(targets.value_log_probs, slow)
        return (targets.weight * (loss + regularizer)).mean()

    @th.no_grad()
    def metrics(self, dream: ImaginedTrajectory, targets: Targets) -> dict[str, th.Tensor]:
        """What a user looks at to judge the dreams, 0-d each."""
        _, scale = self.return_norm.stats()
        return {
            "entropy": dream.entropy.mean(),
            "dream_reward": dream.reward.mean(),
            "dream_cont": dream.cont[:, 1:].mean(),
            "value": targets.value.mean(),
            "returns": targets.returns.mean(),
            "return_scale": scale,
        }
