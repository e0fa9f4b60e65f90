"""Optimizers: one group of parameters, one optimizer, one clipping rule, and no update that is not finite."""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch as th


class OptimizerGroup:
    """Takes gradients of a loss for its own parameters only, clips them and steps.

    Gradients come from ``autograd.grad`` on these parameters, so that a loss that passes through other networks
    (an actor's through the world model) leaves nothing behind in them. A step with a non-finite gradient norm is
    skipped, for all parameters of the group, without a host synchronization, and shows in the metrics as ``skipped``.

    :param name: prefix of the metrics
    :param params: parameters to update
    :param optimizer: a fused ``th.optim.Adam``, a :class:`FlatOptimizer`, or any other that honors ``grad_scale`` and
        ``found_inf``
    :param clip: largest global norm of the gradients; None does not clip
    :param weight_decay: share that every parameter loses at each update, whatever the learning rate (decoupled;
        DreamerV2's released code: 1e-6); a skipped update decays nothing
    :ivar average: turns the gradients of several processes into one, before clipping; None: there is one process
    """

    average: Callable[[Sequence[th.Tensor]], Sequence[th.Tensor]] | None = None

    def __init__(
        self,
        name: str,
        params: Iterable[th.nn.Parameter],
        optimizer: th.optim.Optimizer,
        clip: float | None,
        *,
        weight_decay: float = 0.0,
    ):
        self.name = name
        self.params: list[th.Tensor] = list(params)
        self.optimizer = optimizer
        self.clip = clip
        self.weight_decay = weight_decay

    def step(self, loss: th.Tensor, *, retain_graph: bool = False) -> dict[str, th.Tensor]:
        """One update.

        :param loss: scalar with a graph
        :param retain_graph: keep the graph for another group's step
        :return: ``<name>_loss``, ``<name>_grad_norm`` (before clipping) and ``<name>_skipped`` (0 or 1), 0-d
        """
        with th.autocast(loss.device.type, enabled=False):  # The forward pass chose the dtypes.
            return self._step(loss, retain_graph)

    def _step(self, loss: th.Tensor, retain_graph: bool) -> dict[str, th.Tensor]:
        grads: Sequence[th.Tensor] = th.autograd.grad(
            loss, self.params, retain_graph=retain_graph, materialize_grads=True
        )
        if self.average is not None:
            grads = self.average(grads)
        norm = th.linalg.vector_norm(th.stack(th._foreach_norm(list(grads))))
        skipped = (~th.isfinite(norm)).float()
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = in_layout_of(param, grad)
        scale = (norm / self.clip).clamp(min=1.0) if self.clip else th.ones_like(norm)
        self.optimizer.grad_scale = th.where(skipped > 0, 1.0, scale)  # type: ignore[attr-defined]
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        if self.weight_decay:
            with th.no_grad():
                th._foreach_mul_(self.params, 1.0 - self.weight_decay * (1.0 - skipped))
        self.optimizer.step()
        for param in self.params:
            param.grad = None
        th.clear_autocast_cache()  # It holds copies of the parameters as they were.
        return {
            f"{self.name}_loss": loss.detach(),
            f"{self.name}_grad_norm": norm,
            f"{self.name}_skipped": skipped,
        }

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of every parameter group; a tensor is filled, so that a captured update sees it."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], th.Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def make_capturable(self) -> None:
        """Keep what a step reads on the device, so that a CUDA graph can hold it."""
        for group in self.optimizer.param_groups:
            if not isinstance(group["lr"], th.Tensor):
                group["lr"] = self.params[0].detach().new_full((), group["lr"])
            if "capturable" in group:
                group["capturable"] = True
                # torch would warn at the updates before the capture, and at those that fall back.
                self.optimizer._warned_capturable_if_run_uncaptured = True


def in_layout_of(param: th.Tensor, grad: th.Tensor) -> th.Tensor:
    """The gradient with the strides of its parameter.

    ``autograd.grad`` may give another order in memory (that of channels-last convolutions), which ``backward`` would
    put right and which fused optimizers do not look at.
    """
    return grad if grad.stride() == param.stride() else th.empty_like(param).copy_(grad)


def make_adam(params: Iterable[th.nn.Parameter], learning_rate: float, *, eps: float = 1e-8) -> th.optim.Optimizer:
    """The fused Adam that :class:`OptimizerGroup` expects; its fused kernel skips a non-finite update by itself."""
    return th.optim.Adam(list(params), lr=learning_rate, eps=eps, fused=True)


class _SideBySide(NamedTuple):
    """States of P parameters with M entries in all: ``step (P,)``, and two moments ``(M,)``.

    :param sizes: entries of each parameter
    :param views: of ``first``, as the optimizer's ``state`` holds them
    """

    step: th.Tensor
    first: th.Tensor
    second: th.Tensor
    sizes: list[int]
    views: list[th.Tensor]


class FlatOptimizer(th.optim.Optimizer):
    """Steps on all parameters of a group as one vector, with few operations and no host synchronization.

    Gradients are divided by :attr:`grad_scale`, and nothing changes where :attr:`found_inf` is 1, as fused optimizers
    of torch have it.

    :cvar moments: names of the two moments in :attr:`state`
    """

    moments: ClassVar[tuple[str, str]]
    grad_scale: th.Tensor | None = None
    found_inf: th.Tensor | None = None

    @th.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; none at all where ``found_inf`` is 1."""
        loss = closure() if closure else None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[th.Tensor]) -> None:
        state = self._side_by_side(params)
        skip = params[0].new_zeros(()) if self.found_inf is None else self.found_inf.to(params[0].dtype)
        grad = th.where(skip > 0, 0.0, th.cat([p.grad.reshape(-1) for p in params if p.grad is not None]))
        if self.grad_scale is not None:
            grad.div_(self.grad_scale)
        state.step.add_(1.0 - skip)
        moves = self._moves(group, params, state, grad, skip).split(state.sizes)
        th._foreach_add_(params, [move.view(param.shape) for move, param in zip(moves, params, strict=True)])

    def _moves(
        self, group: dict[str, Any], params: list[th.Tensor], state: _SideBySide, grad: th.Tensor, skip: th.Tensor
    ) -> th.Tensor:
        """Update the moments and return what is added to the parameters, ``(M,)``.

        :param grad: ``(M,)``, 0 where the update is skipped
        :param skip: 0-d, 1 if the update is skipped: it decays and moves nothing then
        """
        raise NotImplementedError

    def _side_by_side(self, params: list[th.Tensor]) -> _SideBySide:
        """The states of the parameters as one vector of each kind.

        The entries of :attr:`state` are views of them. Entries that someone else put there are copied first.
        """
        first, second = self.moments
        known: _SideBySide | None = self.__dict__.get("_known_state")
        mus = [self.state[p].get(first) for p in params]
        if known is not None and len(known.views) == len(mus) and all(map(operator.is_, mus, known.views)):
            return known
        fresh = {p: {"step": p.new_zeros(()), first: th.zeros_like(p), second: th.zeros_like(p)} for p in params}
        # torch loads a step count to the CPU, wherever its parameter is.
        parts = {
            key: [(self.state[p] or fresh[p])[key].to(p.device).reshape(-1) for p in params] for key in fresh[params[0]]
        }
        sizes = [p.numel() for p in params]
        state = _SideBySide(th.cat(parts["step"]), th.cat(parts[first]), th.cat(parts[second]), sizes, [])
        rows = zip(params, state.step, state.first.split(sizes), state.second.split(sizes), strict=True)
        for p, step, mu, nu in rows:
            self.state[p] = {"step": step, first: mu.view(p.shape), second: nu.view(p.shape)}
            state.views.append(self.state[p][first])
        self._known_state = state
        return state


class Adam(FlatOptimizer):
    """Adam as TensorFlow has it: ε stands beside the root of the *uncorrected* second moment.

    ``-lr sqrt(1 - β₂^t) / (1 - β₁^t) · m / (sqrt(v) + ε)``: the ε̂ of arXiv 1412.6980, end of Section 2. Torch's Adam
    with ``ε / sqrt(1 - β₂^t)`` in place of ε: in the first updates a larger ε, and smaller steps where gradients are
    small.

    :param params: parameters
    :param lr: learning rate
    :param eps: ε
    """

    moments = ("exp_avg", "exp_avg_sq")  # torch's names: files of earlier versions hold the state of its Adam

    def __init__(self, params: Iterable[th.nn.Parameter], lr: float, *, eps: float):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": eps})

    def _moves(
        self, group: dict[str, Any], params: list[th.Tensor], state: _SideBySide, grad: th.Tensor, skip: th.Tensor
    ) -> th.Tensor:
        """See :class:`FlatOptimizer`."""
        (beta1, beta2), taken = group["betas"], 1.0 - skip
        state.first.lerp_(grad, taken * (1.0 - beta1))
        state.second.lerp_(grad.square(), taken * (1.0 - beta2))
        step = state.step[0].clamp(min=1.0)
        rate = taken * group["lr"] * (1.0 - beta2**step).sqrt() / (1.0 - beta1**step)
        moves: th.Tensor = state.first / state.second.sqrt().add_(group["eps"]) * -rate
        return moves


class LaProp(FlatOptimizer):
    """RMS scaling, then momentum (LaProp, arXiv 2002.04839), after adaptive gradient clipping (arXiv 2102.06171).

    As DreamerV3 2024 combines them. Each tensor's gradient is scaled down to ``agc`` times the tensor's norm.

    :param params: parameters
    :param lr: learning rate (4e-5)
    :param betas: decay of the momentum and of the second moment, in that order (0.9, 0.999)
    :param eps: added to the root of the second moment (1e-20)
    :param agc: largest ratio of gradient norm to parameter norm (0.3); 0 switches clipping off
    :param pmin: parameter norms count as at least this (1e-3)
    :param warmup: updates over which the learning rate rises from 0 (0: none; DreamerV3: 1000)
    :param units: for each parameter the number of the clipping unit it belongs to: parameters of one unit are clipped
        as the one tensor that they are parts of (see :func:`clipping_units`); None clips each by itself
    """

    moments = ("mu", "nu")

    def __init__(
        self,
        params: Iterable[th.nn.Parameter],
        lr: float = 4e-5,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        agc: float = 0.3,
        pmin: float = 1e-3,
        warmup: int = 0,
        units: list[int] | None = None,
    ):
        settings = {"lr": lr, "betas": betas, "eps": eps, "agc": agc, "pmin": pmin, "warmup": warmup, "units": units}
        super().__init__(params, settings)

    def _moves(
        self, group: dict[str, Any], params: list[th.Tensor], state: _SideBySide, grad: th.Tensor, skip: th.Tensor
    ) -> th.Tensor:
        """See :class:`FlatOptimizer`."""
        if group["agc"]:
            self._clip(group, params, list(grad.split(state.sizes)))
        beta1, beta2 = (th.where(skip > 0, 1.0, grad.new_full((), beta)) for beta in group["betas"])
        step = state.step[0].clamp(min=1.0)
        state.second.mul_(beta2).addcmul_(grad, grad * (1.0 - beta2))
        denominator = (state.second / (1.0 - group["betas"][1] ** step)).sqrt_().add_(group["eps"])
        state.first.mul_(beta1).add_(grad.div_(denominator).mul_(1.0 - beta1))
        rate = group["lr"] * (1.0 - skip) / (1.0 - group["betas"][0] ** step)
        if group["warmup"]:  # The first update has rate 0, as in the released code.
            rate = rate * ((step - 1.0) / group["warmup"]).clamp(max=1.0)
        moves: th.Tensor = state.first * -rate
        return moves

    def _clip(self, group: dict[str, Any], params: list[th.Tensor], grads: list[th.Tensor]) -> None:
        """Scale each gradient down in place to ``agc`` times the norm of its parameter."""
        grad_norms, norms = self._unit_norms(group, grads), self._unit_norms(group, params)
        ratios = (grad_norms / (norms.clamp(min=group["pmin"]) * group["agc"])).clamp(min=1.0)
        th._foreach_div_(grads, list(ratios.unbind()))

    def _unit_norms(self, group: dict[str, Any], tensors: list[th.Tensor]) -> th.Tensor:
        """Norm of the clipping unit that each tensor belongs to, ``(P,)``."""
        norms = th.stack(th._foreach_norm(tensors))
        if not group["units"]:
            return norms
        if len(group["units"]) != len(tensors):
            raise ValueError(f"units has {len(group['units'])} entries for {len(tensors)} parameters with gradients")
        units = self._units_on(norms.device, group["units"])
        sums = norms.new_zeros(len(norms)).index_add(0, units, norms.square())
        return sums.sqrt()[units]

    def _units_on(self, device: th.device, units: list[int]) -> th.Tensor:
        """The numbers of the units on the device, brought there once."""
        known: tuple[list[int], th.Tensor] | None = self.__dict__.get("_known_units")
        if known is None or known[0] != units or known[1].device != device:
            known = self._known_units = (list(units), th.tensor(units, device=device))
        return known[1]


def clipping_units(params: Iterable[th.Tensor], joint: Iterable[Iterable[th.Tensor]]) -> list[int]:
    """Numbers for ``LaProp(units=...)``.

    :param params: the parameters, in the order in which the optimizer has them
    :param joint: sets of parameters that are parts of one tensor in the reference; all others stand alone
    :raises ValueError: if a set names a parameter that is not among ``params``
    """
    position = {id(param): i for i, param in enumerate(params)}
    units = list(range(len(position)))
    for parts in joint:
        members = [id(part) for part in parts]
        if not members or any(member not in position for member in members):
            raise ValueError("joint names a parameter that the optimizer does not have")
        for member in members:
            units[position[member]] = position[members[0]]
    return units
