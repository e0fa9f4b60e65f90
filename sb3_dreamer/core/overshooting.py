"""Latent overshooting: the KL objective on priors that were rolled several steps without observations (PlaNet)."""

from dataclasses import dataclass

import torch as th

from sb3_dreamer.core.latents import Params
from sb3_dreamer.core.state_space import StateSpaceModel
from sb3_dreamer.core.types import LatentState


@dataclass(frozen=True)
class LatentOvershooting:
    """``1/D sum_{d=2..D} max(0, KL(sg(post_t) || prior_t rolled from t - d) - free)`` (PlaNet, Eq. 7).

    The prior of distance 1 belongs to the ordinary KL objective. Posteriors are cut from the graph where they are
    targets; the rolled states keep their graph, back to the posterior they start from. Rolls that would run over the
    first row of an episode count 0. (The released code averages over distances, padding included; the paper's 1/D is
    used here.)

    :param distance: D, at least 2
    :param scale: β of all distances above 1 (1.0)
    :param free: free nats of each distance (3.0)
    """

    distance: int
    scale: float = 1.0
    free: float = 3.0

    def __post_init__(self) -> None:
        if self.distance < 2:
            raise ValueError(f"distance={self.distance!r} must be at least 2: distance 1 is the KL objective itself")

    @property
    def scales(self) -> dict[str, float]:
        """Loss scales by name."""
        return {"overshoot": self.scale}

    def __call__(
        self, rssm: StateSpaceModel, state: LatentState, post: Params, prev_action: th.Tensor, is_first: th.Tensor
    ) -> dict[str, th.Tensor]:
        """Loss ``overshoot``, ``(B, T)``, at the row that is predicted.

        ::

            row      0    1    2    3          d = 1: state_t   -> prior_{t+1}   (no loss)
            state    s0   s1   s2   s3         d = 2: its sample -> prior_{t+2}  (loss at rows 2, 3)

        :param state: posterior samples, ``(B, T, ...)``
        :param post: posterior parameters, ``(B, T, ...)``
        :param prev_action: ``(B, T, A)``
        :param is_first: ``(B, T)`` bool
        """
        batch, length = is_first.shape
        target = rssm.latent.detach(post)
        total = prev_action.new_zeros(batch, length)
        inside = th.ones_like(is_first)
        for d in range(1, min(self.distance, length - 1) + 1):
            # Everything below is aligned with the rows d .. T-1 that are predicted.
            start = LatentState(*(part[:, :-1].flatten(0, 1) for part in state))
            rolled, prior = rssm.img_dist(start, prev_action[:, d:].flatten(0, 1))
            state = LatentState(*(part.unflatten(0, (batch, length - d)) for part in rolled))
            inside = inside[:, :-1] & ~is_first[:, d:]
            if d >= 2:
                kl = rssm.latent.kl(_rows(target, d), _unflatten(prior, batch))
                total[:, d:] += th.where(inside, (kl - self.free).clamp(min=0.0), 0.0)
        return {"overshoot": total / self.distance}


def _rows(params: Params, first: int) -> Params:
    """The rows from ``first`` on, of parameters ``(B, T, ...)``."""
    if isinstance(params, th.Tensor):
        return params[:, first:]
    return type(params)(*(part[:, first:] for part in params))


def _unflatten(params: Params, batch: int) -> Params:
    """``(B·T, ...)`` to ``(B, T, ...)``."""
    if isinstance(params, th.Tensor):
        return params.unflatten(0, (batch, -1))
    return type(params)(*(part.unflatten(0, (batch, -1)) for part in params))
