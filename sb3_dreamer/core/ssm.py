"""State-space model without a deterministic path: everything passes through the sample (PlaNet's ablation)."""

import torch as th
from torch import nn

from sb3_dreamer.core.functional import unroll
from sb3_dreamer.core.latents import GaussianLatent, GaussianParams, Params
from sb3_dreamer.core.layers import MLP, NormStyle, linear
from sb3_dreamer.core.rssm import RSSM, Observed, limit_action
from sb3_dreamer.core.types import LatentState


class StochasticSSM(RSSM):
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
        nn.Module.__init__(self)
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

    def prior(self, deter: th.Tensor) -> Params:
        """Not defined: the prior needs the sample and the action before.

        :raises NotImplementedError: always; use :meth:`img_dist`
        """
        raise NotImplementedError("a model without deterministic path has no prior of deter: use img_dist")

    def _prior(self, stoch: th.Tensor, action: th.Tensor) -> GaussianParams:
        hidden = self.prior_mlp(th.cat([stoch, action], -1))
        return self.latent.params(self.prior_out(hidden))

    def _post(self, prior: GaussianParams, embed: th.Tensor) -> GaussianParams:
        hidden = self.post_mlp(th.cat([prior.mean, prior.std, embed], -1))
        return self.latent.params(self.post_out(hidden))

    def _draw(self, params: GaussianParams, like: LatentState, mode: bool) -> LatentState:
        return LatentState(like.deter, self.latent.mode(params) if mode else self.latent.sample(params))

    def img_dist(self, state: LatentState, action: th.Tensor, *, mode: bool = False) -> tuple[LatentState, Params]:
        """See :meth:`RSSM.img_dist`."""
        prior = self._prior(state.stoch, limit_action(action))
        return self._draw(prior, state, mode), prior

    def obs_step(
        self,
        state: LatentState,
        prev_action: th.Tensor,
        embed: th.Tensor,
        is_first: th.Tensor,
        *,
        mode: bool = False,
    ) -> LatentState:
        """See :meth:`RSSM.obs_step`."""
        first = is_first.unsqueeze(1)
        stoch = state.stoch.masked_fill(first, 0.0)
        prior = self._prior(stoch, limit_action(prev_action).masked_fill(first, 0.0))
        return self._draw(self._post(prior, embed), state, mode)

    def observe(
        self,
        embed: th.Tensor,
        prev_action: th.Tensor,
        is_first: th.Tensor,
        state: LatentState | None = None,
    ) -> Observed:
        """See :meth:`RSSM.observe`."""
        if state is None:
            state, is_first = (
                self.initial(len(embed)),
                th.cat([th.ones_like(is_first[:, :1]), is_first[:, 1:]], 1),
            )
        first = is_first.unsqueeze(-1)
        actions = limit_action(prev_action).masked_fill(first, 0.0)

        def step(
            carry: LatentState, action: th.Tensor, embed: th.Tensor, first: th.Tensor
        ) -> tuple[LatentState, tuple[LatentState, Params, Params]]:
            prior = self._prior(carry.stoch.masked_fill(first, 0.0), action)
            post = self._post(prior, embed)
            now = self._draw(post, carry, False)
            return now, (now, post, prior)

        states, post, prior = unroll(step, state, (actions, embed, first))
        return Observed(states, post, prior)
