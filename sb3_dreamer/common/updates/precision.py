"""Mixed precision: the forward pass and the losses of an update with bfloat16 products."""

import functools
from contextlib import AbstractContextManager, nullcontext

import torch as th

AMPERE = (8, 0)  #: compute capability from which NVIDIA's GPUs multiply bfloat16 in hardware


def check_mixed_precision(device: th.device) -> None:
    """Refuse a device that has no products of bfloat16.

    :param device: of the model
    :raises ValueError: saying what to write instead
    """
    if device.type == "cuda":
        found = th.cuda.get_device_capability(device)
        if found >= AMPERE:
            return
        why = f"{th.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}, which is below 8.0"
    elif device.type == "cpu":
        return
    else:
        why = f"device={str(device)!r} is neither cuda nor cpu"
    raise ValueError(f"mixed_precision=True needs products of bfloat16, and {why}: write mixed_precision=False")


def update_precision(device: th.device, mixed: bool) -> AbstractContextManager[object]:
    """Context that an update runs in: autocast to bfloat16, or nothing.

    Parameters, optimizers, latent states, log-probabilities, KL, two-hot losses and returns are float32 in either.
    :class:`sb3_dreamer.core.optim.OptimizerGroup` leaves autocast for the backward pass and its step.

    :param device: of the model
    :param mixed: whether to
    """
    if not mixed:
        return nullcontext()
    return th.autocast(device.type, dtype=th.bfloat16, cache_enabled=_cached_weights_learn())


@functools.cache
def _cached_weights_learn() -> bool:
    """Whether a weight that was first used without gradients gets one later; in torch 2.6 it does not.

    Autocast keeps bfloat16 copies of weights. Those made in a dream without gradients served the losses as well
    (pytorch/pytorch#158232).
    """
    weight = th.ones(1, 1, requires_grad=True)
    with th.autocast("cpu", dtype=th.bfloat16):
        with th.no_grad():
            weight @ weight
        return (weight @ weight).requires_grad
