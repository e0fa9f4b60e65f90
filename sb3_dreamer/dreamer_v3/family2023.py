"""The algorithm box of the 2023 version: three losses, three Adams."""

from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.type_aliases import Schedule

from sb3_dreamer.core.optim import OptimizerGroup, make_adam
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v3.networks import build_behavior, build_world_model

if TYPE_CHECKING:
    from sb3_dreamer.dreamer_v3.dreamer_v3 import DreamerV3


class Family2023:
    """Optimizers and update of the paper that arXiv 2301.04104v1 describes."""

    learning_rate = 1e-4
    replay_context = False
    build_world_model = staticmethod(build_world_model)
    build_behavior = staticmethod(build_behavior)

    @staticmethod
    def prepare(model: "DreamerV3") -> None:
        """Nothing but the common recipe: γ multiplies the continue flag outside of its head."""

    @staticmethod
    def make_optimizers(model: "DreamerV3") -> dict[str, OptimizerGroup]:
        """Three Adams with the settings of the 2023 code."""
        world_model, actor, critic = model.policy.world_model, model.behavior.actor, model.behavior.critic
        rates = {name: rate if isinstance(rate, float) else 1e-4 for name, rate in model._learning_rates().items()}

        def group(name: str, module: th.nn.Module, eps: float, clip: float) -> OptimizerGroup:
            params = list(module.parameters())
            return OptimizerGroup(name, params, make_adam(params, rates[f"{name}_optim"], eps=eps), clip)

        return {
            "model_optim": group("model", world_model, 1e-8, model.max_grad_norm),
            "actor_optim": group("actor", actor, 1e-5, model.actor_max_grad_norm),
            "critic_optim": group("critic", critic, 1e-5, model.critic_max_grad_norm),
        }

    @staticmethod
    def learning_rates(model: "DreamerV3") -> dict[str, float | Schedule]:
        """One for each optimizer."""
        return {
            "model_optim": model.learning_rate,
            "actor_optim": model.actor_learning_rate,
            "critic_optim": model.critic_learning_rate,
        }

    @staticmethod
    def update(model: "DreamerV3", batch: SequenceBatch) -> dict[str, th.Tensor]:
        """World model (Eq. 4, 5), dreams, actor (Eq. 11) and critic (Eq. 8 to 10), slow critic."""
        world_model, behavior = model.policy.world_model, model.behavior

        losses, post, metrics = world_model.loss(batch, model.replay_state(batch))
        metrics |= model.optimizers["model_optim"].step(world_model.total(losses))

        start, start_cont = post.flatten_time(), 1.0 - batch.is_terminal.flatten().float()
        dream = behavior.rollout(world_model, start, start_cont, model.horizon)
        targets = behavior.targets(dream, model.gamma, model.gae_lambda)
        actor_loss = behavior.actor_loss(dream, targets, model.ent_coef)
        critic_loss = behavior.critic_loss(dream, targets)
        metrics |= model.optimizers["actor_optim"].step(actor_loss, retain_graph=True)
        metrics |= model.optimizers["critic_optim"].step(critic_loss)
        behavior.update_slow_critic(model.tau)

        model.remember(post)
        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        return metrics | behavior.metrics(dream, targets)
