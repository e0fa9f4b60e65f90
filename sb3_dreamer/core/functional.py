"""The equations of the papers as pure functions of plain tensors, and the loop over time with its steps."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch as th
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

Carry = TypeVar("Carry")
P = ParamSpec("P")
T = TypeVar("T")
Runner = Callable[..., Any]  #: called as ``runner(step, *args, **kwargs)``, returns what the step would
UNIT_NORMAL_ENTROPY = 0.5 * math.log(2.0 * math.pi * math.e)  #: in nats, of each entry
FEW_CLASSES = 4  #: see :func:`softmax`


def one_hot(index: th.Tensor, classes: int) -> th.Tensor:
    """``F.one_hot(index, classes)`` in float32, without its look at the values, for which a CPU leaves the graph."""
    return (index.unsqueeze(-1) == th.arange(classes, device=index.device)).float()


def one_hot_argmax(scores: th.Tensor) -> th.Tensor:
    """One-hot vector of the largest entry, ``(..., K)`` float32; no gradient."""
    return one_hot(scores.argmax(-1), scores.shape[-1])


def symlog(x: th.Tensor) -> th.Tensor:
    """``sign(x) ln(|x| + 1)``: compresses large magnitudes of either sign (DreamerV3, Eq. 2)."""
    return th.sign(x) * th.log1p(x.abs())


def symexp(x: th.Tensor) -> th.Tensor:
    """``sign(x) (exp(|x|) - 1)``, the inverse of :func:`symlog` (DreamerV3, Eq. 2)."""
    return th.sign(x) * th.expm1(x.abs())


def symlog_bins(n: int = 255, limit: float = 20.0) -> th.Tensor:
    """Evenly spaced bins in symlog space, ``(n,)`` (DreamerV3 2023, Eq. 8 to 10: -20 .. +20); n is odd."""
    half = th.linspace(-limit, 0, (n + 1) // 2)  # mirrored, so that uniform probabilities give exactly 0
    return th.cat([half, -half[:-1].flip(0)])


def symexp_bins(n: int = 255) -> th.Tensor:
    """Bins evenly spaced in symlog space but used in real space, exactly antisymmetric, ``(n,)`` (DreamerV3 2024)."""
    return symexp(symlog_bins(n))


def two_hot_loss(logits: th.Tensor, target: th.Tensor, bins: th.Tensor) -> th.Tensor:
    """Cross-entropy with the two-hot encoding of a target (DreamerV3, Eq. 8 to 10), without building the encoding.

    :param logits: of the bins, normalized or not, ``(..., K)``
    :param target: in the space of the bins, ``(...)``, or ``(..., M)`` for the sum of the losses of M targets; beyond
        the outer bins it counts as the outer bin. It gets no gradient
    :param bins: ascending positions, ``(K,)``
    :return: ``(...)``, float32
    """
    targets = (target if target.ndim == logits.ndim else target.unsqueeze(-1)).detach().contiguous()
    targets = targets.clamp(bins[0], bins[-1])
    upper = th.searchsorted(bins, targets).clamp(1, len(bins) - 1)
    lower = upper - 1
    weight = (targets - bins[lower]) / (bins[upper] - bins[lower])
    loss: th.Tensor = _SparseCrossEntropy.apply(
        logits.float(), th.cat([lower, upper], -1), th.cat([1.0 - weight, weight], -1)
    )
    return loss


class _SparseCrossEntropy(th.autograd.Function):
    """``-sum_j weight_j log softmax(logits)[index_j]``: the backward pass writes ``(..., K)`` once."""

    @staticmethod
    def forward(ctx: Any, logits: th.Tensor, index: th.Tensor, weight: th.Tensor) -> th.Tensor:
        logs = F.log_softmax(logits, -1)
        ctx.save_for_backward(logs, index, weight)
        return -(logs.gather(-1, index) * weight).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor, None, None]:
        logs, index, weight = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        result = logs.exp().mul_(weight.sum(-1, keepdim=True) * grad)
        return result.scatter_add_(-1, index, weight * -grad), None, None


def symmetric_mean(probs: th.Tensor, bins: th.Tensor) -> th.Tensor:
    """Mean of a distribution over antisymmetric bins, added from the middle outwards.

    The order makes uniform probabilities give exactly 0, although the outer bins reach e^20 (DreamerV3 2024 code).

    :param probs: ``(..., K)`` with K odd
    :param bins: ``(K,)``, with 0 in the middle
    :return: ``(...)``
    """
    middle = (len(bins) - 1) // 2
    # The bin below zero is minus the one above it: only the difference of their probabilities counts.
    # A sum instead of a matrix product: autocast leaves it in float32, and a compiler fuses it with the rest.
    return ((probs[..., middle + 1 :] - probs[..., :middle].flip(-1)) * bins[middle + 1 :]).sum(-1)


def softmax(logits: th.Tensor) -> th.Tensor:
    """``F.softmax(logits, -1)``, which a CPU computes two to four times faster in this way for up to four classes."""
    if logits.shape[-1] > FEW_CLASSES or logits.device.type != "cpu":
        return F.softmax(logits, -1)
    weights = (logits - logits.amax(-1, keepdim=True).detach()).exp()
    return weights / weights.sum(-1, keepdim=True)


def unimix_logits(logits: th.Tensor, mix: float) -> th.Tensor:
    """Normalized log-probabilities of ``(1 - mix) softmax(logits) + mix / K`` (DreamerV3, Section "World Model").

    :param logits: ``(..., K)``
    :param mix: share of the uniform distribution; 0 leaves the distribution as it is
    """
    if mix == 0.0:
        return F.log_softmax(logits.float(), -1)
    probs = softmax(logits.float())
    return th.log(th.add(probs.new_full((), mix / logits.shape[-1]), probs, alpha=1.0 - mix))


def categorical_kl(log_p: th.Tensor, log_q: th.Tensor) -> th.Tensor:
    """``KL(p || q)`` of independent categoricals, summed over them: ``(..., S, K)`` log-probabilities to ``(...)``."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def categorical_entropy(log_p: th.Tensor) -> th.Tensor:
    """Entropy of each categorical: ``(..., K)`` log-probabilities to ``(...)``."""
    return -(log_p.exp() * log_p).sum(-1)


def gaussian_kl(mean_p: th.Tensor, std_p: th.Tensor, mean_q: th.Tensor, std_q: th.Tensor) -> th.Tensor:
    """``KL(p || q)`` of diagonal Gaussians, summed over the last axis: ``(..., S)`` to ``(...)``."""
    variance_ratio = (std_p / std_q).square()
    distance = ((mean_p - mean_q) / std_q).square()
    return 0.5 * (variance_ratio + distance - 1.0 - variance_ratio.log()).sum(-1)


def lambda_return(
    reward: th.Tensor, next_value: th.Tensor, discount: th.Tensor, lambda_: float | th.Tensor
) -> th.Tensor:
    """λ-returns ``R_t = r_t + d_t ((1 - λ) v_{t+1} + λ R_{t+1})`` with ``R_T = v_T``.

    DreamerV2 Eq. 4, DreamerV3 Eq. 7::

        reward      r_1  r_2 ... r_T     received on arrival in s_1 .. s_T
        next_value  v_1  v_2 ... v_T     values of those states
        discount    d_1  d_2 ... d_T     continue flag of those states times gamma
        result      R_0  R_1 ... R_{T-1} returns of the states before

    :param reward: ``(N, T)``
    :param next_value: ``(N, T)``
    :param discount: ``(N, T)``
    :param lambda_: number, or ``(N, T)`` where a step must not look past its successor (0 at the end of an episode)
    :return: ``(N, T)``
    """
    weight = (lambda_ if isinstance(lambda_, th.Tensor) else reward.new_full((), lambda_)).expand_as(reward)
    without_tail = reward + discount * (1 - weight) * next_value
    tail_weight = discount * weight

    def step(later: th.Tensor, now: th.Tensor, keep: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        value = th.addcmul(now, keep, later)
        return value, value

    returns: th.Tensor = unroll(step, next_value[:, -1], (without_tail, tail_weight), reverse=True)
    return returns


def replay_lambda_return(
    reward: th.Tensor, value: th.Tensor, is_last: th.Tensor, is_terminal: th.Tensor, gamma: float, lambda_: float
) -> th.Tensor:
    """λ-returns along replayed rows: step t uses reward, end flags and value of t + 1 (DreamerV3 2024).

    A truncated row (``is_last`` without ``is_terminal``) still bootstraps from its value, but the return does not
    run on into the next episode.

    :param reward: ``(B, T)``; so are ``value``, ``is_last`` and ``is_terminal``
    :return: ``(B, T-1)``
    """
    live = (1.0 - is_terminal[:, 1:].float()) * gamma
    run_on = (1.0 - is_last[:, 1:].float()) * lambda_
    return lambda_return(reward[:, 1:], value[:, 1:], live, run_on)


def only(loss: th.Tensor, parameters: Iterable[th.Tensor]) -> th.Tensor:
    """A loss of the same value whose gradient reaches these parameters alone.

    :param loss: 0-d; its graph is kept
    :param parameters: leaves
    """
    found = list(parameters)
    grads = th.autograd.grad(loss, found, retain_graph=True, allow_unused=True)
    pairs = [(leaf, grad) for leaf, grad in zip(found, grads, strict=True) if grad is not None]
    return loss.detach() + th.stack([((leaf - leaf.detach()) * grad).sum() for leaf, grad in pairs]).sum()


def discount_weights(cont: th.Tensor, gamma: float) -> th.Tensor:
    """Probability that a dreamed step is still part of the episode, ``prod_{i<=t} γ c_i / γ``: 1 at a live start.

    :param cont: continue flags c_0 .. c_H, ``(N, H+1)``
    :return: ``(N, H+1)``, cut from the graph
    """
    return (th.cumprod(cont * gamma, 1) / gamma).detach()


def gaussian_log_prob(x: th.Tensor, mean: th.Tensor, std: th.Tensor | float) -> th.Tensor:
    """Log-density of independent normals, entry by entry."""
    std = std if isinstance(std, th.Tensor) else mean.new_full((), std)  # as_tensor would make the host wait
    return -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * math.log(2.0 * math.pi)


def unroll(
    step: Callable[..., tuple[Carry, Any]],
    carry: Carry,
    inputs: Sequence[th.Tensor],
    *,
    length: int | None = None,
    reverse: bool = False,
) -> Any:
    """Run a loop over time, the only one: ``carry, out = step(carry, *inputs_t)``, with the outputs stacked on axis 1.

    :param step: function of one time step
    :param carry: state before the first step
    :param inputs: tensors ``(B, T, ...)``, one slice of each is passed to ``step``
    :param length: number of steps when there are no inputs
    :param reverse: run from the last step to the first; the result is in the order of time all the same
    :return: like ``out``, a tensor or a (named) tuple of tensors, nested at will, with ``(B, T, ...)``
    """
    steps = list(zip(*(x.unbind(1) for x in inputs), strict=True)) if inputs else [()] * (length or 0)
    outs = []
    for arguments in reversed(steps) if reverse else steps:
        carry, out = step(carry, *arguments)
        outs.append(out)
    return _stack(outs[::-1] if reverse else outs)


def _stack(outs: list[Any]) -> Any:
    """Stack a list of equal (nested) tuples of tensors on axis 1."""
    if isinstance(outs[0], th.Tensor):
        return th.stack(outs, 1)
    parts = [_stack(list(column)) for column in zip(*outs, strict=True)]
    return type(outs[0])(*parts) if hasattr(outs[0], "_fields") else tuple(parts)


_runner: Runner | None = None


def repeated(step: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that an update calls many times: a step of a loop over time, or a part of many layers.

    :func:`run_steps_by` replaces how it is run, for example by its compiled form, of which it is a part if another
    marked function calls it.
    """

    @functools.wraps(step)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if th.compiler.is_compiling() or _runner is None:
            return step(*args, **kwargs)
        result: T = _runner(step, *args, **kwargs)
        return result

    return call


@contextmanager
def run_steps_by(runner: Runner | None) -> Iterator[None]:
    """Run all steps that are marked :func:`repeated` through ``runner``; None: call them directly."""
    global _runner  # noqa: PLW0603
    before, _runner = _runner, runner
    try:
        yield
    finally:
        _runner = before
