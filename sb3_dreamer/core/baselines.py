"""Score-function (REINFORCE) losses and their control variates: baseline, MuProp, DARN.

All are losses to *minimize* the expectation of a cost ``f(z)`` (for a return to maximize pass ``-return``). Their value
means nothing; their gradient estimates ``d/dtheta E[f(z)]`` through the distribution of z. The gradient of f with
respect to its own parameters is not part of them: add ``f.mean()``. The sample z comes from
:class:`~sb3_dreamer.core.estimators.ScoreFunction`.

Shapes: ``...`` batch, S variables with K classes each. A Bernoulli variable is ``K = 2``.
"""

import torch as th
from torch import Tensor

from sb3_dreamer.core.estimators import categorical_log_prob


def score_function_loss(log_prob: Tensor, f: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """Compute ``sg(f - b) * log p(z)`` (Williams 1992; Gumbel-Softmax paper, section 3.1).

    Unbiased for every baseline that does not depend on z.

    :param log_prob: log-probability of the sample, ``(...)``, with gradient to the logits.
    :param f: cost of the sample, ``(...)``; no gradient flows into it.
    :param baseline: b, a float or a tensor that broadcasts to ``f`` (default 0.0).
    :return: loss terms ``(...)``.
    :raises ValueError: if ``log_prob`` and ``f`` differ in shape, which would silently broadcast.
    """
    if log_prob.shape != f.shape:
        raise ValueError(
            f"log_prob {tuple(log_prob.shape)} and f {tuple(f.shape)} must have one shape: sum log_prob over the "
            "variables of one sample, or expand f"
        )
    return (f - baseline).detach() * log_prob


def taylor_baseline(f: Tensor, f_grad: Tensor, origin: Tensor, point: Tensor) -> Tensor:
    """Compute the first-order Taylor expansion ``f(origin) + f'(origin) . (point - origin)`` over the last axis.

    :param f: cost at the origin, ``(...)``.
    :param f_grad: gradient of f at the origin, ``(..., D)``.
    :param origin: point of expansion, ``(..., D)``.
    :param point: where the expansion is evaluated, ``(..., D)``.
    :return: approximation of ``f(point)``, ``(...)``, without gradient.
    """
    return (f + (f_grad * (point - origin)).sum(-1)).detach()


def muprop_loss(
    logits: Tensor,
    sample: Tensor,
    f: Tensor,
    mean_f: Tensor,
    mean_f_grad: Tensor,
    *,
    mean: Tensor | None = None,
    baseline: Tensor | float = 0.0,
) -> Tensor:
    """Compute the MuProp loss of one stochastic layer (Gu et al. 2016, section 3).

    The baseline is the Taylor expansion of f around the mean-field point ``z_mean``; its expectation is put back
    through the mean of z, so that the gradient stays unbiased:
    ``sg(f(z) - f(z_mean) - f'(z_mean) (z - z_mean) - b) * log p(z) + sg(f'(z_mean)) . softmax(logits)``.
    With several layers each has its own term, ``mean`` and ``mean_f_grad`` come from one mean-field pass from the
    inputs, and ``logits`` from the sampled pass with the lower sample held constant.

    :param logits: logits of the sampled pass, ``(..., S, K)``, with gradient.
    :param sample: the one-hot sample z, ``(..., S, K)``.
    :param f: cost of the sample, ``(...)``.
    :param mean_f: cost of the mean-field pass, ``(...)``.
    :param mean_f_grad: its gradient with respect to this layer's mean, ``(..., S, K)``.
    :param mean: mean-field point ``(..., S, K)``; default the probabilities, as in a first layer.
    :param baseline: further baseline b (default 0.0), such as a running mean of the residual.
    :return: loss terms ``(...)``.
    :raises ValueError: if ``logits`` is not ``f.shape + (S, K)``.
    """
    if logits.ndim != f.ndim + 2 or logits.shape[:-2] != f.shape:
        raise ValueError(f"logits {tuple(logits.shape)} must be f's shape {tuple(f.shape)} followed by (S, K)")
    probs = logits.softmax(-1)
    origin = probs.detach() if mean is None else mean
    expansion = taylor_baseline(mean_f, mean_f_grad.flatten(-2), origin.flatten(-2), sample.flatten(-2))
    log_prob = categorical_log_prob(logits, sample).sum(-1)
    correction = (mean_f_grad.detach() * probs).flatten(-2).sum(-1)
    return score_function_loss(log_prob, f, expansion + baseline) + correction


def darn_loss(logits: Tensor, sample: Tensor, f_grad: Tensor) -> Tensor:
    """Compute the DARN loss (Gregor et al. 2014, section 3.2; the 1/2-estimator in Gu et al. 2016, section 4).

    Each variable's baseline is f extrapolated from the sample to the center of its simplex, ``c = 1/K`` (1/2 for a
    Bernoulli variable): ``b = f(z) + f'(z) (c - z)``. f cancels and ``sg(f'(z) (z - c)) * log p(z)`` remains. The
    baseline depends on z and is not corrected: the gradient is exact for a Bernoulli variable in which f is quadratic
    and for any K in which f is linear, else biased. The papers define it for Bernoulli variables; the center 1/K for
    ``K > 2`` is this project's extension.

    :param logits: ``(..., S, K)``, with gradient.
    :param sample: the one-hot sample z, ``(..., S, K)``.
    :param f_grad: gradient of the cost at the sample, ``(..., S, K)``.
    :return: loss terms of every variable, ``(..., S)``.
    """
    center = th.full_like(sample, 1.0 / sample.shape[-1])
    zero = th.zeros_like(sample[..., 0])  # f itself cancels between the signal and the baseline
    return score_function_loss(
        categorical_log_prob(logits, sample), zero, taylor_baseline(zero, f_grad, sample, center)
    )
