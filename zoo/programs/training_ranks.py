"""``torchrun --nproc-per-node=2 zoo/train.py ...``: the processes are one run, and the first of them speaks for it."""

import os
from argparse import Namespace
from typing import TypeVar

T = TypeVar("T")


def start(args: Namespace) -> None:
    """Join the other processes, if torchrun started several; all but the first one fall silent.

    :param args: flags of ``train``
    """
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return
    from sb3_dreamer.common import distributed

    if distributed.start() > 0:
        args.verbose, args.track, args.progress = 0, False, False


def stop() -> None:
    """Leave the other processes."""
    if "RANK" in os.environ:
        from sb3_dreamer.common import distributed

        distributed.stop()


def rank() -> int:
    """Number of this process."""
    from sb3_dreamer.common import distributed

    return distributed.rank()


def count() -> int:
    """Number of processes."""
    from sb3_dreamer.common import distributed

    return distributed.world_size()


def from_first(value: T) -> T:
    """What the first process has."""
    from sb3_dreamer.common import distributed

    return distributed.broadcast_object(value)
