"""Actors: heads whose raw outputs are distributions over actions ``(..., A)``."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch as th
import torch.nn.functional as F

from sb3_dreamer.core.estimators import sample_one_hot
from sb3_dreamer.core.functional import (
    UNIT_NORMAL_ENTROPY,
    categorical_entropy,
    gaussian_log_prob,
    one_hot_argmax,
    unimix_logits,
)
from sb3_dreamer.core.heads import Head
from sb3_dreamer.core.layers import NormStyle


class ActionStats(NamedTuple):
    """Log-probability and entropy of a policy in the states of a rollout, each ``(...)``."""

    log_prob: th.Tensor
    entropy: th.Tensor


class ActionHead(Head):
    """An actor. Raw outputs ``(..., outputs)``, actions ``(..., A)``."""

    def sample(self, out: th.Tensor) -> th.Tensor:
        """An action, with a gradient where the distribution allows one."""
        raise NotImplementedError

    def mode(self, out: th.Tensor) -> th.Tensor:
        """The most likely action."""
        raise NotImplementedError

    def stats(self, out: th.Tensor, action: th.Tensor) -> ActionStats:
        """Log-probability of ``action`` and entropy."""
        raise NotImplementedError


class NormalHead(ActionHead):
    """An actor of bounded actions: the network gives mean and standard deviation of each entry.

    :param size: A
    """

    def __init__(self, inputs: int, units: tuple[int, ...], size: int, *, style: NormStyle, outscale: float = 1.0):
        super().__init__(inputs, units, 2 * size, style=style, outscale=outscale)

    def mean_std(self, out: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Mean and standard deviation of the normal distribution, ``(..., A)`` each, float32."""
        raise NotImplementedError

    def mode(self, out: th.Tensor) -> th.Tensor:
        """The mean of the normal distribution."""
        return self.mean_std(out)[0]


class BoundedNormalHead(NormalHead):
    """``Normal(tanh(mean), std)`` with ``std = (max - min) sigmoid(x + 2) + min``; samples may leave [-1, 1].

    DreamerV3 released code (``normal`` actor); the environment's bounds clip the action, and the clipped action is
    what replay stores.
    """

    min_std, max_std = 0.1, 1.0

    def mean_std(self, out: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See :class:`NormalHead`."""
        mean, std = out.float().chunk(2, -1)
        return th.tanh(mean), (self.max_std - self.min_std) * th.sigmoid(std + 2.0) + self.min_std

    def sample(self, out: th.Tensor) -> th.Tensor:
        """Reparameterized."""
        mean, std = self.mean_std(out)
        return mean + std * th.randn_like(std)

    def stats(self, out: th.Tensor, action: th.Tensor) -> ActionStats:
        """Log-density and differential entropy, summed over A."""
        mean, std = self.mean_std(out)
        log_prob = gaussian_log_prob(action, mean, std).sum(-1)
        return ActionStats(log_prob, (std.log() + UNIT_NORMAL_ENTROPY).sum(-1))


class TruncatedNormalHead(NormalHead):
    """``Normal(tanh(mean), std)`` cut to [-1, 1], with ``std = 2 sigmoid(x / 2) + min`` (DreamerV2, ``trunc_normal``).

    :param exact: samples have the exact pathwise gradient; False: that of an untruncated normal (1 with respect to the
        mean, the noise with respect to the standard deviation), as TensorFlow's sampler has it
    """

    min_std = 0.1

    def __init__(self, inputs: int, units: tuple[int, ...], size: int, *, style: NormStyle, exact: bool = True):
        super().__init__(inputs, units, size, style=style)
        self.exact = exact

    def mean_std(self, out: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See :class:`NormalHead`; before the cut."""
        mean, std = out.float().chunk(2, -1)
        return th.tanh(mean), 2.0 * th.sigmoid(std / 2.0) + self.min_std

    def sample(self, out: th.Tensor) -> th.Tensor:
        """Sample by inverting the distribution function, which has the exact pathwise gradient."""
        mean, std = self.mean_std(out)
        below, above = _normal_cdf((-1.0 - mean) / std), _normal_cdf((1.0 - mean) / std)
        share = below + (above - below) * th.rand_like(mean)
        # The ends keep erfinv finite; the last clamp takes away what float rounding adds beyond the bounds.
        noise = math.sqrt(2.0) * th.erfinv((2.0 * share - 1.0).clamp(-1.0 + 1e-6, 1.0 - 1e-6))
        sample = mean + std * (noise if self.exact else noise.detach())
        return sample + (sample.clamp(-1.0, 1.0) - sample).detach()

    def stats(self, out: th.Tensor, action: th.Tensor) -> ActionStats:
        """Log-density and differential entropy, summed over A."""
        mean, std = self.mean_std(out)
        low, high = (-1.0 - mean) / std, (1.0 - mean) / std
        mass = _normal_cdf(high) - _normal_cdf(low)
        log_prob = gaussian_log_prob(action, mean, std) - mass.log()
        edges = (low * _normal_pdf(low) - high * _normal_pdf(high)) / (2.0 * mass)
        entropy = (std * mass).log() + UNIT_NORMAL_ENTROPY + edges
        return ActionStats(log_prob.sum(-1), entropy.sum(-1))


class TanhNormalHead(NormalHead):
    """``tanh(Normal(5 tanh(mean / 5), std))`` with ``std = softplus(x + softplus⁻¹(5)) + 1e-4`` (Dreamer, Appendix A).

    The scale lets the mean saturate the action; the deviations, 5 of an untrained network and at least 1e-4, are the
    released code's.
    """

    mean_scale, min_std = 5.0, 1e-4
    raw_init_std = math.log(math.expm1(5.0))

    def mean_std(self, out: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See :class:`NormalHead`; before the tanh."""
        mean, std = out.float().chunk(2, -1)
        return self.mean_scale * th.tanh(mean / self.mean_scale), F.softplus(std + self.raw_init_std) + self.min_std

    def sample(self, out: th.Tensor) -> th.Tensor:
        """Sample with the reparameterization trick."""
        mean, std = self.mean_std(out)
        return th.tanh(mean + std * th.randn_like(std))

    def mode(self, out: th.Tensor) -> th.Tensor:
        """Return the tanh of the mean; the released code takes the most likely of 100 samples instead."""
        return th.tanh(self.mean_std(out)[0])

    def stats(self, out: th.Tensor, action: th.Tensor) -> ActionStats:
        """Log-density, and an estimate of the differential entropy from one sample, summed over A."""
        mean, std = self.mean_std(out)
        before = th.atanh(action.clamp(-1.0 + 1e-6, 1.0 - 1e-6))
        log_prob = gaussian_log_prob(before, mean, std) - _log_tanh_slope(before)
        entropy = std.log() + UNIT_NORMAL_ENTROPY + _log_tanh_slope(mean + std * th.randn_like(std))
        return ActionStats(log_prob.sum(-1), entropy.sum(-1))


class OneHotHead(ActionHead):
    """One categorical for each part of a discrete action; actions are the one-hot blocks side by side.

    :param sizes: number of choices of each part: one entry for Discrete, several for MultiDiscrete and MultiBinary
    :param unimix: share of the uniform distribution (DreamerV3: 0.01)
    :param estimator: draws one-hot samples from log-probabilities, with a gradient for dynamics gradients through
        discrete actions (DreamerV2: straight-through); None draws them without
    """

    def __init__(
        self,
        inputs: int,
        units: tuple[int, ...],
        sizes: tuple[int, ...],
        *,
        style: NormStyle,
        unimix: float = 0.01,
        outscale: float = 1.0,
        estimator: Callable[[th.Tensor], th.Tensor] | None = None,
    ):
        super().__init__(inputs, units, sum(sizes), style=style, outscale=outscale)
        self.sizes = sizes
        self.unimix = unimix
        self.estimator = estimator

    def parts(self, out: th.Tensor) -> list[th.Tensor]:
        """Normalized log-probabilities of each part."""
        return [unimix_logits(part, self.unimix) for part in out.split(self.sizes, -1)]

    def sample(self, out: th.Tensor) -> th.Tensor:
        """One-hot blocks, with the gradient of the estimator."""
        draw = self.estimator or (lambda part: sample_one_hot(part.exp()))
        return th.cat([draw(part) for part in self.parts(out)], -1)

    def mode(self, out: th.Tensor) -> th.Tensor:
        """One-hot blocks of the most likely choices."""
        return th.cat([one_hot_argmax(part) for part in out.split(self.sizes, -1)], -1)

    def stats(self, out: th.Tensor, action: th.Tensor) -> ActionStats:
        """Summed over the parts, which are independent given the state."""
        parts = self.parts(out)
        chosen = action.split(self.sizes, -1)
        log_prob = sum((part * one).sum(-1) for part, one in zip(parts, chosen, strict=True))
        entropy = sum(categorical_entropy(part) for part in parts)
        return ActionStats(th.as_tensor(log_prob), th.as_tensor(entropy))


def _normal_cdf(x: th.Tensor) -> th.Tensor:
    return 0.5 * (1.0 + th.erf(x / math.sqrt(2.0)))


def _normal_pdf(x: th.Tensor) -> th.Tensor:
    return th.exp(-0.5 * x.square()) / math.sqrt(2.0 * math.pi)


def _log_tanh_slope(x: th.Tensor) -> th.Tensor:
    """``ln(1 - tanh(x)²)``, finite for every x."""
    return 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))
