"""Building blocks of the networks: initializers, norms and dense stacks."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch as th
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_dreamer.core.functional import repeated

NormKind = Literal["layer", "rms", "none"]
Activation = Callable[[th.Tensor], th.Tensor]

ACTIVATIONS: dict[str, Activation] = {"silu": F.silu, "elu": F.elu, "relu": F.relu, "tanh": th.tanh}


@th.no_grad()
def init_weight(weight: th.Tensor, fan_in: int, fan_out: int, *, scale: float = 1.0, fan: str = "avg") -> None:
    """Truncated normal with variance ``scale² / fan``; scale 0 gives zeros (DreamerV3, ``winit`` and ``outscale``).

    :param weight: filled in place
    :param fan_in: number of inputs of one output
    :param fan_out: number of outputs of one input
    :param scale: factor of the standard deviation
    :param fan: ``avg`` (2023 version) or ``in`` (2024 version)
    """
    if scale == 0.0:
        weight.zero_()
        return
    size = {"avg": (fan_in + fan_out) / 2, "in": fan_in}[fan]
    # 1.1368 restores the unit variance that cutting at two standard deviations takes away.
    nn.init.trunc_normal_(weight, 0.0, 1.0, -2.0, 2.0).mul_(1.1368 * scale / math.sqrt(size))


def linear(inputs: int, outputs: int, *, bias: bool = True, scale: float = 1.0, fan: str = "avg") -> nn.Linear:
    """A dense layer with the initialization of :func:`init_weight` and a zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    init_weight(layer.weight, layer.in_features, layer.out_features, scale=scale, fan=fan)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def identity(x: th.Tensor) -> th.Tensor:
    """Return the tensor itself."""
    return x


def make_norm(kind: NormKind, size: int, *, eps: float = 1e-3, act: Activation = identity) -> nn.Module:
    """LayerNorm (2023, eps 1e-3), RMSNorm (2024, eps 1e-4) or nothing, over the last axis, and then an activation."""
    if kind == "layer":
        return LayerNorm(size, eps, act)
    if kind == "rms":
        return RMSNorm(size, eps, act)
    if kind == "none":
        return NoNorm(act)
    raise ValueError(f"norm={kind!r} is unknown: use 'layer', 'rms' or 'none'")


def widen(x: th.Tensor) -> th.Tensor:
    """Half precision to float32; anything else as it is."""
    return x.float() if x.dtype in (th.bfloat16, th.float16) else x


class NoNorm(nn.Module):
    """The activation alone."""

    def __init__(self, act: Activation):
        super().__init__()
        self.act = act

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(..., size)`` to ``(..., size)``."""
        return self.act(x)


class LayerNorm(nn.LayerNorm):
    """Torch's in float32 at least: on a CPU autocast leaves it to bfloat16, which cannot add up its gradients."""

    def __init__(self, size: int, eps: float, act: Activation = identity):
        super().__init__(size, eps=eps)
        self.act = act

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(..., size)`` to ``(..., size)``."""
        return self.act(super().forward(widen(x)))


class RMSNorm(nn.RMSNorm):
    """``x / sqrt(mean(x²) + eps) · weight``; on a CPU with half the passes over memory that torch's own makes."""

    def __init__(self, size: int, eps: float, act: Activation = identity):
        super().__init__(size, eps=eps)
        self.act = act

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(..., size)`` to ``(..., size)``."""
        return activated_rms_norm(x, self.weight, self.eps, self.act)


@repeated  # RMSNorm only: compiled with its activation, LayerNorm is slower than torch's own
def activated_rms_norm(x: th.Tensor, weight: th.Tensor, eps: float | None, act: Activation) -> th.Tensor:
    """``act(rms_norm(x, weight, eps))``: one pass over memory where it is compiled."""
    return act(rms_norm(x, weight, eps))


def rms_norm(x: th.Tensor, weight: th.Tensor, eps: float | None) -> th.Tensor:
    """``x / sqrt(mean(x²) + eps) · weight`` over the last axis."""
    x = widen(x)
    if x.device.type != "cpu" or x.dtype != th.float32 or th.compiler.is_compiling():
        return F.rms_norm(x, x.shape[-1:], eps=eps) * weight
    if not th.is_grad_enabled():
        return _rms_norm(x, weight, eps)[0]
    out: th.Tensor = _RMSNorm.apply(x, weight, eps)
    return out


def _rms_norm(x: th.Tensor, weight: th.Tensor, eps: float | None) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """The result, and without the weight, and what it was scaled with."""
    norm = th.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = th.addcmul(_constant(eps or 0.0), norm, norm, value=1.0 / x.shape[-1]).rsqrt_()
    normed = x * scale
    return normed * weight, normed, scale


@functools.cache
def _constant(value: float) -> th.Tensor:
    return th.tensor(value)


class _RMSNorm(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: th.Tensor, weight: th.Tensor, eps: float | None) -> th.Tensor:
        out, normed, scale = _rms_norm(x, weight, eps)
        ctx.save_for_backward(normed, scale, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor, th.Tensor | None, None]:
        normed, scale, weight = ctx.saved_tensors
        product = grad * normed
        total = (product @ weight).unsqueeze(-1)
        for_x = (grad * weight).addcmul_(normed, total, value=-1.0 / normed.shape[-1]).mul_(scale)
        return for_x, product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None, None


class NormStyle(nn.Module):
    """Make layers with what the hidden layers of a network family have in common.

    :param norm: ``layer``, ``rms`` or ``none``
    :param act: name of the activation, one of ``ACTIVATIONS``
    :param eps: of the norm
    :param bias: whether the linear map before a norm keeps its bias (2024: yes, 2023: no). Always kept without norm.
    :param fan: see :func:`init_weight`
    """

    def __init__(
        self,
        *,
        norm: NormKind,
        act: str,
        eps: float = 1e-3,
        bias: bool = False,
        fan: str = "avg",
    ):
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"act={act!r} is unknown: use one of {', '.join(ACTIVATIONS)}")
        self.norm: NormKind = norm
        self.act = act
        self.eps = eps
        self.bias = bias or norm == "none"
        self.fan = fan

    def make_norm(self, size: int) -> nn.Module:
        """A norm over the last axis of ``size`` entries."""
        return make_norm(self.norm, size, eps=self.eps)

    def make_norm_act(self, size: int) -> nn.Module:
        """A norm over the last axis of ``size`` entries, and the activation."""
        return make_norm(self.norm, size, eps=self.eps, act=ACTIVATIONS[self.act])

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """The linear map of a hidden layer."""
        return linear(inputs, outputs, bias=self.bias, fan=self.fan)


class MLP(nn.Module):
    """Hidden layers, each linear map, norm and activation: ``(..., inputs)`` to ``(..., units)``.

    :param inputs: width of the input
    :param units: width of each layer, from first to last
    :param style: norm, activation and initialization
    """

    def __init__(self, inputs: int, units: tuple[int, ...], *, style: NormStyle):
        super().__init__()
        sizes = (inputs, *units)
        self.linears = nn.ModuleList(style.linear(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(style.make_norm_act(size) for size in units)
        self.out_size = sizes[-1]

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(..., inputs)`` to ``(..., units[-1])``."""
        for layer, norm in zip(self.linears, self.norms, strict=True):
            x = norm(layer(x))
        return x


class BlockLinear(nn.Module):
    """A linear map of independent blocks, as one batched product: ``(..., G·in)`` to ``(..., G·out)``.

    :param blocks: number of blocks G
    :param inputs: inputs of one block
    :param outputs: outputs of one block
    :param fan_in: fan to initialize with, if more inputs are added to the sum elsewhere; all G·in inputs by default,
        as the released code counts them, although an output sees those of its block only
    """

    def __init__(self, blocks: int, inputs: int, outputs: int, *, bias: bool = True, fan_in: int | None = None):
        super().__init__()
        self.weight = nn.Parameter(th.empty(blocks, inputs, outputs))
        self.bias = nn.Parameter(th.zeros(blocks, 1, outputs)) if bias else None
        init_weight(self.weight, fan_in or blocks * inputs, outputs, fan="in")

    def forward(self, x: th.Tensor) -> th.Tensor:
        """``(N, G·in)`` to ``(G, N, out)``; the block axis leads, as the batched product wants it."""
        grouped = self.group(x)
        if self.bias is None:
            return th.bmm(grouped, self.weight)
        return th.baddbmm(self.bias, grouped, self.weight)

    def group(self, x: th.Tensor) -> th.Tensor:
        """``(N, G·in)`` to ``(G, N, in)``, a view."""
        blocks, inputs, _ = self.weight.shape
        return x.view(-1, blocks, inputs).transpose(0, 1)


def ungroup(x: th.Tensor) -> th.Tensor:
    """``(G, N, k)`` to ``(N, G·k)``: the inverse of the grouping in :class:`BlockLinear`."""
    return x.transpose(0, 1).flatten(1)
