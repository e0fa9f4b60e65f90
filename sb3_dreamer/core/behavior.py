"""What acts: anything that turns a latent state into an action."""

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_dreamer.core.types import ActionLayout, LatentState
from sb3_dreamer.core.world_model import WorldModel


class Behavior(nn.Module):
    """Chooses actions from latent states: an actor, a planner, or chance."""

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """Actions ``(N, A)`` for states ``(N, ...)``.

        :param world_model: a planner dreams with it, an actor ignores it
        :param deterministic: take the mode; repeated calls then give equal actions
        """
        raise NotImplementedError


class RandomBehavior(Behavior):
    """Uniform actions: random collection, and the baseline of every comparison.

    :param layout: kind and sizes of the action
    """

    def __init__(self, layout: ActionLayout):
        super().__init__()
        self.layout = layout

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """Uniform in [-1, 1], or uniform one-hot blocks; the middle or the first choice if deterministic."""
        shape = (len(state.deter), self.layout.size)
        if self.layout.kind == "continuous":
            zeros = state.deter.new_zeros(shape)
            return zeros if deterministic else zeros.uniform_(-1.0, 1.0)
        blocks = []
        for size in self.layout.sizes:
            index = th.randint(size, shape[:1], device=state.deter.device)
            blocks.append(F.one_hot(th.zeros_like(index) if deterministic else index, size).float())
        return th.cat(blocks, -1)
