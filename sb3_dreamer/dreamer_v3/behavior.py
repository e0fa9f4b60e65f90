"""Actor and critic losses of DreamerV3 (Section "Actor Critic Learning")."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch as th
import torch.nn.functional as F

from sb3_dreamer.core.action_heads import ActionHead
from sb3_dreamer.core.functional import discount_weights, lambda_return, replay_lambda_return
from sb3_dreamer.core.heads import ScalarHead
from sb3_dreamer.core.imagination import ActorGradient, ImaginationActorCritic, ReturnNormalizer, StdNormalizer
from sb3_dreamer.core.types import ImaginedTrajectory, LatentState, SequenceBatch

CriticTarget = Literal["fast", "slow"]
ReturnNorm = Literal["percentile", "return_std", "advantage_std"]


class Targets(NamedTuple):
    """Values and returns of a dreamed rollout that both losses use, for states 0 .. H-1.

    :param value_out: the critic's raw outputs with a graph, of all states 0 .. H, ``(N, H+1, K)``
    :param value: critic's means, ``(N, H)``
    :param returns: λ-returns, ``(N, H)``
    :param weight: how likely each state is still part of the episode, ``(N, H)``
    """

    value_out: th.Tensor
    value: th.Tensor
    returns: th.Tensor
    weight: th.Tensor


class DreamerV3Behavior(ImaginationActorCritic):
    """Actor with percentile-normalized returns and a two-hot critic regularized toward its own average.

    Parameters as :class:`ImaginationActorCritic`. The attributes below are the ablations of Figures D.2 and D.3.

    :ivar critic_target: whose values the returns are built from. ``fast``: the critic's, which is then pulled toward
        its average; ``slow``: the average's, without the pull
    :ivar all_gather: joins a batch of statistics with those of other processes
    :ivar normalize_advantage: feed the advantages, not the returns, to the normalizer
    """

    def __init__(self, actor: ActionHead, critic: ScalarHead, *, actor_gradient: ActorGradient):
        super().__init__(actor, critic, actor_gradient=actor_gradient)
        self.return_norm = ReturnNormalizer()
        self.critic_target: CriticTarget = "fast"
        self.all_gather: Callable[[th.Tensor], th.Tensor] = _alone
        self.normalize_advantage = False

    def set_normalization(self, kind: ReturnNorm, minimum: float) -> None:
        """Choose how advantages are scaled; forgets the statistics.

        :param kind: ``percentile`` range of the returns, or standard deviation of returns or advantages
        :param minimum: smallest scale (1.0)
        """
        device = self.return_norm.low.device
        norm = ReturnNormalizer if kind == "percentile" else StdNormalizer
        self.return_norm = norm(minimum=minimum).to(device)
        self.normalize_advantage = kind == "advantage_std"

    def targets(self, dream: ImaginedTrajectory, gamma: float, gae_lambda: float) -> Targets:
        """λ-returns from the critic itself, not from its average (Eq. 7). One forward pass serves both losses."""
        out = self.critic(dream.feat)
        value = self.critic.mean(out)
        target = self.slow_value(dream.feat) if self.critic_target == "slow" else value
        returns = lambda_return(dream.reward, target[:, 1:], dream.cont[:, 1:] * gamma, gae_lambda)
        return Targets(out, value[:, :-1], returns, discount_weights(dream.cont, gamma)[:, :-1])

    def actor_loss(self, dream: ImaginedTrajectory, targets: Targets, ent_coef: float) -> th.Tensor:
        """Normalized advantage and entropy (Eq. 11 to 13), averaged over the rollout.

        Dynamics gradients maximize the advantage through the model; the released code keeps the gradient of the
        baseline in it, which the paper does not mention.
        """
        advantage = targets.returns - targets.value
        measured = advantage if self.normalize_advantage else targets.returns
        _, scale = self.return_norm.update(self.all_gather(measured.detach()))
        advantage = advantage / scale
        objective = advantage if self.actor_gradient == "dynamics" else dream.log_prob * advantage.detach()
        return -(targets.weight * (objective + ent_coef * dream.entropy)).mean()

    def critic_loss(self, dream: ImaginedTrajectory, targets: Targets) -> th.Tensor:
        """Two-hot regression of the returns and of the slow critic's prediction (Eq. 8 to 10), averaged."""
        return (targets.weight * self._regression(targets.value_out, dream.feat, targets.returns.detach())).mean()

    def _regression(self, value_out: th.Tensor, feat: th.Tensor, returns: th.Tensor) -> th.Tensor:
        """Loss of the values of states 0 .. T-1, from outputs for 0 .. T and their ``(N, T)`` returns: ``(N, T)``."""
        slow = [self.slow_value(feat)] if self.critic_target == "fast" else []
        return self.critic.loss(value_out, F.pad(returns, (0, 1)), *slow)[:, :-1]

    def replay_value_loss(
        self, post: LatentState, batch: SequenceBatch, dream_return: th.Tensor, gamma: float, gae_lambda: float
    ) -> th.Tensor:
        """The critic's regression on replayed rewards, bootstrapped by the dreams (2024 version).

        Its gradient reaches the RSSM through ``post``. The last row of an episode has no successor and does not count.

        :param post: posterior states with a graph, ``(B, T, ...)``
        :param dream_return: return of the dream that starts at each row, ``(B, T)``
        :return: ``(B, T-1)``
        """
        feat = post.feat
        returns = replay_lambda_return(
            batch.reward, dream_return.detach(), batch.is_last, batch.is_terminal, gamma, gae_lambda
        )
        loss = self._regression(self.critic(feat), feat, returns)
        return loss * (1.0 - batch.is_last[:, :-1].float())

    def metrics(self, dream: ImaginedTrajectory, value: th.Tensor, returns: th.Tensor) -> dict[str, th.Tensor]:
        """See :class:`ImaginationActorCritic`; also the scale of the returns."""
        return super().metrics(dream, value, returns) | {"return_scale": self.return_norm.stats()[1]}


def _alone(x: th.Tensor) -> th.Tensor:
    """Statistics of one process."""
    return x
