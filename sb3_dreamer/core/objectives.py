"""KL objectives of the three papers as frozen callables: ``(latent, post, prior) -> losses by name``, each (B, T).

The keys of the losses are the keys of :attr:`scales`; the world model adds them to its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch as th

from sb3_dreamer.core.latents import Latent, Params


@dataclass(frozen=True)
class DynRepKL:
    """DreamerV3: dynamics and representation loss with free bits (Eq. 5).

    ``dyn max(free, KL(sg(post) || prior)) + rep max(free, KL(post || sg(prior)))``

    :param dyn: scale of the dynamics loss (2023: 0.5, 2024: 1.0)
    :param rep: scale of the representation loss (0.1)
    :param free: free bits, in nats per step, summed over the latents before the maximum is taken (1.0)
    """

    dyn: float = 0.5
    rep: float = 0.1
    free: float = 1.0

    @property
    def scales(self) -> dict[str, float]:
        """Loss scales by name."""
        return {"dyn": self.dyn, "rep": self.rep}

    def __call__(self, latent: Latent, post: Params, prior: Params) -> dict[str, th.Tensor]:
        """Losses ``dyn`` and ``rep``, each ``(B, T)``."""
        dyn = latent.kl(latent.detach(post), prior)
        rep = latent.kl(post, latent.detach(prior))
        return {"dyn": dyn.clamp(min=self.free), "rep": rep.clamp(min=self.free)}


@dataclass(frozen=True)
class BalancedKL:
    """DreamerV2: KL balancing (Algorithm 2), ``α KL(sg(post) || prior) + (1 - α) KL(post || sg(prior))``.

    :param scale: β (0.1 for Atari, 1.0 for control)
    :param balance: α (0.8)
    :param free: free nats (0 for Atari, 1.0 for control), of the mean over the batch, as in the released code
    :param mean: that mean; several processes that share a batch take it over all of them
    """

    scale: float = 0.1
    balance: float = 0.8
    free: float = 0.0
    mean: Callable[[th.Tensor], th.Tensor] = field(default=th.mean, compare=False)

    @property
    def scales(self) -> dict[str, float]:
        """Loss scales by name."""
        return {"kl": self.scale}

    def __call__(self, latent: Latent, post: Params, prior: Params) -> dict[str, th.Tensor]:
        """Loss ``kl``, ``(B, T)``."""
        towards_post = latent.kl(latent.detach(post), prior)
        towards_prior = latent.kl(post, latent.detach(prior))
        towards_post, towards_prior = (
            self.mean(x).clamp(min=self.free).expand_as(x) for x in (towards_post, towards_prior)
        )
        return {"kl": self.balance * towards_post + (1.0 - self.balance) * towards_prior}


@dataclass(frozen=True)
class FreeNatsKL:
    """PlaNet: ``max(0, KL(post || prior) - free)`` per step, gradients into both sides (Eq. 3).

    :param scale: factor of the loss (1.0)
    :param free: free nats (3.0)
    """

    scale: float = 1.0
    free: float = 3.0

    @property
    def scales(self) -> dict[str, float]:
        """Loss scales by name."""
        return {"kl": self.scale}

    def __call__(self, latent: Latent, post: Params, prior: Params) -> dict[str, th.Tensor]:
        """Loss ``kl``, ``(B, T)``."""
        return {"kl": (latent.kl(post, prior) - self.free).clamp(min=0.0)}
