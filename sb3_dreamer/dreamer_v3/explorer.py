"""Plan2Explore (arXiv 2005.05960): a second actor-critic that seeks what the world model cannot predict yet."""

import torch as th
from torch import nn

from sb3_dreamer.core.ensemble import Ensemble
from sb3_dreamer.core.state_space import limit_action
from sb3_dreamer.core.types import ImaginedTrajectory, LatentState
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior


class Explorer(nn.Module):
    """An actor-critic whose dreamed rewards are the disagreement of an ensemble.

    :param behavior: actor and critic, of the same form as the task's
    :param ensemble: one-step predictors of the latent
    """

    def __init__(self, behavior: DreamerV3Behavior, ensemble: Ensemble):
        super().__init__()
        self.behavior = behavior
        self.ensemble = ensemble

    def rollout(
        self, world_model: WorldModel, start: LatentState, start_cont: th.Tensor | None, horizon: int
    ) -> ImaginedTrajectory:
        """Dream as :meth:`ImaginationActorCritic.rollout` does, with ``r_{t+1}`` the disagreement on what a_t does.

        With dynamics gradients the actor sees through the ensemble, too.
        """
        dream = self.behavior.rollout(world_model, start, start_cont, horizon)
        with th.set_grad_enabled(dream.feat.requires_grad):
            reward = self.ensemble.disagreement(dream.feat[:, :-1], limit_action(dream.action))
        return dream._replace(reward=reward)
