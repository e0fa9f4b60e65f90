"""Gradients of weights that a loop over time uses at every step, computed from all steps at once.

Autograd alone would compute and add up one small gradient for each step, and read and write every weight as often: two
to four percent of an update on a CPU, and as many operations to start on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_dreamer.core.layers import BlockLinear, LayerNorm, RMSNorm, rms_norm, widen


@contextmanager
def weight_gradients_at_once(module: nn.Module, steps: int, rows: int) -> Iterator[None]:
    """Within it, layers of ``module`` run once for each time step, and get the gradient of their weights in one piece.

    Values are the same and gradients equal up to rounding. Layers that are not called meanwhile are left alone, and so
    are all if one is compiled: what a compiled graph holds cannot be replaced.

    :param module: its dense layers, block layers and norms take part
    :param steps: number of time steps T: no layer may be called more often
    :param rows: rows N of the input at each step, ``(N, in)``
    """
    changed = []
    compiled = any(getattr(part, "_compiled_call_impl", None) is not None for part in module.modules())
    if th.is_grad_enabled() and steps > 1 and not compiled and not th.compiler.is_compiling():
        for layer in module.modules():
            make = _STEPS.get(type(layer)) or (_LinearSteps if isinstance(layer, nn.Linear) else None)
            if make is not None:
                layer.forward = make(layer, steps, rows)  # an attribute of the object hides the class's method
                changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


class _Steps:
    """The forward pass of a layer that is called once for each time step."""

    def __init__(self, layer: Any, steps: int, rows: int):
        self.layer, self.steps, self.rows = layer, steps, rows
        self.left: list[Any] | None = None

    def next(self) -> Any:
        """The part of :meth:`spread` for the step whose turn it is."""
        if self.left is None:
            self.left = list(self.spread())[::-1]
        return self.left.pop()

    def spread(self) -> Any:
        """One thing for each step."""
        raise NotImplementedError

    def __call__(self, x: th.Tensor) -> th.Tensor:
        raise NotImplementedError


def _working_copy(weight: th.Tensor) -> th.Tensor:
    """The weight cut from the graph, in the dtype of autocast, which would else make a copy for each step."""
    kind = weight.device.type
    return weight.detach().to(th.get_autocast_dtype(kind) if th.is_autocast_enabled(kind) else weight.dtype)


class _LinearSteps(_Steps):
    """``x_t W' + b``: the sum starts at a tensor whose gradient, over all steps, gives those of W and b."""

    def spread(self) -> Any:
        self.inputs: list[th.Tensor] = []
        self.weight = _working_copy(self.layer.weight).t()
        shape = (self.steps, self.rows, self.layer.out_features)
        return _Sums.apply(self.layer.weight, self.layer.bias, self.inputs, shape).unbind()

    def __call__(self, x: th.Tensor) -> th.Tensor:
        start = self.next()
        self.inputs.append(x.detach())
        return th.addmm(start, x, self.weight)


class _Sums(th.autograd.Function):
    """The bias for each step and row, without memory of its own; backward, the gradients of weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, weight: th.Tensor, bias: th.Tensor | None, inputs: list[th.Tensor], shape: tuple[int, ...]
    ) -> th.Tensor:
        ctx.inputs, ctx.has_bias = inputs, bias is not None
        start = weight.new_zeros(()) if bias is None else bias.detach()
        return start.expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        rows = grad.flatten(0, 1)
        for_weight = rows.t() @ th.cat(ctx.inputs).to(grad.dtype)
        return for_weight, rows.sum(0) if ctx.has_bias else None, None, None


class _BlockSteps(_Steps):
    """The same for independent blocks, whose axis G comes first: ``(G, N, out)``."""

    def spread(self) -> Any:
        self.inputs: list[th.Tensor] = []
        blocks, _, outputs = self.layer.weight.shape
        shape = (self.steps, blocks, self.rows, outputs)
        self.weight = _working_copy(self.layer.weight)
        return _BlockSums.apply(self.layer.weight, self.layer.bias, self.inputs, shape).unbind()

    def __call__(self, x: th.Tensor) -> th.Tensor:
        start = self.next()
        grouped = self.layer.group(x)
        self.inputs.append(grouped.detach())
        return th.baddbmm(start, grouped, self.weight)


class _BlockSums(_Sums):
    """The same for block layers."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        rows = grad.transpose(0, 1).flatten(1, 2)  # (G, T·N, out)
        for_weight = th.cat(ctx.inputs, 1).to(grad.dtype).transpose(1, 2) @ rows
        return for_weight, rows.sum(1, keepdim=True) if ctx.has_bias else None, None, None


class _NormSteps(_Steps):
    """A norm whose scale (and offset) is spread over steps and rows, so that summing their gradients happens once."""

    def spread(self) -> Any:
        shape = (self.steps, self.rows, -1)
        parts = [p.expand(shape).unbind() for p in self.layer.parameters()]
        return zip(*parts, strict=True)


class _RMSNormSteps(_NormSteps):
    def __call__(self, x: th.Tensor) -> th.Tensor:
        (weight,) = self.next()
        return rms_norm(x, weight, self.layer.eps)


class _LayerNormSteps(_NormSteps):
    def __call__(self, x: th.Tensor) -> th.Tensor:
        weight, bias = self.next()
        return th.addcmul(bias, F.layer_norm(widen(x), self.layer.normalized_shape, eps=self.layer.eps), weight)


_STEPS: dict[type[nn.Module], type[_Steps]] = {
    BlockLinear: _BlockSteps,
    RMSNorm: _RMSNormSteps,
    LayerNorm: _LayerNormSteps,
}
