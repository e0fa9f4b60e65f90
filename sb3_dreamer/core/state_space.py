"""The signature of latent dynamics, which an RSSM has, too, and the dynamics without a deterministic path."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th
from torch import nn

from sb3_dreamer.core.functional import unroll
from sb3_dreamer.core.latents import GaussianLatent, GaussianParams, Latent, Params
from sb3_dreamer.core.layers import MLP, NormStyle, linear
from sb3_dreamer.core.types import LatentState


class Observed(NamedTuple):
    """Result of :meth:`StateSpaceModel.observe`, everything ``(B, T, ...)``."""

    state: LatentState
    post: Params
    prior: Params


class StateSpaceModel(nn.Module):
    """A latent state that is filtered from observations (posterior) or predicted without them (prior).

    :ivar latent: distribution of the stochastic path
    :ivar post_out: the layer that puts out what ``latent`` reads the posterior from
    :ivar feat_size: width F of the features of a state
    """

    latent: Latent
    post_out: nn.Linear
    feat_size: int

    def initial(self, batch: int) -> LatentState:
        """State before the first step of an episode, for ``batch`` sequences."""
        raise NotImplementedError

    def img_dist(self, state: LatentState, action: th.Tensor, *, mode: bool = False) -> tuple[LatentState, Params]:
        """Like :meth:`img_step`, with the parameters of the prior that the state was drawn from."""
        raise NotImplementedError

    def obs_step(
        self,
        state: LatentState,
        prev_action: th.Tensor,
        embed: th.Tensor,
        is_first: th.Tensor,
        *,
        mode: bool = False,
    ) -> LatentState:
        """One filtering step: previous state, the action since, and what is seen now, to the posterior state.

        :param state: ``(N, ...)``; ignored where ``is_first``
        :param prev_action: ``(N, A)``; ignored where ``is_first``
        :param embed: ``(N, E)``
        :param is_first: ``(N,)`` bool
        :param mode: take the posterior's mode instead of a sample
        """
        raise NotImplementedError

    def observe(
        self,
        embed: th.Tensor,
        prev_action: th.Tensor,
        is_first: th.Tensor,
        state: LatentState | None = None,
    ) -> Observed:
        """Filter whole sequences.

        :param embed: ``(B, T, E)``
        :param prev_action: ``(B, T, A)``
        :param is_first: ``(B, T)`` bool
        :param state: state before the first row; None treats the first row as the start of an episode
        """
        raise NotImplementedError

    def draw(self, deter: th.Tensor, params: Params, *, mode: bool) -> LatentState:
        """A state whose latent is the mode of a distribution, or a sample of it.

        :param params: of the posterior or the prior
        """
        return LatentState(deter, self.latent.mode(params) if mode else self.latent.sample(params))

    def img_step(self, state: LatentState, action: th.Tensor, *, mode: bool = False) -> LatentState:
        """One step of the dream: ``(N, ...)`` state and action ``(N, A)`` to the next state.

        :param mode: take the prior's mode instead of a sample
        """
        return self.img_dist(state, action, mode=mode)[0]

    def imagine(
        self, policy: Callable[[LatentState], th.Tensor], state: LatentState, horizon: int
    ) -> tuple[LatentState, th.Tensor]:
        """Dream ``horizon`` steps ahead.

        :param policy: maps a state ``(N, ...)`` to an action ``(N, A)``
        :param state: start, ``(N, ...)``
        :return: states s_1 .. s_H ``(N, H, ...)`` and the actions a_0 .. a_{H-1} that led to them ``(N, H, A)``
        """

        def step(carry: LatentState) -> tuple[LatentState, tuple[LatentState, th.Tensor]]:
            action = policy(carry)
            after = self.img_step(carry, action)
            return after, (after, action)

        states, actions = unroll(step, state, (), length=horizon)
        return states, actions


class StochasticSSM(StateSpaceModel):
    """``prior = p(stoch_{t-1}, action)``, ``post = q(prior, embed)``; ``deter`` is there with no entries.

    PlaNet, Figure 2b, and ``models/ssm.py`` of its code: the posterior reads the prior's mean and standard deviation.

    :param latent: Gaussian latent
    :param action: width A
    :param embed: width E of the observation embedding
    :param hidden: width of the hidden layer of prior and posterior
    :param style: norm, activation and initialization
    """

    latent: GaussianLatent

    def __init__(self, latent: GaussianLatent, *, action: int, embed: int, hidden: int, style: NormStyle):
        super().__init__()
        self.latent = latent
        self.prior_mlp = MLP(latent.flat_size + action, (hidden,), style=style)
        self.prior_out = linear(hidden, latent.param_size, fan=style.fan)
        self.post_mlp = MLP(latent.param_size + embed, (hidden,), style=style)
        self.post_out = linear(hidden, latent.param_size, fan=style.fan)
        self.feat_size = latent.flat_size

    def initial(self, batch: int) -> LatentState:
        """Zeros, for ``batch`` sequences."""
        weight = self.prior_out.weight
        return LatentState(weight.new_zeros(batch, 0), weight.new_zeros(batch, self.latent.stoch))

    def _prior(self, stoch: th.Tensor, action: th.Tensor) -> GaussianParams:
        hidden = self.prior_mlp(th.cat([stoch, action], -1))
        return self.latent.params(self.prior_out(hidden))

    def _post(self, prior: GaussianParams, embed: th.Tensor) -> GaussianParams:
        hidden = self.post_mlp(th.cat([prior.mean, prior.std, embed], -1))
        return self.latent.params(self.post_out(hidden))

    def img_dist(self, state: LatentState, action: th.Tensor, *, mode: bool = False) -> tuple[LatentState, Params]:
        """See :meth:`StateSpaceModel.img_dist`."""
        prior = self._prior(state.stoch, limit_action(action))
        return self.draw(state.deter, prior, mode=mode), prior

    def obs_step(
        self,
        state: LatentState,
        prev_action: th.Tensor,
        embed: th.Tensor,
        is_first: th.Tensor,
        *,
        mode: bool = False,
    ) -> LatentState:
        """See :meth:`StateSpaceModel.obs_step`."""
        first = is_first.unsqueeze(1)
        stoch = state.stoch.masked_fill(first, 0.0)
        prior = self._prior(stoch, limit_action(prev_action).masked_fill(first, 0.0))
        return self.draw(state.deter, self._post(prior, embed), mode=mode)

    def observe(
        self,
        embed: th.Tensor,
        prev_action: th.Tensor,
        is_first: th.Tensor,
        state: LatentState | None = None,
    ) -> Observed:
        """See :meth:`StateSpaceModel.observe`."""
        if state is None:
            state = self.initial(len(embed))
            is_first = th.cat([th.ones_like(is_first[:, :1]), is_first[:, 1:]], 1)
        first = is_first.unsqueeze(-1)
        actions = limit_action(prev_action).masked_fill(first, 0.0)

        def step(
            carry: LatentState, action: th.Tensor, embed: th.Tensor, first: th.Tensor
        ) -> tuple[LatentState, tuple[LatentState, Params, Params]]:
            prior = self._prior(carry.stoch.masked_fill(first, 0.0), action)
            post = self._post(prior, embed)
            now = self.draw(carry.deter, post, mode=False)
            return now, (now, post, prior)

        states, post, prior = unroll(step, state, (actions, embed, first))
        return Observed(states, post, prior)


def limit_action(action: th.Tensor) -> th.Tensor:
    """Scale entries beyond [-1, 1] back to the border, with the direction of the gradient kept (released code)."""
    if not (th.is_grad_enabled() and action.requires_grad):
        return action.clamp(-1.0, 1.0)
    return action / action.detach().abs().clamp(min=1.0)
