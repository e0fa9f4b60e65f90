"""Behaviors: anything that turns a latent state into an action."""

import torch as th
from torch import nn

from sb3_dreamer.core.functional import one_hot
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

    def begin(self, is_first: th.Tensor) -> None:
        """Take in which environments begin an episode, before :meth:`act`; only a planner that remembers needs it.

        :param is_first: ``(N,)`` bool
        """


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
            blocks.append(one_hot(th.zeros_like(index) if deterministic else index, size))
        return th.cat(blocks, -1)


class NoisyBehavior(Behavior):
    """Another behavior with exploration noise: normal noise, clipped to [-1, 1], or some uniform choices.

    :param behavior: acts
    :param layout: kind and sizes of the action
    :param noise: standard deviation for continuous actions (PlaNet: 0.3); for discrete ones, which the paper does not
        have, the probability of a uniform choice of each part
    """

    def __init__(self, behavior: Behavior, layout: ActionLayout, noise: float):
        super().__init__()
        self.behavior = behavior
        self.layout = layout
        self.noise = noise

    def begin(self, is_first: th.Tensor) -> None:
        """See :class:`Behavior`."""
        self.behavior.begin(is_first)

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """See :class:`Behavior`; deterministic calls have no noise."""
        action = self.behavior.act(world_model, state, deterministic=deterministic)
        if deterministic or self.noise == 0.0:
            return action
        if self.layout.kind == "continuous":
            return (action + self.noise * th.randn_like(action)).clamp(-1.0, 1.0)
        parts = []
        for part in action.split(self.layout.sizes, -1):
            uniform = one_hot(th.randint_like(part[..., 0], part.shape[-1]), part.shape[-1]).to(part.dtype)
            parts.append(th.where(th.rand_like(part[..., :1]) < self.noise, uniform, part))
        return th.cat(parts, -1)
