"""DreamerV2 (arXiv 2010.02193) as an SB3 algorithm."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.optim import OptimizerGroup, make_adam
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v2.hooks import DreamerV2Hooks
from sb3_dreamer.dreamer_v2.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v2.spec import PRESETS, changed_forms


class DreamerV2(DreamerV2Hooks):
    """Learns a world model with categorical latents from replay and an actor-critic from its dreams.

    Paper: arXiv 2010.02193; defaults are those of its Table D.1. What the paper sets differently for Atari (discrete
    actions) and for control (Box actions) is ``"auto"``. ``DreamerV2.presets`` has the settings of the released code.
    Every number marked *(schedule)* also takes an SB3 schedule, a function of the remaining progress from 1 to 0.

    :param policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``
    :param env: environment, its id, or a VecEnv of any number of environments
    :param learning_rate: of the world model *(schedule)*
    :param buffer_size: rows of replay over all environments
    :param learning_starts: agent steps with random actions before the first update (the paper does not print it; the
        released code has 50,000 for Atari and 1,000 for control)
    :param batch_size: sequences of a batch, B
    :param batch_length: rows of a sequence, T
    :param train_ratio: replayed steps per agent step; updates = agent steps · train_ratio / (B · T): 625 is one
        update every 4 agent steps
    :param tau: share by which the slow critic moves towards the critic at its updates; 1 copies
    :param gamma: discount of a step
    :param gae_lambda: λ of the λ-returns
    :param horizon: steps of a dream, H
    :param ent_coef: entropy scale η; auto: 1e-3 for discrete, 1e-4 for Box actions *(schedule)*
    :param actor_learning_rate: of the actor *(schedule)*
    :param critic_learning_rate: of the critic *(schedule)*
    :param max_grad_norm: largest gradient norm of world model, actor and critic, each
    :param model_size: ``debug``, ``XXS``, ``XS``, ``S``, ``paper``, ``atari``, ``dmc``, ``crafter``; ``auto``: XXS for
        vectors, paper with images
    :param train_freq: environment steps between two rounds of updates
    :param gradient_steps: updates per round, instead of what ``train_ratio`` gives; -1: as many as steps
    :param action_noise: added to the actor's actions while collecting (Box only); the paper uses none
    :param replay_buffer_class: a subclass of :class:`SequenceReplayBuffer`
    :param replay_buffer_kwargs: further arguments of the buffer
    :param optimize_memory_usage: accepted for SB3's sake; observations are never stored twice
    :param overlap: update while environments in other processes take their step (see docs/speed.md); False: as in
        SB3, one after the other
    :param mixed_precision: compute updates with products of bfloat16 (see docs/speed.md); weights stay float32
    :param cuda_graph: replay whole updates as one CUDA graph; None: on CUDA, where it can be; True: or raise; False: no
    :param prefetch: draw the next batch in a thread where several updates are owed; None: on CUDA
    :param target_update_interval: updates between two moves of the slow critic
    :param rho: ρ, share of REINFORCE in the actor's gradient; the rest goes through the dynamics, straight through
        discrete actions. auto: 1 for discrete, 0 for Box actions *(schedule)*. 0 with discrete actions is Table 2's
        "No Policy Reinforce". The released code's ``actor_grad_mix`` is 1 - ρ
    :param kl_scale: β; auto: 0.1 for discrete, 1.0 for Box actions *(schedule)*
    :param kl_balance: α; None takes the plain KL (Table 2, "No KL Balancing")
    :param free_nats: smallest KL that is penalised, of the mean over the batch; auto: 0 for discrete, 1 for Box actions
    :param discount_scale: scale of the discount loss
    :param tanh_rewards: learn from ``tanh(reward)`` (the paper on Atari); logged returns stay raw
    :param reward_gradients: let the reward loss shape the latent state (False: Table 2, "No Reward Gradients")
    :param image_gradients: let the reconstruction shape the latent state (False: Table 2, "No Image Gradients")
    :param latent: ``categorical`` or ``gaussian`` (Table 2, "No Discrete Latents")
    :param layer_norm: False takes away every LayerNorm (Table 2, "No Layer Norm")
    :param latent_estimator: gradient through categorical latents, see :mod:`sb3_dreamer.core.estimators`
    :param actor_estimator: gradient through discrete actions, where ρ is less than 1
    :param latent_temperature: of the latents' estimator *(schedule)*
    :param actor_temperature: of the actor's estimator *(schedule)*
    :param weight_decay: share that every parameter loses at each update, not multiplied with the learning rate
    :param pretrain: further updates before the first one (released code for control: 100)
    :param stats_window_size: episodes over which returns are averaged in the log
    :param tensorboard_log: folder of TensorBoard logs
    :param policy_kwargs: fields of :class:`DreamerV2Spec` to replace, ``net_arch``, ``ignore_keys``
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
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    policy: MlpPolicy

    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 2e-4,
        buffer_size: int = 2_000_000,
        learning_starts: int = 1000,
        batch_size: int = 50,
        batch_length: int = 50,
        train_ratio: float = 625,
        tau: float = 1.0,
        gamma: float = 0.995,
        gae_lambda: float = 0.95,
        horizon: int = 15,
        ent_coef: float | Schedule | str = "auto",
        actor_learning_rate: float | Schedule = 4e-5,
        critic_learning_rate: float | Schedule = 1e-4,
        max_grad_norm: float = 100.0,
        model_size: str = "auto",
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int | None = None,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[SequenceReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        overlap: bool = False,
        mixed_precision: bool = False,
        cuda_graph: bool | None = None,
        prefetch: bool | None = None,
        target_update_interval: int = 100,
        rho: float | Schedule | str = "auto",
        kl_scale: float | Schedule | str = "auto",
        kl_balance: float | None = 0.8,
        free_nats: float | str = "auto",
        discount_scale: float = 1.0,
        tanh_rewards: bool = False,
        reward_gradients: bool = True,
        image_gradients: bool = True,
        latent: str = "categorical",
        layer_norm: bool = True,
        latent_estimator: str = "straight_through",
        actor_estimator: str = "straight_through",
        latent_temperature: float | Schedule = 1.0,
        actor_temperature: float | Schedule = 1.0,
        weight_decay: float = 1e-6,
        pretrain: int = 0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        # The policy must be able to build itself anew from its own arguments, so these belong to them.
        architecture = changed_forms(
            latent=latent, layer_norm=layer_norm, latent_estimator=latent_estimator, actor_estimator=actor_estimator
        )
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
            overlap=overlap,
            mixed_precision=mixed_precision,
            cuda_graph=cuda_graph,
            prefetch=prefetch,
            model_size=model_size,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=architecture | (policy_kwargs or {}),
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
        self.target_update_interval = target_update_interval
        self.rho = rho
        self.kl_scale = kl_scale
        self.kl_balance = kl_balance
        self.free_nats = free_nats
        self.discount_scale = discount_scale
        self.tanh_rewards = tanh_rewards
        self.reward_gradients = reward_gradients
        self.image_gradients = image_gradients
        self.latent_temperature = latent_temperature
        self.actor_temperature = actor_temperature
        self.weight_decay = weight_decay
        self.pretrain = pretrain
        if _init_setup_model:
            self._setup_model()

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """Three Adams with epsilon 1e-5."""
        modules = {"model": self.policy.world_model, "actor": self.behavior.actor, "critic": self.behavior.critic}
        groups = {}
        for name, module in modules.items():
            params = list(module.parameters())
            adam = make_adam(params, 1e-4, eps=1e-5)  # The rate is set before every round of updates.
            groups[f"{name}_optim"] = OptimizerGroup(
                name, params, adam, self.max_grad_norm, weight_decay=self.weight_decay
            )
        return groups

    def _update(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        """World model (Eq. 2), dreams, actor (Eq. 6) and critic (Eq. 4, 5); the slow critic follows every so often."""
        world_model, behavior, now = self.policy.world_model, self.behavior, self.scheduled
        if self.tanh_rewards:
            batch = batch._replace(reward=th.tanh(batch.reward))

        losses, post, metrics = world_model.loss(batch)
        metrics |= self.optimizers["model_optim"].step(world_model.total(losses))

        start, start_cont = post.flatten_time(), 1.0 - batch.is_terminal.flatten().float()
        dream = behavior.rollout(world_model, start, start_cont, self.horizon)
        targets = behavior.targets(dream, self.gamma, self.gae_lambda)
        metrics |= self.optimizers["actor_optim"].step(behavior.actor_loss(dream, targets, now.rho, now.ent_coef))
        metrics |= self.optimizers["critic_optim"].step(behavior.critic_loss(targets))

        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        return metrics | behavior.metrics(dream, targets)
