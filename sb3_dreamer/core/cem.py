"""The cross-entropy method over action sequences (PlaNet, Algorithm 2), for any score: a model's or a simulator's.

Symbols: N environments, J candidates, K elites, H horizon, A action. All environments are planned for in one call.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch as th

from sb3_dreamer.core.functional import one_hot_argmax

Score = Callable[[th.Tensor], th.Tensor]  #: action sequences (N, J, H, A) to returns (N, J)
Deviation = Literal["std", "mad"]
Belief = tuple[th.Tensor, th.Tensor]  #: mean and standard deviation, (N, H, A) each
Generators = Sequence[th.Generator] | None  #: one for each environment; None: the global stream


def select_elites(actions: th.Tensor, returns: th.Tensor, elites: int) -> th.Tensor:
    """The candidates of highest return, ``(N, J, H, A)`` and ``(N, J)`` to ``(N, K, H, A)``; NaN is lowest."""
    best = returns.nan_to_num(nan=-th.inf).topk(elites, 1, sorted=False).indices
    return actions.gather(1, best[:, :, None, None].expand(-1, -1, *actions.shape[2:]))


def cem_normal(
    score: Score,
    belief: Belief,
    *,
    iterations: int,
    candidates: int,
    elites: int,
    deviation: Deviation = "std",
    generators: Generators = None,
) -> Belief:
    """CEM over sequences of actions in [-1, 1]: candidates are clipped, then the belief is refitted to the elites.

    PlaNet, Algorithm 2, and ``control/planning.py`` of its code.

    :param score: returns of candidates
    :param belief: normal to start from, mean and standard deviation ``(N, H, A)``
    :param deviation: ``std``: ``sqrt(variance + 1e-6)``, as released; ``mad``: mean absolute deviation, as printed
    :param generators: sources of the candidates' noise, one for each environment: the plan of one does not depend on
        the others
    :return: belief after the last refit
    """
    mean, std = belief
    for _ in range(iterations):
        noise = _noise(th.randn, candidates, mean, generators)
        actions = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1.0, 1.0)
        best = select_elites(actions, score(actions), elites)
        mean = best.mean(1)
        if deviation == "std":
            std = th.sqrt((best - mean.unsqueeze(1)).square().mean(1) + 1e-6)
        else:
            std = (best - mean.unsqueeze(1)).abs().sum(1) / max(1, elites - 1)
    return mean, std


def _noise(draw: Callable[..., th.Tensor], candidates: int, like: th.Tensor, generators: Generators) -> th.Tensor:
    """Random numbers for the candidates of a belief ``(N, H, A)``: ``(N, J, H, A)``."""
    shape = (candidates, *like.shape[1:])
    if generators is None:
        return draw((like.shape[0], *shape), device=like.device)
    return th.stack([draw(shape, generator=generator, device=like.device) for generator in generators])


def cem_categorical(
    score: Score,
    probs: th.Tensor,
    sizes: tuple[int, ...],
    *,
    iterations: int,
    candidates: int,
    elites: int,
    generators: Generators = None,
) -> th.Tensor:
    """CEM over sequences of discrete actions: the belief is one categorical for each step and part of the action.

    :param score: returns of candidates, one-hot blocks ``(N, J, H, A)``
    :param probs: belief to start from, ``(N, H, A)``, the blocks side by side
    :param sizes: number of choices of each part
    :param generators: see :func:`cem_normal`
    :return: shares of the choices among the last elites, ``(N, H, A)``
    """
    for _ in range(iterations):
        uniform = _noise(th.rand, candidates, probs, generators)
        gumbel = -th.log(-th.log(uniform.clamp(1e-20, 1.0 - 1e-7)))
        noisy = (probs.log().unsqueeze(1) + gumbel).split(sizes, -1)
        actions = th.cat([one_hot_argmax(part) for part in noisy], -1).to(probs.dtype)
        probs = select_elites(actions, score(actions), elites).mean(1)
    return probs
