"""How an update runs on its device: in which precision, and as a CUDA graph or not."""

import functools
import inspect
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_dreamer.common import distributed
from sb3_dreamer.common.updates.cuda_graph import CudaGraph, GraphedUpdate
from sb3_dreamer.common.updates.precision import check_mixed_precision, update_precision
from sb3_dreamer.core.optim import OptimizerGroup
from sb3_dreamer.core.types import SequenceBatch


class UpdateMethods(OffPolicyAlgorithm):
    """``update`` of a :class:`WorldModelAlgorithm`, around the ``_update`` of its algorithm."""

    optimizers: dict[str, OptimizerGroup]
    mixed_precision: bool
    cuda_graph: bool | None
    _graphed: GraphedUpdate | None

    def _update(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        """One update of everything from one batch: the paper's algorithm box.

        A function of tensors, so that a CUDA graph can hold it: see :mod:`sb3_dreamer.common.updates.cuda_graph`.

        :return: metrics as 0-d tensors
        """
        raise NotImplementedError

    def _after_update(self, batch: SequenceBatch, metrics: dict[str, th.Tensor]) -> None:
        """What belongs to an update but not to its tensors: counters, moves every so often, writing to replay."""

    def _setup_updates(self) -> None:
        """Choose how updates run on this device.

        :raises ValueError: for what the device cannot do
        """
        self._graphed = None
        if self.mixed_precision:
            check_mixed_precision(self.device)
        # What someone else wrote in an ``_update`` may need the host: they have to ask for the graph.
        ours = type(self)._update.__module__.startswith("sb3_dreamer.")
        wanted = ours and self.device.type == "cuda" if self.cuda_graph is None else self.cuda_graph
        if wanted and self.device.type == "cuda" and distributed.world_size() == 1:
            self._graphed = GraphedUpdate(
                self._update_as_chosen,
                lambda: CudaGraph(self.device),
                self.optimizers.values(),
                self._numbers,
                must=bool(self.cuda_graph),
            )

    def _numbers(self) -> list[Any]:
        """Constructor arguments that are plain values: what a captured update has fixed."""
        values = [getattr(self, name, None) for name in _arguments(type(self))]
        return [value for value in values if isinstance(value, bool | int | float | str | None)]

    def _update_as_chosen(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        with update_precision(self.device, self.mixed_precision):
            return self._update(batch)

    def update(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        """One update from one batch, in the chosen precision, from a CUDA graph if there is one.

        :return: metrics as 0-d tensors
        """
        metrics = (self._graphed or self._update_as_chosen)(batch)
        self._after_update(batch, metrics)
        return metrics


@functools.cache
def _arguments(cls: type) -> tuple[str, ...]:
    """Names of the constructor's arguments."""
    return tuple(inspect.signature(cls).parameters)
