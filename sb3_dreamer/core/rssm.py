"""Recurrent state-space model: a deterministic and a stochastic path, with injected cell and latent."""

from collections.abc import Callable
from typing import Any

import torch as th
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_dreamer.core.cells import RecurrentCell
from sb3_dreamer.core.functional import repeated, unroll
from sb3_dreamer.core.latents import Latent, Params
from sb3_dreamer.core.layers import MLP, NormStyle, init_weight, linear
from sb3_dreamer.core.state_space import Observed, StateSpaceModel, limit_action
from sb3_dreamer.core.types import LatentState

#: Devices on which :class:`StepWeights` pays off: on an H200 it makes an update 11 to 21% faster, on a CPU as fast as
#: before (``1m``) or up to 7% slower (PlaNet). See docs/notebook/speed.md
AT_ONCE_ON = {"cuda"}


class RSSM(StateSpaceModel):
    """``deter_t = cell(deter_{t-1}, stoch_{t-1}, action)``, ``prior = p(deter)``, ``post = q(deter, embed)``.

    :param cell: recurrent path
    :param latent: distribution of the stochastic path
    :param embed: width E of the observation embedding
    :param hidden: width of the hidden layers of prior and posterior; the posterior has one
    :param prior_layers: hidden layers of the prior (2023: 1, 2024: 2)
    :param style: norm, activation and initialization
    :param learned_start: learn the first deter, and start the latent at the mode of its prior (2023); else zeros
    """

    def __init__(
        self,
        cell: RecurrentCell,
        latent: Latent,
        *,
        embed: int,
        hidden: int,
        style: NormStyle,
        prior_layers: int = 1,
        learned_start: bool = True,
    ):
        super().__init__()
        deter = cell.deter_size
        self.cell = cell
        self.latent = latent
        self.prior_mlp = MLP(deter, (hidden,) * prior_layers, style=style)
        self.prior_out = linear(self.prior_mlp.out_size, latent.param_size, fan=style.fan)
        # The first layer over [deter, embed], kept as two so that embedding and bias leave the loop over time.
        self.post_deter = style.linear(deter, hidden)
        self.post_embed = linear(embed, hidden, bias=False)
        for layer in (self.post_deter, self.post_embed):
            init_weight(layer.weight, deter + embed, hidden, fan=style.fan)
        self.post_norm = style.make_norm_act(hidden)
        self.post_out = linear(hidden, latent.param_size, fan=style.fan)
        self.start = nn.Parameter(th.zeros(deter)) if learned_start else None
        self.feat_size = deter + latent.flat_size

    def initial(self, batch: int) -> LatentState:
        """See :meth:`StateSpaceModel.initial`."""
        weight = self.post_out.weight
        if self.start is None:
            deter = weight.new_zeros(batch, self.cell.deter_size)
            return LatentState(deter, weight.new_zeros(batch, *self.latent.shape))
        deter = th.tanh(self.start).unsqueeze(0)
        stoch = self.latent.mode(self.prior(deter))
        return LatentState(deter.expand(batch, -1), stoch.expand(batch, *self.latent.shape))

    def prior(self, deter: th.Tensor) -> Params:
        """Parameters of the prior, ``(..., D)`` to latent parameters."""
        return self.latent.params(self.prior_out(self.prior_mlp(deter)))

    def project_embed(self, embed: th.Tensor) -> th.Tensor:
        """The embedding's part of the posterior's first layer, bias included: ``(..., E)`` to ``(..., hidden)``."""
        return F.linear(embed, self.post_embed.weight, self.post_deter.bias)

    def _transition(
        self, deter: th.Tensor, stoch: th.Tensor, action: th.Tensor, embed_part: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        """The part of a filtering step that uses weights: the next deter, and the raw output for the posterior.

        :param deter: ``(N, D)``
        :param stoch: ``(N, S·K)``
        :param action: of :meth:`RecurrentCell.project_action`, ``(N, P)``
        :param embed_part: of :meth:`project_embed`, ``(N, hidden)``
        """
        deter = self.cell(deter, stoch, action)
        hidden = self.post_norm(th.addmm(embed_part, deter, self.post_deter.weight.T))
        return deter, self.post_out(hidden)

    def img_dist(self, state: LatentState, action: th.Tensor, *, mode: bool = False) -> tuple[LatentState, Params]:
        """See :meth:`StateSpaceModel.img_dist`."""
        deter = self.cell(state.deter, state.stoch.flatten(1), self.cell.project_action(limit_action(action)))
        prior = self.prior(deter)
        return self.draw(deter, prior, mode=mode), prior

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
        start = self.initial(embed.shape[0])
        action = self.cell.project_action(limit_action(prev_action).masked_fill(first, 0.0))
        deter = th.where(first, start.deter, state.deter)
        stoch = th.where(first, start.stoch.flatten(1), state.stoch.flatten(1))
        deter, out = self._transition(deter, stoch, action, self.project_embed(embed))
        return self.draw(deter, self.latent.params(out), mode=mode)

    def observe(
        self,
        embed: th.Tensor,
        prev_action: th.Tensor,
        is_first: th.Tensor,
        state: LatentState | None = None,
    ) -> Observed:
        """See :meth:`StateSpaceModel.observe`."""
        start = self.initial(len(embed))
        if state is None:
            state, is_first = start, th.cat([th.ones_like(is_first[:, :1]), is_first[:, 1:]], 1)
        first = is_first.unsqueeze(-1)
        actions = self.cell.project_action(limit_action(prev_action).masked_fill(first, 0.0))
        begins = first.to(start.deter.dtype)
        starts = () if self.start is None else tuple(begins * part.flatten(1).unsqueeze(1) for part in start)
        states, post = self._filter(state, (actions, self.project_embed(embed), 1.0 - begins, *starts))
        return Observed(states, post, self.prior(states.deter))

    def _filter(self, state: LatentState, rows: tuple[th.Tensor, ...]) -> tuple[LatentState, Params]:
        """The states and posteriors of all steps, from what :meth:`_filter_step` reads, ``(B, T, ...)``."""
        if rows[0].device.type not in AT_ONCE_ON:
            return self(state, rows)  # type: ignore[no-any-return]
        weights, shape = StepWeights(self, self._transition), rows[0].shape[:2]
        taps = weights.taps((*shape, self.cell.deter_size), (*shape, self.latent.param_size))
        states, post = th.func.functional_call(self, weights.constants(), (state, (*rows, *taps)))
        with th.no_grad():
            before = LatentState(*(th.cat([a.unsqueeze(1), b[:, :-1]], 1) for a, b in zip(state, states, strict=True)))
            action, embed_part, *begins = (part.flatten(0, 1) for part in rows)
            weights.rows = (*begin(before.flatten_time(), *begins), action, embed_part)
        return states, post

    def forward(self, state: LatentState, rows: tuple[th.Tensor, ...]) -> tuple[LatentState, Params]:
        """The loop of :meth:`observe`."""
        return unroll(self._filter_step, state, rows)  # type: ignore[no-any-return]

    @repeated
    def _filter_step(
        self, carry: LatentState, action: th.Tensor, embed_part: th.Tensor, keep: th.Tensor, *more: th.Tensor
    ) -> tuple[LatentState, tuple[LatentState, Params]]:
        """One step of :meth:`observe`; whatever does not depend on the state has been computed for all steps already.

        :param keep: see :func:`begin`
        :param more: the starts of :func:`begin`, if the start is learned, then the taps of :class:`StepWeights`, if any
        """
        count = 0 if self.start is None else 2
        starts, taps = more[:count], more[count:]
        deter, out = self._transition(*begin(carry, keep, *starts), action, embed_part)
        if taps:
            deter, out = deter + taps[0], out + taps[1]
        post = self.latent.params(out)
        now = self.draw(deter, post, mode=False)
        return now, (now, post)


def begin(state: LatentState, keep: th.Tensor, *starts: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Deter ``(N, D)`` and flat stoch ``(N, S·K)`` that a filtering step continues from.

    Where an episode begins, the state is multiplied by 0, whose gradient is cheaper than that of `where`, and a learned
    start is added.

    :param keep: ``(N, 1)``, 0 where an episode begins, else 1
    :param starts: learned deter and stoch where an episode begins, else 0; none without a learned start
    """
    deter, stoch = state.deter * keep, state.stoch.flatten(1) * keep
    return (deter + starts[0], stoch + starts[1]) if starts else (deter, stoch)


class StepWeights:
    """Weights that every step of a loop uses: constants in the loop, with gradients computed for all steps at once.

    Normally the backward pass computes a gradient of every weight in every step and adds them up. Here the loop sees
    constants, and zeros (:meth:`taps`) are added to the outputs of each step. Their gradients are those of the outputs,
    and one pass over the rows of all steps turns them into gradients of the weights. This saves about a third of the
    GPU kernels of an update.

    :param module: whose parameters are the weights
    :param step: what a step computes with them: a deterministic function from tensors ``(N, ...)`` to a tuple of
        tensors ``(N, ...)``, each row independent of the others
    :ivar rows: inputs of ``step`` in all steps, without graph; set after the loop
    """

    def __init__(self, module: nn.Module, step: Callable[..., tuple[th.Tensor, ...]]):
        self.module = module
        self.step = step
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.rows: tuple[th.Tensor, ...] = ()
        device = next(module.parameters()).device.type
        self.autocast = (device, th.get_autocast_dtype(device), th.is_autocast_enabled(device))

    def taps(self, *shapes: tuple[int, ...]) -> tuple[th.Tensor, ...]:
        """Zeros ``(B, T, ...)``, one tensor for each output of ``step``."""
        taps: tuple[th.Tensor, ...] = _Taps.apply(self, shapes, *self.parameters)
        return taps

    def constants(self) -> dict[str, th.Tensor]:
        """The weights by name, without graph.

        Under autocast, weights of products are cast here, once; autocast would cast constants again in every step.
        """
        _, dtype, mixed = self.autocast
        found = {}
        for prefix, module in self.module.named_modules():
            half = mixed and not isinstance(module, nn.LayerNorm | nn.RMSNorm)
            for name, value in module.named_parameters(prefix, recurse=False):
                found[name] = value.detach().to(dtype) if half else value.detach()
        return found


class _Taps(th.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: StepWeights, shapes: tuple[tuple[int, ...], ...], *parameters: th.Tensor
    ) -> tuple[th.Tensor, ...]:
        ctx.weights = weights
        return tuple(next(weights.module.parameters()).new_zeros(shape) for shape in shapes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: th.Tensor) -> tuple[th.Tensor | None, ...]:
        weights: StepWeights = ctx.weights
        with th.enable_grad(), th.autocast(*weights.autocast):
            outs = weights.step(*weights.rows)
        learned = [(o, g.flatten(0, 1).to(o.dtype)) for o, g in zip(outs, grads, strict=True) if o.requires_grad]
        return (
            None,
            None,
            *th.autograd.grad(
                [out for out, _ in learned], weights.parameters, [grad for _, grad in learned], allow_unused=True
            ),
        )
