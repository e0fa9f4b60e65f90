"""Watch for updates that are not finite: each is skipped; several in a row end the run with a report."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch as th
from torch import nn

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.core.types import ModelOutput, SequenceBatch
from sb3_dreamer.core.world_model import WorldModel

HOST_EVERY = 16  #: updates between two looks at the count on a GPU, which has to wait for each look


class NonFiniteError(RuntimeError):
    """Several updates in a row were not finite. ``folder`` holds the report, the batch and, if finite, the model."""

    def __init__(self, message: str, folder: Path):
        super().__init__(message)
        self.folder = folder


class SkipWatch:
    """Counts updates that were skipped in a row, on the device.

    :param limit: how many end the run; 0: never
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.streak: th.Tensor | None = None
        self.longest: th.Tensor | None = None
        self.updates = 0
        self.bad_batch: SequenceBatch | None = None

    def add(self, metrics: dict[str, th.Tensor], batch: SequenceBatch) -> None:
        """Take in one update.

        :param metrics: of the update; those that end in ``_skipped`` count
        :param batch: kept for the report if the update was skipped; on a GPU, which would have to be waited for, the
            newest one is kept
        """
        skipped = th.stack([value for name, value in metrics.items() if name.endswith("_skipped")]).max()
        self.streak = skipped if self.streak is None else (self.streak + skipped) * skipped
        self.longest = self.streak if self.longest is None else th.maximum(self.longest, self.streak)
        self.updates += 1
        if skipped.device.type != "cpu" or skipped:
            self.bad_batch = batch

    def exceeded(self) -> bool:
        """Whether there were ``limit`` skipped updates in a row since the last look."""
        if not self.limit or self.longest is None:
            return False
        if self.longest.device.type != "cpu" and self.updates < HOST_EVERY:
            return False
        found = float(self.longest) >= self.limit
        self.updates, self.longest = 0, None
        return found

    def stop(
        self,
        policy: WorldModelPolicy,
        model_loss: Callable[[SequenceBatch], ModelOutput],
        folder: Path,
        where: str,
        last_checkpoint: Path | None,
    ) -> NoReturn:
        """Write ``report.txt`` and ``batch.npz``, beside the model if there is one, and end the run.

        :param policy: at hand; a skipped step of an optimizer changes no weight
        :param model_loss: losses of the world model, as an update computes them
        :param folder: that exists, and holds the model if all weights are finite
        :param where: update and step, for the message
        :param last_checkpoint: the newest one of the run, for the message
        :raises NonFiniteError: always
        """
        assert self.bad_batch is not None
        first, lines = examine(policy, model_loss, self.bad_batch)
        arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in batch_tensors(self.bad_batch)}
        with atomic_write(folder / "batch.npz") as file:
            np.savez(file, **arrays)
        head = f"{self.limit} updates in a row were not finite ({where}). The first tensor that is not finite: {first}."
        weights = nonfinite_weights(policy)
        if not weights:
            advice = (
                f"Training stopped; {folder} holds report.txt, batch.npz and model.zip, whose weights are those after "
                "their last good update. Look at the rewards and observations of the batch first, then lower the "
                "learning rate"
            )
        else:
            advice = (
                f"Training stopped, and the model is lost: {broken(weights)}, so an update before was too large. "
                f"{folder} holds report.txt and batch.npz, but no model. Lower the learning rate, and "
                + (f"resume from '{last_checkpoint}'" if last_checkpoint else "start again")
            )
        with atomic_write(folder / "report.txt") as file:
            file.write(("\n".join([head, advice + ".", "", *lines]) + "\n").encode())
        raise NonFiniteError(f"{head} {advice}", folder)


def nonfinite_weights(policy: WorldModelPolicy) -> list[str]:
    """Names of the policy's tensors that hold NaN or infinity: such a model is refused when it is loaded."""
    return [name for name, value in policy.state_dict().items() if bad(value)]


def broken(weights: list[str]) -> str:
    """Say which weights are not finite.

    :param weights: their names, at least one
    """
    others = f" and {len(weights) - 1} other{'s' * (len(weights) > 2)}" if len(weights) > 1 else ""
    return f"weight {weights[0]}{others} hold{'s' * (len(weights) == 1)} NaN or infinity"


def examine(
    policy: WorldModelPolicy, model_loss: Callable[[SequenceBatch], ModelOutput], batch: SequenceBatch
) -> tuple[str, list[str]]:
    """Find the first tensor that is not finite, in the order batch, weights, activations, losses, gradients.

    :param model_loss: losses of the world model, as an update computes them
    :return: its name, and the lines of the report
    """
    world_model = policy.world_model
    lines = [describe_tensor(name, value) for name, value in batch_tensors(batch)]
    found = [f"batch {name}" for name, value in batch_tensors(batch) if bad(value)]
    found += [f"weight {name}" for name, value in policy.named_parameters() if bad(value)]
    with policy.own_random_state():
        modules, losses = watched_losses(world_model, model_loss, batch)
        found += [f"output of world_model.{name}" for name in modules]
        lines += [describe_tensor(f"loss {name}", loss) for name, loss in losses.items()]
        found += [f"loss {name}" for name, loss in losses.items() if bad(loss)]
        names, params = zip(*world_model.named_parameters(), strict=True)
        grads = th.autograd.grad(world_model.total(losses), params, allow_unused=True)
    found += [
        f"gradient of world_model.{name}" for name, g in zip(names, grads, strict=True) if g is not None and bad(g)
    ]
    lines += ["", "not finite, in this order:", *found]
    return (found[0] if found else "none in the world model: look at actor and critic"), lines


def watched_losses(
    world_model: WorldModel, model_loss: Callable[[SequenceBatch], ModelOutput], batch: SequenceBatch
) -> tuple[list[str], dict[str, th.Tensor]]:
    """Losses of the batch, and the names of the modules whose output was not finite, in the order of their calls."""
    names: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, th.Tensor) and bad(output):
                names.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in world_model.named_modules() if name]
    try:
        losses = model_loss(batch).losses
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(names)), losses


def batch_tensors(batch: SequenceBatch) -> Iterator[tuple[str, th.Tensor]]:
    """Tensors of a batch by name."""
    yield from ((f"obs.{name}", value) for name, value in batch.obs.items())
    yield from ((name, getattr(batch, name)) for name in SequenceBatch._fields if name != "obs")


def bad(value: th.Tensor) -> bool:
    """Whether any entry is NaN or infinite."""
    return not bool(th.isfinite(value).all())


def describe_tensor(name: str, value: th.Tensor) -> str:
    """One line: range and number of entries that are not finite."""
    value = value.detach().float()
    finite = value[th.isfinite(value)]
    span = f"{finite.min().item():.4g} to {finite.max().item():.4g}" if finite.numel() else "nothing finite"
    return f"{name}: {span}, {value.numel() - finite.numel()} of {value.numel()} not finite"
