"""The whole update as one CUDA graph: captured once, then replayed by a single call of the host.

What an update reads from the host is fixed when it is captured. So ``_update`` must be a function of tensors: numbers
that change live in tensors which are filled outside of it (learning rates, schedules), and what counts updates or
writes to replay belongs in ``_after_update``. Constructor arguments and batch shapes are compared before every replay,
and capture the update anew if they changed.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import torch as th

from sb3_dreamer.core.optim import OptimizerGroup
from sb3_dreamer.core.types import LatentState, SequenceBatch, UpdateResult

T = TypeVar("T")
WARMUP = 3  #: updates before the capture; in them libraries choose their kernels and optimizers make their states


class Graph(Protocol):
    """Recorder of a call that repeats what it did to tensors."""

    def warm_up(self, call: Callable[[], T]) -> T:
        """Make the call as it will be recorded, without recording it."""
        ...

    def record(self, call: Callable[[], T]) -> T:
        """Record the call; the result is where every :meth:`replay` leaves its own."""
        ...

    def replay(self) -> None:
        """Repeat what was recorded."""
        ...


class CudaGraph:
    """:class:`Graph` on a GPU. Random numbers come from torch's generator of the device, and advance it as usual.

    :param device: the GPU
    """

    def __init__(self, device: th.device):
        self.device = device
        self.graph = th.cuda.CUDAGraph()
        self.stream = th.cuda.Stream(device)

    def warm_up(self, call: Callable[[], T]) -> T:
        """See :class:`Graph`; on the stream of the capture."""
        current = th.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with th.cuda.stream(self.stream):
            result = call()
        current.wait_stream(self.stream)
        return result

    def record(self, call: Callable[[], T]) -> T:
        """See :class:`Graph`; nothing is computed yet. After an error the random streams are as before."""
        random = th.cuda.get_rng_state(self.device)
        try:
            # A thread that brings batches to the device may run meanwhile: see sb3_dreamer.common.updates.prefetch.
            with th.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                return call()
        except BaseException:
            th.cuda.set_rng_state(random, self.device)
            raise

    def replay(self) -> None:
        """See :class:`Graph`."""
        self.graph.replay()


class GraphedUpdate:
    """Makes updates: the first ones as they are, then from a graph, and as they are again if that cannot be.

    :param update: the update; see the module for what it must not do
    :param make_graph: makes a :class:`Graph`
    :param optimizers: the groups that ``update`` steps
    :param settings: what the update reads beside tensors, compared before every replay
    :param must: raise what keeps the update from being captured, instead of a warning
    """

    def __init__(
        self,
        update: Callable[[SequenceBatch], UpdateResult],
        make_graph: Callable[[], Graph],
        optimizers: Iterable[OptimizerGroup],
        settings: Callable[[], Any] = tuple,
        *,
        must: bool = False,
    ):
        self.update = update
        self.make_graph = make_graph
        self.groups = list(optimizers)
        self.settings = settings
        self.must = must
        self.possible = True
        self.forget()

    def forget(self) -> None:
        """Let go of the graph and its memory; the next updates make another one."""
        self.graph: Graph | None = None
        self.batch: SequenceBatch | None = None  #: what the graph reads
        self.names: list[str] = []
        self.values: th.Tensor | None = None  #: what it writes: metrics
        self.post: LatentState | None = None  #: and posterior states
        self.seen = 0
        self.captured: Any = None

    def __call__(self, batch: SequenceBatch) -> UpdateResult:
        """One update from one batch; later updates do not change its metrics, but its posterior states."""
        if not self.possible:
            return self.update(batch)
        now = self._now(batch)
        if self.captured != now:
            self.forget()
            for group in self.groups:
                group.make_capturable()
            self.captured, self.graph = now, self.make_graph()
        assert self.graph is not None
        if self.seen < WARMUP:
            self.seen += 1
            return self.graph.warm_up(lambda: self.update(batch))
        if self.batch is None:
            try:
                self._capture(batch, self.graph)
            except RuntimeError as error:
                self._give_up(error)
                return self.update(batch)
        assert self.batch is not None and self.values is not None and self.post is not None
        for static, new in zip(_tensors(self.batch), _tensors(batch), strict=True):
            static.copy_(new, non_blocking=True)
        self.graph.replay()
        return UpdateResult(dict(zip(self.names, self.values.clone().unbind(), strict=True)), self.post)

    def _capture(self, batch: SequenceBatch, graph: Graph) -> None:
        static = batch.map(th.clone)

        def update() -> tuple[th.Tensor, LatentState]:
            metrics, post = self.update(static)
            self.names = list(metrics)
            return th.stack([value.float() for value in metrics.values()]), post

        self.values, self.post = graph.record(update)
        self.batch = static

    def _give_up(self, error: RuntimeError) -> None:
        self.forget()
        self.possible = False
        for group in self.groups:
            for param in group.params:
                param.grad = None
        cause: BaseException = error
        while cause.__context__ is not None:  # what ends a capture after an error raises another one
            cause = cause.__context__
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        text = f"the update cannot be captured as a CUDA graph ({lines[0]})"
        if self.must:
            raise RuntimeError(f"cuda_graph=True, but {text}") from error
        warnings.warn(
            f"{text}: updates continue without a graph, more slowly; pass cuda_graph=False to do so from the start.",
            stacklevel=5,
        )

    def _now(self, batch: SequenceBatch) -> Any:
        """Facts that must not change while the graph is used; optimizers make their groups anew when they load."""
        shapes = [(value.shape, value.dtype, value.device) for value in _tensors(batch)]
        groups = [_Same(group.optimizer.param_groups) for group in self.groups]
        return (sorted(batch.obs), shapes, groups, self.settings())


class _Same:
    """Equal only to a wrapper of the very same object."""

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def plain_arguments(algorithm: Any) -> list[Any]:
    """Constructor arguments of an algorithm that are plain values: what a captured update has fixed."""
    cls: Any = type(algorithm)
    values = [getattr(algorithm, name, None) for name in _arguments(cls)]
    return [value for value in values if isinstance(value, bool | int | float | str | None)]


@functools.cache
def _arguments(cls: type) -> tuple[str, ...]:
    """Names of a constructor's arguments."""
    return tuple(inspect.signature(cls).parameters)


def _tensors(batch: SequenceBatch) -> list[th.Tensor]:
    return [*(batch.obs[name] for name in sorted(batch.obs)), *batch[1:]]
