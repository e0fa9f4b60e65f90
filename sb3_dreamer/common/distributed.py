"""Data-parallel learning: several processes (ranks) with environments and replay of their own learn one model.

``torchrun`` starts the processes, :func:`start` makes them a group. Each rank draws a batch from its own replay; the
gradients, the statistics of returns and all decisions are those of the ranks together, so that W ranks with batches of
B sequences are one process with a batch of W·B. Without a group every function here returns what it was given.

Every function that says *all ranks* must be called by all of them, in the same order. See docs/distributed.md.
"""

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch as th
import torch.distributed as dist
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn
from torch import nn

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)  #: how long a rank waits for the others: rank 0 may be evaluating


def start(timeout: timedelta = TIMEOUT) -> int:
    """Join the group of processes that ``torchrun`` started; call it first, before any model is made.

    Tensors on a GPU travel by NCCL, decisions of the host by gloo. Takes the GPU with the number ``LOCAL_RANK``.

    :param timeout: how long a rank waits for the others before it fails
    :return: this process's rank; 0 without ``torchrun``, where nothing happens
    """
    if dist.is_available() and not dist.is_initialized() and "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        # Its default arguments keep the group that is there when it is first imported (optimizers do that): alive after
        # :func:`stop`, its threads may abort the process while Python ends.
        import torch.distributed.nn  # noqa: F401

        cuda = th.cuda.is_available()
        if cuda:
            th.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % th.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timeout)
    return rank()


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Number of ranks, W; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 to W - 1."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_rank_zero() -> bool:
    """Whether this process writes logs and files."""
    return rank() == 0


def launched() -> int:
    """Number of processes that torchrun started, whether they are a group or not."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def local_world_size() -> int:
    """Number of ranks that share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size()))) if world_size() > 1 else 1


# ---- inside an update ------------------------------------------------------------------------------------------------


def all_reduce_mean(tensors: Sequence[th.Tensor]) -> Sequence[th.Tensor]:
    """Mean over all ranks of each tensor, in one reduction of all of them; the result is the same bits everywhere.

    Each keeps its layout in memory (a convolution's gradient may be channels-last), which fused optimizers rely on.
    """
    if world_size() == 1:
        return tensors
    flat = th.cat([tensor.detach().reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.div_(world_size()).split([tensor.numel() for tensor in tensors])
    return [
        part.view(tensor.shape) if tensor.is_contiguous() else th.empty_like(tensor).copy_(part.view(tensor.shape))
        for part, tensor in zip(parts, tensors, strict=True)
    ]


def all_reduce_metrics(metrics: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
    """Metrics of an update, averaged over all ranks."""
    if world_size() == 1 or not metrics:
        return metrics
    return dict(zip(metrics, all_reduce_mean(list(metrics.values())), strict=True))


def differentiable_mean(x: th.Tensor) -> th.Tensor:
    """Mean of ``x`` over all ranks, 0-d. Its gradient is that of the own mean: gradients are averaged later."""
    own = x.mean()
    if world_size() == 1:
        return own
    return own + (all_reduce_mean([own])[0] - own.detach())


def all_gather(x: th.Tensor) -> th.Tensor:
    """``x (M, ...)`` of all ranks behind each other, ``(W·M, ...)``, without gradient; M is the same everywhere."""
    if world_size() == 1:
        return x
    parts = [th.empty_like(x, memory_format=th.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return th.cat(parts)


# ---- decisions of the host -------------------------------------------------------------------------------------------


def all_reduce_sum(counts: Sequence[int]) -> list[int]:
    """Sums over all ranks."""
    if world_size() == 1:
        return list(counts)
    tensor = th.tensor([int(count) for count in counts])
    dist.all_reduce(tensor)
    return [int(count) for count in tensor]


def broadcast_object(value: T) -> T:
    """The value that rank 0 has, on all ranks; anything that can be copied between processes."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, 0)
    return cast(T, box[0])


def all_gather_object(value: T) -> list[T]:
    """The values of all ranks, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def broadcast_module(module: nn.Module) -> None:
    """Give all ranks rank 0's parameters and buffers."""
    if world_size() == 1:
        return
    tensors = [tensor.detach() for tensor in module.state_dict().values()]
    for dtype in {tensor.dtype: None for tensor in tensors}:
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = th.cat([tensor.reshape(-1) for tensor in same])
        dist.broadcast(flat, 0)
        for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(part.view(tensor.shape))


class Merged(NamedTuple):
    """Steps and episodes that all ranks collected.

    :param rollout: agent steps and episodes of all of them; training continues if it does everywhere
    :param filled: whether all of them have enough replay
    """

    rollout: RolloutReturn
    filled: bool


def merge_rollouts(rollout: RolloutReturn, filled: bool) -> Merged:
    """One rollout for those of all ranks, so that they decide alike, and make the same number of updates."""
    counts = (rollout.episode_timesteps, rollout.n_episodes, not rollout.continue_training, not filled)
    steps, episodes, stops, waiting = all_reduce_sum(counts)
    return Merged(RolloutReturn(steps, episodes, not stops), not waiting)


# ---- what differs between ranks --------------------------------------------------------------------------------------


def rank_seed(seed: int, n_envs: int) -> int:
    """Seed of this rank: environments of all ranks are seeded as those of one process would be."""
    return seed + rank() * n_envs


def rank_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder of a rank within one that all of them use; rank 0 has that itself."""
    return Path(folder) if is_rank_zero() else Path(folder) / f"rank_{rank()}"


def rank_callbacks(callback: MaybeCallback) -> MaybeCallback:
    """The callbacks of this rank: SB3's that evaluate or write files are rank 0's alone."""
    if is_rank_zero():
        return callback
    return _without_rank_zero(CallbackList(callback) if isinstance(callback, list) else callback)


def _without_rank_zero(callback: Any) -> Any:
    if isinstance(callback, EvalCallback | CheckpointCallback):
        return None
    if isinstance(callback, CallbackList):
        members = map(_without_rank_zero, callback.callbacks)
        return CallbackList([member for member in members if member is not None])
    if isinstance(inner := getattr(callback, "callback", None), BaseCallback):  # SB3's EventCallback
        callback.callback = _without_rank_zero(inner)
    return callback


def join(module: nn.Module, made_for: int) -> None:
    """Make all ranks start from rank 0's weights; warns if torchrun started processes that do not know of each other.

    :param module: the policy
    :param made_for: number of ranks when it was made
    :raises RuntimeError: if the model was made before the group, or outside of it
    """
    world = world_size()
    if made_for != world:
        raise RuntimeError(
            f"the model was made for {made_for} rank(s), and there are {world}: "
            "call sb3_dreamer.common.distributed.start() before the model is made or loaded"
        )
    if world == 1 and launched() > 1:
        warnings.warn(
            f"torchrun started {launched()} processes, which all learn alone: "
            "call sb3_dreamer.common.distributed.start() first",
            stacklevel=5,
        )
    broadcast_module(module)
