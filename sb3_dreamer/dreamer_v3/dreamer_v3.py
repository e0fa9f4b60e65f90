"""DreamerV3 (arXiv 2301.04104v1) as an SB3 algorithm."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay import SequenceReplayBuffer
from sb3_dreamer.core.optim import OptimizerGroup, make_adam
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.policies import CnnPolicy, MlpPolicy, MultiInputPolicy


class DreamerV3(WorldModelAlgorithm):
    """Learns a world model from replay and an actor-critic from its dreams; one set of hyperparameters for all domains.

    Paper: arXiv 2301.04104v1, hyperparameters of Table W.1 and of the authors' 2023 code.

    :param policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``
    :param env: environment, its id, or a VecEnv of any number of environments
    :param learning_rate: of the world model
    :param buffer_size: rows of replay over all environments
    :param learning_starts: agent steps with random actions before the first update
    :param batch_size: sequences of a batch, B
    :param batch_length: rows of a sequence, T
    :param train_ratio: replayed steps per agent step; updates = agent steps · train_ratio / (B · T)
    :param tau: share by which the slow critic moves towards the critic at each update
    :param gamma: discount of a step
    :param gae_lambda: λ of the λ-returns
    :param horizon: steps of a dream, H
    :param ent_coef: entropy scale η
    :param actor_learning_rate: of the actor
    :param critic_learning_rate: of the critic
    :param max_grad_norm: largest gradient norm of the world model
    :param actor_max_grad_norm: of the actor
    :param critic_max_grad_norm: of the critic
    :param model_size: ``debug``, ``XXS``, ``XS``, ``S``, ``M``, ``L``, ``XL``; ``auto``: XXS for vectors, S with images
    :param train_freq: environment steps between two rounds of updates
    :param gradient_steps: updates per round, instead of what ``train_ratio`` gives; -1: as many as steps
    :param action_noise: added to the actor's actions while collecting (Box only); the paper uses none
    :param replay_buffer_class: a subclass of :class:`SequenceReplayBuffer`
    :param replay_buffer_kwargs: further arguments of the buffer
    :param optimize_memory_usage: accepted for SB3's sake; observations are never stored twice
    :param stats_window_size: episodes over which returns are averaged in the log
    :param tensorboard_log: folder of TensorBoard logs
    :param policy_kwargs: fields of :class:`DreamerV3Spec` to replace, ``net_arch``, ``ignore_keys``
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: of everything; the same seed gives the same run on a CPU
    :param device: ``auto``, ``cpu``, ``cuda``
    :raises ValueError: for spaces, sizes or numbers that do not work, saying what to write instead
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1024,
        batch_size: int = 16,
        batch_length: int = 64,
        train_ratio: float = 512,
        tau: float = 0.02,
        gamma: float = 1 - 1 / 333,
        gae_lambda: float = 0.95,
        horizon: int = 15,
        ent_coef: float = 3e-4,
        actor_learning_rate: float | Schedule = 3e-5,
        critic_learning_rate: float | Schedule = 3e-5,
        max_grad_norm: float = 1000.0,
        actor_max_grad_norm: float = 100.0,
        critic_max_grad_norm: float = 100.0,
        model_size: str = "auto",
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int | None = None,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[SequenceReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            batch_length,
            train_ratio,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            model_size=model_size,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
        )
        self.gae_lambda = gae_lambda
        self.horizon = horizon
        self.ent_coef = ent_coef
        self.actor_learning_rate = actor_learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.max_grad_norm = max_grad_norm
        self.actor_max_grad_norm = actor_max_grad_norm
        self.critic_max_grad_norm = critic_max_grad_norm
        if _init_setup_model:
            self._setup_model()

    @property
    def behavior(self) -> DreamerV3Behavior:
        """Actor, critic and return statistics."""
        assert isinstance(self.policy.behavior, DreamerV3Behavior)
        return self.policy.behavior

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """Three Adams with the settings of the 2023 code."""
        model, actor, critic = self.policy.world_model, self.behavior.actor, self.behavior.critic
        rates = {name: rate if isinstance(rate, float) else 1e-4 for name, rate in self._learning_rates().items()}

        def group(name: str, module: th.nn.Module, eps: float, clip: float) -> OptimizerGroup:
            params = list(module.parameters())
            return OptimizerGroup(name, params, make_adam(params, rates[f"{name}_optim"], eps=eps), clip)

        return {
            "model_optim": group("model", model, 1e-8, self.max_grad_norm),
            "actor_optim": group("actor", actor, 1e-5, self.actor_max_grad_norm),
            "critic_optim": group("critic", critic, 1e-5, self.critic_max_grad_norm),
        }

    def _learning_rates(self) -> dict[str, float | Schedule]:
        return {
            "model_optim": self.learning_rate,
            "actor_optim": self.actor_learning_rate,
            "critic_optim": self.critic_learning_rate,
        }

    def _update(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        """World model (Eq. 4, 5), dreams, actor (Eq. 11) and critic (Eq. 8 to 10), slow critic."""
        world_model, behavior = self.policy.world_model, self.behavior

        losses, post, metrics = world_model.loss(batch)
        metrics |= self.optimizers["model_optim"].step(world_model.total(losses))

        start, start_cont = post.flatten_time(), 1.0 - batch.is_terminal.flatten().float()
        dream = behavior.rollout(world_model, start, start_cont, self.horizon)
        targets = behavior.targets(dream, self.gamma, self.gae_lambda)
        actor_loss = behavior.actor_loss(dream, targets, self.ent_coef)
        critic_loss = behavior.critic_loss(dream, targets)
        metrics |= self.optimizers["actor_optim"].step(actor_loss, retain_graph=True)
        metrics |= self.optimizers["critic_optim"].step(critic_loss)
        behavior.update_slow_critic(self.tau)

        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        return metrics | behavior.metrics(dream, targets)
