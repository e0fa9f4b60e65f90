"""The algorithm box of the 2024 version: one loss, one LaProp."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.type_aliases import Schedule

from sb3_dreamer.core.optim import LaProp, OptimizerGroup, clipping_units
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v3.networks2024 import build_behavior, build_world_model, joint_kernels

if TYPE_CHECKING:
    from sb3_dreamer.dreamer_v3.dreamer_v3 import DreamerV3


@dataclass(frozen=True)
class DiscountedContinue:
    """Target of the continue head with the discount inside: ``(1 - is_terminal) γ``.

    :param gamma: discount of a step
    """

    gamma: float

    def __call__(self, is_terminal: th.Tensor) -> th.Tensor:
        """``(B, T)`` to ``(B, T)``."""
        return (1.0 - is_terminal.float()) * self.gamma


class Family2024:
    """Optimizer and update of the authors' December 2024 code."""

    learning_rate = 4e-5
    replay_context = True
    build_world_model = staticmethod(build_world_model)
    build_behavior = staticmethod(build_behavior)

    @staticmethod
    def prepare(model: "DreamerV3") -> None:
        """Put the discount inside the continue head."""
        model.policy.world_model.cont_target = DiscountedContinue(model.gamma)

    @staticmethod
    def make_optimizers(model: "DreamerV3") -> dict[str, OptimizerGroup]:
        """One LaProp with adaptive clipping for everything but the slow critic."""
        modules = (model.policy.world_model, model.behavior.actor, model.behavior.critic)
        params = [param for module in modules for param in module.parameters()]
        units = clipping_units(params, joint_kernels(model.policy.world_model))
        rate = model.learning_rate if isinstance(model.learning_rate, float) else 4e-5
        optimizer = LaProp(params, rate, agc=model.agc, warmup=model.warmup_updates, units=units)
        return {"model_optim": OptimizerGroup("model", params, optimizer, None)}

    @staticmethod
    def learning_rates(model: "DreamerV3") -> dict[str, float | Schedule]:
        """One for all; the warm-up is the optimizer's."""
        return {"model_optim": model.learning_rate}

    @staticmethod
    def update(model: "DreamerV3", batch: SequenceBatch) -> dict[str, th.Tensor]:
        """All losses of the world model, the actor and the critic in one step; then the slow critic.

        The continue head's prediction holds the discount (at the start of a dream, too), so γ is 1 in the dream.
        """
        world_model, behavior = model.policy.world_model, model.behavior

        losses, post, metrics = world_model.loss(batch, model.replay_state(batch))

        start = post.detach().flatten_time()
        with th.no_grad():
            start_cont = world_model.cont(start.feat)
        dream = behavior.rollout(world_model, start, start_cont, model.horizon)
        targets = behavior.targets(dream, 1.0, model.gae_lambda)
        actor_loss = behavior.actor_loss(dream, targets, model.ent_coef)
        critic_loss = behavior.critic_loss(dream, targets)
        dream_return = targets.returns[:, 0].unflatten(0, batch.reward.shape)
        replay_loss = behavior.replay_value_loss(post, batch, dream_return, model.gamma, model.gae_lambda).mean()

        total = world_model.total(losses) + actor_loss + critic_loss + model.replay_value_scale * replay_loss
        metrics |= model.optimizers["model_optim"].step(total)
        behavior.update_slow_critic(model.tau)

        model.remember(post)
        metrics |= {"actor_loss": actor_loss.detach(), "critic_loss": critic_loss.detach()}
        metrics |= {"loss_replay_value": replay_loss.detach()}
        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        return metrics | behavior.metrics(dream, targets)
