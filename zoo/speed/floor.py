"""The least time that an update can take on a machine: counted work over measured speed."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch as th
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

MATRIX_SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
COPY_MIB = {"cpu": 128, "cuda": 1024}  # beyond the caches
ROUND_SECONDS = 0.25  # spent on each size at least


class _MatrixDtypes(TorchDispatchMode):
    """Notes the dtypes of all operations that :class:`FlopCounterMode` counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in flop_registry:
            self.seen |= {str(arg.dtype).removeprefix("torch.") for arg in args if isinstance(arg, th.Tensor)}
        return func(*args, **(kwargs or {}))


class _NoModules(AbstractContextManager[None]):
    """Stands in for the counter's hooks on modules: totals are enough, and the hooks stumble over cut graphs."""

    parents = frozenset({"Global"})

    def __exit__(self, *error: Any) -> None:
        return None


def count_flops(update: Callable[[], Any]) -> tuple[int, list[str]]:
    """Floating-point operations of one update, forward and backward, and the dtypes they are done in.

    Matrix products and convolutions count, at two operations per multiplication and addition; elementwise operations,
    which are few beside them, do not. Compiled code is run as it is written.

    :param update: does one update
    """
    set_stance = getattr(th.compiler, "set_stance", None)  # torch 2.6
    if set_stance is not None:
        set_stance("force_eager")
    dtypes, counter = _MatrixDtypes(), FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    try:
        with counter, dtypes:
            update()
    finally:
        if set_stance is not None:
            set_stance("default")
    return int(counter.get_total_flops()), sorted(dtypes.seen)


def least_bytes(model: Any) -> int:
    """Bytes that an update must move, if nothing but parameters and optimizer states left the caches.

    Every parameter is read in the forward and in the backward pass and by the optimizer, and written by it; its
    gradient is written and read; every optimizer state is read and written. Activations and batches come on top and
    are not counted.
    """
    params: dict[int, th.Tensor] = {}
    states = 0
    for group in model.optimizers.values():
        for param in group.params:
            params[id(param)] = param
            states += sum(v.nbytes for v in group.optimizer.state[param].values() if isinstance(v, th.Tensor))
    return 6 * sum(param.nbytes for param in params.values()) + 2 * states


def matrix_rate(device: th.device, dtype: th.dtype = th.float32) -> float:
    """Operations per second of square matrix products: the best of several sizes."""
    best = 0.0
    for size in MATRIX_SIZES["cuda" if device.type == "cuda" else "cpu"]:
        left, right = (th.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = th.empty_like(left)
        best = max(best, 2 * size**3 / _best_seconds(partial(th.mm, left, right, out=out), device))
    return best


def copy_bandwidth(device: th.device) -> float:
    """Bytes per second read and written by a copy of a large tensor."""
    source = th.ones(COPY_MIB["cuda" if device.type == "cuda" else "cpu"] * 2**18, device=device)
    target = th.empty_like(source)
    return 2 * source.nbytes / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(call: Callable[[], Any], device: th.device) -> float:
    call()
    synchronize(device)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < ROUND_SECONDS:
        start = time.perf_counter()
        call()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def synchronize(device: th.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        th.cuda.synchronize(device)


def floor(model: Any, update: Callable[[], Any], device: th.device) -> dict[str, Any]:
    """Work of one update, speed of the machine, and the least time that follows.

    :param model: algorithm whose optimizers have done a step
    :param update: does one update
    :param device: of the model
    :return: counts, rates, and ``seconds``, the larger of the two times
    """
    flops, dtypes = count_flops(update)
    moved = least_bytes(model)
    known = [name for name in dtypes if name in ("float32", "bfloat16", "float16")] or ["float32"]
    rates = {name: matrix_rate(device, getattr(th, name)) for name in known}
    bandwidth = copy_bandwidth(device)
    compute, memory = flops / max(rates.values()), moved / bandwidth
    return {
        "gflop": flops / 1e9,
        "dtypes": dtypes,
        "gflop_per_second": {name: rate / 1e9 for name, rate in rates.items()},
        "megabytes": moved / 1e6,
        "gigabytes_per_second": bandwidth / 1e9,
        "compute_seconds": compute,
        "memory_seconds": memory,
        "seconds": max(compute, memory),
        "bound": "compute" if compute >= memory else "memory",
    }
