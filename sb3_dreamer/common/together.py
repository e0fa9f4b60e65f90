"""What learning on several ranks asks of a model: equal weights to start from, one log, callbacks that write once."""

import warnings
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_dreamer.common import distributed

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm


def join(model: "WorldModelAlgorithm") -> None:
    """Make all ranks start from rank 0's weights, and let it alone write the log.

    :raises RuntimeError: if the model was made before the group, or outside of it
    """
    world = distributed.world_size()
    if model._world_size != world:
        raise RuntimeError(
            f"the model was made for {model._world_size} rank(s), and there are {world}: "
            "call sb3_dreamer.common.distributed.start() before the model is made or loaded"
        )
    if world == 1:
        warn_if_alone()
        return
    distributed.broadcast(model.policy)
    if not distributed.is_first():
        model.verbose = 0
        model.set_logger(Logger(None, []))
    elif model.get_vec_normalize_env() is not None:
        warnings.warn("VecNormalize keeps statistics of its own on each rank: leave it out", stacklevel=4)


def warn_if_alone() -> None:
    """Say so if torchrun started several processes that do not know of each other."""
    if distributed.launched() > 1:
        warnings.warn(
            f"torchrun started {distributed.launched()} processes, which all learn alone: "
            "call sb3_dreamer.common.distributed.start() first",
            stacklevel=4,
        )


def own_callbacks(callback: MaybeCallback) -> MaybeCallback:
    """The callbacks of this rank: SB3's that evaluate or write files are rank 0's alone."""
    if distributed.is_first():
        return callback
    if isinstance(callback, list | CallbackList):
        members = callback if isinstance(callback, list) else callback.callbacks
        return [member for member in map(_own, members) if member is not None]
    return _own(callback)


def _own(callback: Any) -> Any:
    if isinstance(callback, EvalCallback | CheckpointCallback):
        return None
    if isinstance(callback, CallbackList):
        return CallbackList([member for member in map(_own, callback.callbacks) if member is not None])
    if isinstance(inner := getattr(callback, "callback", None), BaseCallback):  # SB3's EventCallback
        callback.callback = _own(inner)
    return callback


def dump_logs(model: "WorldModelAlgorithm") -> None:
    """Write the log of all ranks: means over the latest episodes of each of them."""
    own = model.ep_info_buffer, model.ep_success_buffer
    infos, successes = (distributed.of_all(list(part or ())) for part in own)
    try:
        model.ep_info_buffer, model.ep_success_buffer = deque(chain(*infos)), deque(chain(*successes))
        model.dump_logs()
    finally:
        model.ep_info_buffer, model.ep_success_buffer = own
