"""A dense layer that knows which inputs are one-hot blocks, and looks their weights up instead of multiplying."""

from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

FEWEST_ROWS = 256  #: below, one product costs less than finding the ones
FEWEST_CLASSES = 8  #: below, adding K times fewer rows does not pay
CHUNK = 2048  #: rows that are worked on while they are in the cache


class OneHotBlocks(NamedTuple):
    """Where the one-hot blocks of an input lie: S blocks of K entries from ``start`` to the end of the last axis.

    :param start: inputs before the first block (deter)
    :param stoch: number of blocks S
    :param classes: entries of a block K
    """

    start: int
    stoch: int
    classes: int

    @property
    def end(self) -> int:
        """Width of the whole input."""
        return self.start + self.stoch * self.classes


class OneHotLinear(nn.Linear):
    """``nn.Linear`` for features whose last S·K entries are one-hot blocks (or zeros), as categorical latents are.

    On a CPU, S rows of weights are added in place of a product with S·K inputs, almost all of them zeros: about ten
    times faster for 32 × 32. Values, gradients (dense, so that straight-through gradients pass) and parameters are
    those of ``nn.Linear``. Elsewhere, and for few rows, it is the plain product.

    :param inputs: ``blocks.start + S·K``
    :param outputs: width of the output
    :param blocks: where the blocks lie; every value in them must be 0 or 1, with at most a single 1 in each block
    """

    columns: th.Tensor

    def __init__(self, inputs: int, outputs: int, *, blocks: OneHotBlocks, bias: bool = True):
        super().__init__(inputs, outputs, bias=bias)
        if inputs != blocks.end:
            raise ValueError(f"inputs={inputs} must be start + stoch * classes of {blocks}")
        self.blocks = blocks
        # A product with this matrix gives, for each block, 1 + the position of its one, or 0 for a block of zeros.
        positions = th.arange(1, blocks.classes + 1, dtype=th.float32).unsqueeze(1)
        self.register_buffer("columns", th.block_diag(*[positions] * blocks.stoch), persistent=False)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        if (
            x.device.type != "cpu"
            or x.dtype != th.float32
            or self.weight.dtype != th.float32
            or x.numel() < FEWEST_ROWS * self.in_features
            or self.blocks.classes < FEWEST_CLASSES
            or th.is_autocast_enabled("cpu")
        ):
            return super().forward(x)
        rows = x.flatten(0, -2)
        out: th.Tensor = _LookUp.apply(
            _Through.apply(rows, self.weight.detach(), (len(rows), self.out_features), False),
            _Through.apply(self.weight, rows.detach(), (len(rows), self.out_features), True),
            self.bias,
            rows.detach(),
            self.weight.detach(),
            self.columns,
            self.blocks,
        )
        shaped: th.Tensor = out.unflatten(0, x.shape[:-1])
        return shaped


# The two products of the backward pass are nodes of their own, so that autograd leaves out the one that nobody asks for
# (an actor's loss does not train the critic that it passes through). Their forward values are zeros without memory.


class _Through(th.autograd.Function):
    """Takes the output's gradient to one factor of the product: times the other one, transposed for the weight."""

    @staticmethod
    def forward(ctx: Any, wanted: th.Tensor, other: th.Tensor, shape: tuple[int, int], transposed: bool) -> th.Tensor:
        ctx.save_for_backward(other)
        ctx.transposed = transposed
        return wanted.new_zeros(()).expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        (other,) = ctx.saved_tensors
        return (grad.t() if ctx.transposed else grad) @ other, None, None, None


class _LookUp(th.autograd.Function):
    """``x W' + b`` with the one-hot part of x read as positions; the backward pass is that of the product."""

    @staticmethod
    def forward(
        ctx: Any,
        to_input: th.Tensor,
        to_weight: th.Tensor,
        bias: th.Tensor | None,
        x: th.Tensor,
        weight: th.Tensor,
        columns: th.Tensor,
        blocks: OneHotBlocks,
    ) -> th.Tensor:
        ctx.has_bias = bias is not None
        start, stoch, classes = blocks
        # One row more for each block, which a block of zeros finds.
        table = F.pad(weight[:, start:].t().unflatten(0, (stoch, classes)), (0, 0, 1, 0)).flatten(0, 1)
        offsets = th.arange(stoch) * (classes + 1)
        if bias is not None:
            table[: classes + 1] += bias  # into one block, which contributes exactly one row
        outs = []
        for rows in x.split(CHUNK):
            index = (rows[:, start:] @ columns).long() + offsets
            out = F.embedding_bag(index, table, mode="sum")
            outs.append(out.addmm_(rows[:, :start], weight[:, :start].t()) if start else out)
        return outs[0] if len(outs) == 1 else th.cat(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        return grad, grad, grad.sum(0) if ctx.has_bias else None, None, None, None, None
