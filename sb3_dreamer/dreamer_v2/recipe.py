"""What the constructor arguments of DreamerV2 do to the networks: loss scales, cut gradients, schedules."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch as th
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule

from sb3_dreamer.common import distributed
from sb3_dreamer.common.spec import one_of
from sb3_dreamer.core.action_heads import OneHotHead
from sb3_dreamer.core.estimators import Estimator, make_estimator
from sb3_dreamer.core.imagination import ActorGradient
from sb3_dreamer.core.latents import CategoricalLatent
from sb3_dreamer.core.objectives import BalancedKL, FreeNatsKL
from sb3_dreamer.dreamer_v2.networks import DiscountHead

if TYPE_CHECKING:
    from sb3_dreamer.dreamer_v2.dreamer_v2 import DreamerV2

#: What ``"auto"`` stands for: on Atari (discrete actions) and for control (Box actions), Section 2.3 and Appendix D.
AUTO = {"rho": (1.0, 0.0), "ent_coef": (1e-3, 1e-4), "kl_scale": (0.1, 1.0), "free_nats": (0.0, 1.0)}


@dataclass(frozen=True)
class ScheduledValues:
    """Numbers that may change while training, as 0-d tensors that are filled in place.

    :param tensors: by name: ``rho``, ``ent_coef``, ``kl_scale``, ``latent_temperature``, ``actor_temperature``
    :param schedules: functions of the remaining progress, by the same names
    """

    tensors: dict[str, th.Tensor]
    schedules: dict[str, Schedule]

    @property
    def rho(self) -> th.Tensor:
        """Share of REINFORCE."""
        return self.tensors["rho"]

    @property
    def ent_coef(self) -> th.Tensor:
        """Entropy scale."""
        return self.tensors["ent_coef"]

    def update(self, progress_remaining: float) -> None:
        """Fill in what the schedules give, from 1 at the start of training to 0 at its end."""
        for name, schedule in self.schedules.items():
            self.tensors[name].fill_(schedule(progress_remaining))


def resolve_auto(name: str, value: Any, kind: str) -> Any:
    """The paper's value of ``"auto"`` for a kind of actions; any other value as it is.

    :param kind: ``discrete`` or ``continuous``
    :raises ValueError: for any other string
    """
    if not isinstance(value, str):
        return value
    one_of(name, value, ["auto"])
    return AUTO[name][kind == "continuous"]


def gradient_kind(rho: FloatSchedule) -> ActorGradient:
    """Which gradients the actor's loss needs; a schedule may need both.

    :raises ValueError: if ρ is a number outside [0, 1]
    """
    value = constant(rho)
    if value is None:
        return "both"
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"rho={value!r} must be from 0 (dynamics gradients) to 1 (REINFORCE)")
    return "reinforce" if value == 1.0 else "dynamics" if value == 0.0 else "both"


def constant(schedule: FloatSchedule) -> float | None:
    """The value of a schedule that never changes, else None."""
    inner = schedule.value_schedule
    return float(inner.val) if isinstance(inner, ConstantSchedule) else None


def apply_recipe(model: "DreamerV2") -> ScheduledValues:
    """Set loss scales, cut gradients, estimators and the actor's kind of gradient.

    :raises ValueError: for values that do not work together, saying what to write instead
    """
    world_model, behavior = model.policy.world_model, model.behavior
    kind = model.policy.codec.layout.kind
    names = ("rho", "ent_coef", "kl_scale", "latent_temperature", "actor_temperature")
    schedules = {name: FloatSchedule(resolve_auto(name, getattr(model, name), kind)) for name in names}
    tensors = {name: th.tensor(float(schedules[name](1.0)), device=model.device) for name in names}

    free = resolve_auto("free_nats", model.free_nats, kind)
    if model.kl_balance is None:
        world_model.objective = FreeNatsKL(free=free)
    else:
        if not 0.0 <= model.kl_balance <= 1.0:
            raise ValueError(f"kl_balance={model.kl_balance!r} must be from 0 to 1, or None for the plain KL")
        world_model.objective = BalancedKL(balance=model.kl_balance, free=free, mean=distributed.mean)
    world_model.scales["kl"] = tensors["kl_scale"]
    if isinstance(world_model.cont_head, DiscountHead):
        world_model.cont_head.gamma = model.gamma
        world_model.scales["cont"] = model.discount_scale
    cuts = {"reward": model.reward_gradients, "recon": model.image_gradients}
    world_model.detached = frozenset(name for name, flows in cuts.items() if not flows)

    behavior.actor_gradient = gradient_kind(schedules["rho"])
    set_estimators(model, schedules, tensors)
    return ScheduledValues(tensors, dict(schedules))


def set_estimators(model: "DreamerV2", schedules: dict[str, FloatSchedule], tensors: dict[str, th.Tensor]) -> None:
    """Give the estimators of latents and actions their temperatures.

    :raises ValueError: if the actor's estimator and ρ exclude each other
    """
    spec, rssm, actor = model.policy.spec, model.policy.world_model.rssm, model.behavior.actor
    if isinstance(rssm.latent, CategoricalLatent):
        estimator = _estimator(spec.latent_estimator, "latent_temperature", schedules, tensors)
        rssm.latent = replace(rssm.latent, estimator=estimator)
    if not isinstance(actor, OneHotHead):
        return
    gradient = model.behavior.actor_gradient
    if spec.actor_estimator == "score_function" and gradient != "reinforce":
        raise ValueError(
            "actor_estimator='score_function' gives no dynamics gradients: use rho=1.0, or 'straight_through'"
        )
    if spec.actor_estimator == "gumbel_softmax" and gradient != "dynamics":
        raise ValueError(
            "actor_estimator='gumbel_softmax' draws mixtures of actions, which have no log-probability: use rho=0.0, "
            "or 'st_gumbel_softmax'"
        )
    actor.estimator = _estimator(spec.actor_estimator, "actor_temperature", schedules, tensors)


def _estimator(
    name: str, temperature: str, schedules: dict[str, FloatSchedule], tensors: dict[str, th.Tensor]
) -> Estimator:
    value = constant(schedules[temperature])
    return make_estimator(name, tensors[temperature] if value is None else value)
