"""Latent distributions as parameter-free strategies: an RSSM gets one and never asks which it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch as th
import torch.nn.functional as F

from sb3_dreamer.core.estimators import StraightThrough
from sb3_dreamer.core.functional import (
    UNIT_NORMAL_ENTROPY,
    categorical_entropy,
    categorical_kl,
    gaussian_kl,
    one_hot_argmax,
    unimix_logits,
)

Params = Any  #: a tensor or a tuple of tensors; only the latent that made them looks inside


class Latent(Protocol):
    """Methods that an RSSM calls on a latent distribution.

    ``params`` are a tensor or a tuple of tensors whose leading axes are batch axes.
    """

    @property
    def param_size(self) -> int:
        """Width of the network output that :meth:`params` reads."""
        ...

    @property
    def flat_size(self) -> int:
        """Width of a flattened sample."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        ...

    def params(self, out: th.Tensor) -> Params:
        """Distribution parameters from a network output ``(..., param_size)``."""
        ...

    def sample(self, params: Params) -> th.Tensor:
        """A sample with the gradient of the latent's estimator, ``(..., *shape)``."""
        ...

    def mode(self, params: Params) -> th.Tensor:
        """The most likely value, ``(..., *shape)``."""
        ...

    def kl(self, left: Params, right: Params) -> th.Tensor:
        """``KL(left || right)``, summed over the latent variables, ``(...)``."""
        ...

    def entropy(self, params: Params) -> th.Tensor:
        """Summed over the latent variables, ``(...)``."""
        ...

    def detach(self, params: Params) -> Params:
        """The same parameters, cut from the graph."""
        ...


@dataclass(frozen=True)
class CategoricalLatent:
    """S independent categoricals of K classes (DreamerV2, DreamerV3). Parameters: log-probabilities ``(..., S, K)``.

    :param stoch: number of variables S
    :param classes: number of classes K
    :param unimix: share of the uniform distribution (DreamerV3: 0.01, DreamerV2: 0)
    :param estimator: draws one-hot samples with a gradient (see :mod:`sb3_dreamer.core.estimators`)
    """

    stoch: int
    classes: int
    unimix: float = 0.01
    estimator: Callable[[th.Tensor], th.Tensor] = field(default_factory=lambda: StraightThrough(normalized=True))

    @property
    def param_size(self) -> int:
        """S·K."""
        return self.stoch * self.classes

    @property
    def flat_size(self) -> int:
        """S·K."""
        return self.stoch * self.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """``(S, K)``."""
        return (self.stoch, self.classes)

    def params(self, out: th.Tensor) -> th.Tensor:
        """``(..., S·K)`` to normalized log-probabilities ``(..., S, K)``, in float32."""
        return unimix_logits(out.unflatten(-1, self.shape), self.unimix)

    def sample(self, params: th.Tensor) -> th.Tensor:
        """One-hot ``(..., S, K)``."""
        return self.estimator(params)

    def mode(self, params: th.Tensor) -> th.Tensor:
        """One-hot ``(..., S, K)``, without gradient."""
        return one_hot_argmax(params).to(params.dtype)

    def kl(self, left: th.Tensor, right: th.Tensor) -> th.Tensor:
        """See :class:`Latent`."""
        return categorical_kl(left, right)

    def entropy(self, params: th.Tensor) -> th.Tensor:
        """See :class:`Latent`."""
        return categorical_entropy(params).sum(-1)

    def detach(self, params: th.Tensor) -> th.Tensor:
        """See :class:`Latent`."""
        return params.detach()


class GaussianParams(NamedTuple):
    """Mean and standard deviation, ``(..., S)`` each."""

    mean: th.Tensor
    std: th.Tensor


@dataclass(frozen=True)
class GaussianLatent:
    """Diagonal Gaussian of S variables (PlaNet; an ablation of DreamerV2). Parameters: :class:`GaussianParams`.

    :param stoch: number of variables S
    :param min_std: added to the standard deviation (0.1)
    :param sampled: False takes the mean in place of a sample: PlaNet's deterministic model (``mean_only``)
    :param std_act: of the network output: ``softplus`` (PlaNet) or ``sigmoid2``, ``2 sigmoid(x / 2)`` (DreamerV2)
    """

    stoch: int
    min_std: float = 0.1
    sampled: bool = True
    std_act: Literal["softplus", "sigmoid2"] = "softplus"

    @property
    def param_size(self) -> int:
        """2·S."""
        return 2 * self.stoch

    @property
    def flat_size(self) -> int:
        """S."""
        return self.stoch

    @property
    def shape(self) -> tuple[int, ...]:
        """``(S,)``."""
        return (self.stoch,)

    def params(self, out: th.Tensor) -> GaussianParams:
        """``(..., 2·S)`` to mean and standard deviation, in float32."""
        mean, std = out.float().chunk(2, -1)
        # On a CPU, softplus of rows that are apart in memory takes 15 times as long as with a copy.
        positive = F.softplus(std.contiguous()) if self.std_act == "softplus" else 2.0 * th.sigmoid(std / 2.0)
        return GaussianParams(mean, positive + self.min_std)

    def sample(self, params: GaussianParams) -> th.Tensor:
        """Reparameterized, ``(..., S)``."""
        if not self.sampled:
            return params.mean
        return params.mean + params.std * th.randn_like(params.std)

    def mode(self, params: GaussianParams) -> th.Tensor:
        """The mean."""
        return params.mean

    def kl(self, left: GaussianParams, right: GaussianParams) -> th.Tensor:
        """See :class:`Latent`."""
        return gaussian_kl(*left, *right)

    def entropy(self, params: GaussianParams) -> th.Tensor:
        """See :class:`Latent`."""
        return (params.std.log() + UNIT_NORMAL_ENTROPY).sum(-1)

    def detach(self, params: GaussianParams) -> GaussianParams:
        """See :class:`Latent`."""
        return GaussianParams(params.mean.detach(), params.std.detach())
