"""Batches drawn one ahead by a thread, while the update before is computed."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch as th

from sb3_dreamer.core.types import SequenceBatch

Draw = Callable[[], SequenceBatch]


def batches(draw: Draw, count: int, device: th.device, *, ahead: bool) -> Generator[SequenceBatch, None, None]:
    """``count`` batches, drawn in order; close the iterator (``contextlib.closing``) if it may not be used up.

    With ``ahead`` a thread draws the next batch as soon as one is handed out, and never more than ``count``: since
    nothing else draws from replay meanwhile, batches and the state of replay's generator are those of drawing in turn.
    On CUDA the thread has a stream of its own, so that copies to the device run beside the update.

    :param draw: draws one batch; an error in it is raised here, in its turn
    :param count: number of batches
    :param device: where batches lie
    :param ahead: draw in a thread, if there is more than one batch
    """
    if not ahead or count < 2:
        for _ in range(count):
            yield draw()
        return
    stream = th.cuda.Stream(device) if device.type == "cuda" else None

    def draw_aside() -> tuple[SequenceBatch, th.cuda.Event | None]:
        with _on(stream):
            batch = draw()
            return batch, stream.record_event() if stream is not None else None

    with ThreadPoolExecutor(1, "replay") as pool:  # leaving it waits for the batch that is being drawn, if any
        following = pool.submit(draw_aside)
        for left in reversed(range(count)):
            batch, ready = following.result()
            if left:
                following = pool.submit(draw_aside)
            if ready is not None:
                _hand_over(batch, ready, device)
            yield batch


def _on(stream: th.cuda.Stream | None) -> AbstractContextManager[object]:
    return nullcontext() if stream is None else th.cuda.stream(stream)


def _hand_over(batch: SequenceBatch, ready: th.cuda.Event, device: th.device) -> None:
    """Let the current stream wait for the copies, and the memory of the batch outlive its use there."""
    current = th.cuda.current_stream(device)
    current.wait_event(ready)
    for tensor in (*batch.obs.values(), *batch[1:]):
        tensor.record_stream(current)
