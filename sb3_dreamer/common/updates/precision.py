"""Mixed precision: the forward pass and the losses of an update with bfloat16 products."""

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
    return th.autocast(device.type, dtype=th.bfloat16) if mixed else nullcontext()
