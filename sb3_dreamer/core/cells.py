"""Recurrent cells behind one signature: what turns (deter, stoch, action) into the next deter."""

import torch as th
import torch.nn.functional as F
from torch import nn

from sb3_dreamer.core.latents import Latent
from sb3_dreamer.core.layers import MLP, BlockLinear, NormStyle, init_weight, linear, ungroup


def gate(deter: th.Tensor, gates: th.Tensor) -> th.Tensor:
    """The GRU update of all Dreamers: candidate damped by reset inside the tanh, update gate biased to keep (-1).

    :param deter: ``(..., D)``, float32
    :param gates: reset, candidate and update, ``(..., 3·D)``; under autocast they may be bfloat16
    """
    # In the precision of the state; tanh of bfloat16 takes a CPU five times as long.
    reset, cand, update = gates.to(deter.dtype).chunk(3, -1)
    return th.lerp(deter, th.tanh(th.sigmoid(reset) * cand), th.sigmoid(update - 1.0))


class LayerNormGRUCell(nn.Module):
    """GRU with one linear map of ``[input, state]`` and one norm over all gates (DreamerV2 and DreamerV3 2023).

    :param inputs: width of the input
    :param deter: width of the state D
    :param style: its norm is applied to the 3·D gates
    """

    def __init__(self, inputs: int, deter: int, *, style: NormStyle):
        super().__init__()
        self.linear = linear(inputs + deter, 3 * deter, bias=style.bias, fan=style.fan)
        self.norm = style.make_norm(3 * deter)
        self.deter_size = deter

    def forward(self, x: th.Tensor, deter: th.Tensor) -> th.Tensor:
        """Input ``(N, inputs)`` and state ``(N, D)`` to the next state ``(N, D)``."""
        return gate(deter, self.norm(self.linear(th.cat([x, deter], -1))))


class GRUCell(nn.Module):
    """A plain GRU whose reset gate acts before the candidate's linear map (PlaNet; arXiv 1406.1078).

    As the released code's ``GRUBlockCell``: both gates start with bias 1, so the state is kept at first.

    :param inputs: width of the input
    :param deter: width of the state D
    :param style: its initialization is used; there is no norm
    """

    def __init__(self, inputs: int, deter: int, *, style: NormStyle):
        super().__init__()
        self.gates = linear(inputs + deter, 2 * deter, fan=style.fan)
        self.cand = linear(inputs + deter, deter, fan=style.fan)
        nn.init.ones_(self.gates.bias)
        self.deter_size = deter

    def forward(self, x: th.Tensor, deter: th.Tensor) -> th.Tensor:
        """Input ``(N, inputs)`` and state ``(N, D)`` to the next state ``(N, D)``."""
        # Under autocast products are bfloat16; the rest is computed in the precision of the state, as in `gate`.
        reset, keep = th.sigmoid(self.gates(th.cat([x, deter], -1)).to(deter.dtype)).chunk(2, -1)
        cand = th.tanh(self.cand(th.cat([x, reset * deter], -1)).to(deter.dtype))
        return th.lerp(cand, deter, keep)


class RecurrentCell(nn.Module):
    """The signature that all recurrent paths of the RSSM share.

    ``project_action`` sees all time steps at once, outside the loop; ``forward`` is one step inside it.
    """

    deter_size: int

    def project_action(self, action: th.Tensor) -> th.Tensor:
        """The part of the step that depends on the action alone: ``(..., A)`` to ``(..., P)``."""
        raise NotImplementedError

    def forward(self, deter: th.Tensor, stoch: th.Tensor, action: th.Tensor) -> th.Tensor:
        """State ``(N, D)``, flat latent ``(N, S·K)`` and projected action ``(N, P)`` to the next state ``(N, D)``."""
        raise NotImplementedError


class InputGRU(RecurrentCell):
    """One hidden layer over ``[stoch, action]``, then a GRU cell: PlaNet, DreamerV2 and DreamerV3 2023.

    :param cell: maps ``(x (N, hidden), deter (N, D))`` to the next deter; has ``deter_size``
    :param stoch: width S·K of the flat latent
    :param action: width A
    :param hidden: width of the hidden layer
    :param style: norm, activation and initialization of the hidden layer
    """

    def __init__(self, cell: LayerNormGRUCell | GRUCell, *, stoch: int, action: int, hidden: int, style: NormStyle):
        super().__init__()
        # One linear map of [stoch, action], kept as two so that action and bias leave the loop over time.
        self.stoch_in = style.linear(stoch, hidden)
        self.action_in = linear(action, hidden, bias=False)
        for layer in (self.stoch_in, self.action_in):
            init_weight(layer.weight, stoch + action, hidden, fan=style.fan)
        self.norm = style.make_norm_act(hidden)
        self.cell = cell
        self.deter_size = cell.deter_size

    def project_action(self, action: th.Tensor) -> th.Tensor:
        """The action's part of the input layer, bias included: ``(..., A)`` to ``(..., hidden)``."""
        return F.linear(action, self.action_in.weight, self.stoch_in.bias)

    def forward(self, deter: th.Tensor, stoch: th.Tensor, action: th.Tensor) -> th.Tensor:
        """See :class:`RecurrentCell`."""
        x = self.norm(th.addmm(action, stoch, self.stoch_in.weight.T))
        return self.cell(x, deter)  # type: ignore[no-any-return]


def layer_norm_gru(
    latent: Latent, *, action: int, hidden: int, deter: int, style: NormStyle, gru_style: NormStyle | None = None
) -> InputGRU:
    """The recurrent path of DreamerV2 and DreamerV3 2023: a :class:`LayerNormGRUCell` behind one hidden layer.

    :param latent: the stochastic path that the hidden layer reads
    :param action: width A
    :param hidden: width of the hidden layer
    :param deter: width D
    :param style: of the hidden layer
    :param gru_style: of the GRU; the same by default
    """
    cell = LayerNormGRUCell(hidden, deter, style=gru_style or style)
    return InputGRU(cell, stoch=latent.flat_size, action=action, hidden=hidden, style=style)


class BlockGRU(RecurrentCell):
    """The block-diagonal GRU of DreamerV3 2024 (``core`` of the RSSM in the released code).

    Each block sees its own slice of deter and the three projected inputs; the latter are the same for all blocks,
    so their share of the first layer is one dense product.

    :param deter: width D, a multiple of ``blocks``
    :param stoch: width S·K of the flat latent
    :param action: width A
    :param hidden: width of each input projection
    :param blocks: number of blocks G
    :param style: norm, activation and initialization
    """

    def __init__(
        self,
        *,
        deter: int,
        stoch: int,
        action: int,
        hidden: int,
        blocks: int,
        style: NormStyle,
    ):
        super().__init__()
        if deter % blocks:
            raise ValueError(f"deter={deter} is not a multiple of blocks={blocks}: change one of them")
        fan_in = deter + blocks * 3 * hidden  # the released code counts the inputs of all blocks
        self.deter_in = MLP(deter, (hidden,), style=style)
        self.stoch_in = MLP(stoch, (hidden,), style=style)
        self.action_in = MLP(action, (hidden,), style=style)
        self.shared_hidden = linear(3 * hidden, deter, bias=style.bias)
        init_weight(self.shared_hidden.weight, fan_in, deter // blocks, fan="in")
        self.block_hidden = BlockLinear(blocks, deter // blocks, deter // blocks, bias=False, fan_in=fan_in)
        self.norm = style.make_norm_act(deter)
        self.gates = BlockLinear(blocks, deter // blocks, 3 * deter // blocks)
        self.deter_size = deter
        self.blocks = blocks

    def project_action(self, action: th.Tensor) -> th.Tensor:
        """``(..., A)`` to ``(..., hidden)``."""
        return self.action_in(action)  # type: ignore[no-any-return]

    def forward(self, deter: th.Tensor, stoch: th.Tensor, action: th.Tensor) -> th.Tensor:
        """See :class:`RecurrentCell`."""
        shared = self.shared_hidden(th.cat([self.deter_in(deter), self.stoch_in(stoch), action], -1))
        # Sums and gates are computed on (G, N, D/G), as the products leave them; the first operand's layout, which is
        # that of (N, D), passes to the result, so that nothing is copied.
        hidden = self.norm(ungroup(self.group(shared) + self.block_hidden(deter)))
        return ungroup(gate(self.group(deter), self.gates(hidden)))

    def group(self, x: th.Tensor) -> th.Tensor:
        """``(N, D)`` to ``(G, N, D/G)``, a view."""
        return x.view(x.shape[0], self.blocks, -1).transpose(0, 1)
