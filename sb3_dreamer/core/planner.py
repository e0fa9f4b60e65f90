"""Planning in the latent space: the cross-entropy method and random shooting over dreams (PlaNet, Algorithm 2).

Symbols: N environments, J candidates, K elites, H horizon, A action. All environments are planned for in one call.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, SupportsFloat, SupportsIndex

import torch as th

from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.cem import Deviation, cem_categorical, cem_normal
from sb3_dreamer.core.functional import one_hot_argmax
from sb3_dreamer.core.types import ActionLayout, LatentState
from sb3_dreamer.core.world_model import WorldModel

Value = Callable[[th.Tensor], th.Tensor]  #: features (..., F) to values (...)


@th.no_grad()
def dream_returns(
    world_model: WorldModel,
    state: LatentState,
    actions: th.Tensor,
    *,
    gamma: float = 1.0,
    value: Value | None = None,
    mode: bool = False,
) -> th.Tensor:
    """Predicted returns ``sum_t w_t r_{t+1} (+ w_H v_H)`` of action sequences; one dream for each.

    ::

        s_0 --a_0--> s_1 --a_1--> ... s_H      w_0 = 1,  w_t = gamma^t c_1 ... c_t  (c: predicted continue, if any)

    :param state: s_0, ``(N, ...)``
    :param actions: ``(N, J, H, A)``
    :param gamma: discount (PlaNet: 1)
    :param value: adds the value of s_H where a critic exists
    :param mode: follow the modes of the prior instead of samples
    :return: ``(N, J)``
    :raises ValueError: if ``value`` does not take the features of this model
    """
    count = actions.shape[1]
    latent = LatentState(*(part.repeat_interleave(count, 0) for part in state))
    total = latent.deter.new_zeros(latent.deter.shape[0])
    weight = th.ones_like(total)
    # Not `unroll`: it would keep all H states of all dreams, of which only the last is needed.
    for action in actions.flatten(0, 1).unbind(1):
        latent = world_model.rssm.img_step(latent, action, mode=mode)
        feat = latent.feat
        total = total + weight * world_model.reward(feat)
        weight = weight * gamma
        if world_model.cont_head is not None:
            weight = weight * world_model.continue_probability(feat)
    if value is not None:
        try:
            total = total + weight * value(latent.feat)
        except RuntimeError as error:  # torch's, of matrices that do not fit
            raise ValueError(
                f"value does not take the {latent.feat.shape[-1]} features of this world model ({error}): pass "
                "model.behavior.value of the same model"
            ) from error
    return total.view(-1, count)


class CEMPlanner(Behavior):
    """Plans every action anew in the world model's dreams: PlaNet's agent, and any trained Dreamer's, if wanted.

    ``model.predict(obs, planner=CEMPlanner(model.policy.codec.layout, gamma=model.gamma, value=model.behavior.value))``

    Deterministic calls draw their candidates from streams that depend on ``seed`` and the state planned for (the same
    candidates at every step would err in the same direction at every step), and dream with the modes of the prior:
    they can be repeated. Others use the global stream and sampled dreams.

    :param layout: kind and sizes of the action
    :param horizon: steps that are planned, H
    :param iterations: refits of the belief; 1 with ``elites=1`` is random shooting
    :param candidates: action sequences of each iteration, J
    :param elites: sequences that the belief is refitted to, K
    :param gamma: discount of predicted rewards (PlaNet: 1)
    :param value: values of features, for what comes after the horizon; a critic of the model that plans
    :param deviation: see :func:`cem_normal`
    :param warm_start: start from the last plan, shifted by a step, with the initial spread (PlaNet: no). Calls then
        depend on the ones before; :meth:`begin` forgets
    :param seed: of deterministic calls
    :param mixed_precision: dream with products of bfloat16 (``torch.autocast``); beliefs and states stay float32
    :raises ValueError: for numbers that do not work
    """

    def __init__(
        self,
        layout: ActionLayout,
        *,
        horizon: int = 12,
        iterations: int = 10,
        candidates: int = 1000,
        elites: int = 100,
        gamma: float = 1.0,
        value: Value | None = None,
        deviation: Deviation = "std",
        warm_start: bool = False,
        seed: int = 0,
        mixed_precision: bool = False,
    ):
        super().__init__()
        if not isinstance(layout, ActionLayout):
            raise TypeError(f"layout={layout!r} must be an ActionLayout: pass model.policy.codec.layout")
        numbers = {"horizon": horizon, "iterations": iterations, "candidates": candidates, "elites": elites}
        for name, number in numbers.items():
            if not isinstance(number, SupportsIndex) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name}={number!r} must be an integer of at least 1")
        if elites > candidates:
            raise ValueError(f"elites={elites} must not be more than candidates={candidates}")
        if not (isinstance(gamma, SupportsFloat) and 0.0 < gamma <= 1.0):
            raise ValueError(f"gamma={gamma!r} must be a number above 0 and at most 1")
        if value is not None and not callable(value):
            raise TypeError(f"value={value!r} must be a function of features: pass model.behavior.value")
        if deviation not in ("std", "mad"):
            raise ValueError(f"deviation={deviation!r} is unknown: use 'std' or 'mad'")
        self.layout = layout
        self.horizon, self.iterations, self.candidates, self.elites = horizon, iterations, candidates, elites
        self.gamma = gamma
        # In a tuple, so that a critic that is a module stays a part of its own behavior alone.
        self.value = (value,)
        self.deviation: Deviation = deviation
        self.warm_start = warm_start
        self.seed = seed
        self.mixed_precision = mixed_precision
        self.plan: th.Tensor | None = None  #: last belief's mean or shares, (N, H, A), if ``warm_start``

    def begin(self, is_first: th.Tensor) -> None:
        """See :class:`Behavior`; the plans of these environments are forgotten."""
        if self.plan is not None:
            if len(self.plan) != len(is_first):
                self.plan = None
            else:
                self.plan = th.where(is_first[:, None, None], self._initial(self.plan), self.plan)

    def _initial(self, like: th.Tensor) -> th.Tensor:
        """Zeros, or uniform choices, ``(N, H, A)``."""
        shape = (like.shape[0], self.horizon)
        if self.layout.kind == "continuous":
            return like.new_zeros(*shape, self.layout.size)
        blocks = [like.new_full((*shape, size), 1.0 / size) for size in self.layout.sizes]
        return th.cat(blocks, -1)

    def _start(self, like: th.Tensor) -> th.Tensor:
        """The belief's first mean or shares; a warm one is the last plan, a step on."""
        initial = self._initial(like)
        if self.plan is None or len(self.plan) != len(like):
            return initial
        shifted = th.cat([self.plan[:, 1:], initial[:, -1:]], 1)
        return shifted if self.layout.kind == "continuous" else 0.5 * (shifted + initial)

    def _streams(self, state: LatentState) -> list[th.Generator]:
        """Random numbers for each environment that depend on ``seed`` and the bits of its state alone."""
        bits = th.cat([part.flatten(1) for part in state], 1).float().view(th.int32)
        numbers = bits.sum(1, dtype=th.int64).tolist()
        return [th.Generator(bits.device).manual_seed((self.seed + number) % 2**63) for number in numbers]

    @th.no_grad()
    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """First action of the plan: the belief's mean, or its most frequent choice."""
        generators = self._streams(state) if deterministic else None

        def score(actions: th.Tensor) -> th.Tensor:
            return dream_returns(world_model, state, actions, gamma=self.gamma, value=self.value[0], mode=deterministic)

        start = self._start(state.deter)
        numbers = {"iterations": self.iterations, "candidates": self.candidates, "elites": self.elites}
        # torch.export can save neither autocast nor a disabled one: exported plans are float32.
        mixed = self.mixed_precision and not th.compiler.is_compiling()
        with th.autocast(start.device.type, th.bfloat16) if mixed else nullcontext():
            if self.layout.kind == "continuous":
                belief = (start, th.ones_like(start))
                plan = cem_normal(score, belief, deviation=self.deviation, generators=generators, **numbers)[0]
            else:
                plan = cem_categorical(score, start, self.layout.sizes, generators=generators, **numbers)
        action = plan[:, 0]
        if self.layout.kind == "discrete":
            action = th.cat([one_hot_argmax(part) for part in action.split(self.layout.sizes, -1)], -1).to(plan.dtype)
        self.plan = plan if self.warm_start else None
        return action


def random_shooting(layout: ActionLayout, *, candidates: int = 1000, horizon: int = 12, **options: Any) -> CEMPlanner:
    """A planner that takes the best of ``candidates`` random sequences (the baseline of PlaNet, Figure 4).

    :param options: further arguments of :class:`CEMPlanner`
    """
    return CEMPlanner(layout, horizon=horizon, iterations=1, candidates=candidates, elites=1, **options)
