"""DreamerV2 (arXiv 2010.02193) as an SB3 algorithm."""

from dataclasses import replace
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutReturn, Schedule
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule

from sb3_dreamer.common import distributed
from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.arguments import check_flags, check_range, default_values, explained, warn_of_unused
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.spec import one_of
from sb3_dreamer.core.action_heads import OneHotHead
from sb3_dreamer.core.behavior import Behavior, NoisyBehavior
from sb3_dreamer.core.estimators import Estimator, make_estimator
from sb3_dreamer.core.imagination import ActorGradient
from sb3_dreamer.core.latents import CategoricalLatent
from sb3_dreamer.core.objectives import BalancedKL, FreeNatsKL
from sb3_dreamer.core.optim import Adam, OptimizerGroup
from sb3_dreamer.core.types import ModelOutput, SequenceBatch, UpdateResult
from sb3_dreamer.dreamer_v2.behavior import DreamerV2Behavior
from sb3_dreamer.dreamer_v2.networks import DiscountHead
from sb3_dreamer.dreamer_v2.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v2.spec import PRESETS

#: What ``"auto"`` stands for: on Atari (discrete actions) and for control (Box actions), Section 2.3 and Appendix D.
AUTO = {"rho": (1.0, 0.0), "ent_coef": (1e-3, 1e-4), "kl_scale": (0.1, 1.0), "free_nats": (0.0, 1.0)}
SCHEDULED = ("rho", "ent_coef", "kl_scale", "latent_temperature", "actor_temperature")


class DreamerV2(WorldModelAlgorithm):
    """Learns a world model with categorical latents from replay and an actor-critic from its dreams.

    Paper: arXiv 2010.02193; defaults are those of its Table D.1. What the paper sets differently for Atari (discrete
    actions) and for control (Box actions) is ``"auto"``. ``DreamerV2.presets`` has the settings of the released code,
    and those of the first Dreamer (arXiv 1912.01603) under the name ``dreamer_v1``.
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
    :param tau: share by which the slow critic moves toward the critic at its updates; 1 copies
    :param gamma: discount of a step
    :param gae_lambda: λ of the λ-returns
    :param horizon: steps of a dream, H
    :param ent_coef: entropy scale η; auto: 1e-3 for discrete, 1e-4 for Box actions *(schedule)*
    :param actor_learning_rate: of the actor *(schedule)*
    :param critic_learning_rate: of the critic *(schedule)*
    :param max_grad_norm: largest gradient norm of world model, actor and critic, each
    :param model_size: ``debug``, ``XXS``, ``XS``, ``S``, ``paper``, ``atari``, ``dmc``, ``crafter``, ``dreamer_v1``;
        ``auto``: XXS for vectors, paper with images
    :param train_freq: environment steps between two rounds of updates
    :param gradient_steps: updates per round, instead of what ``train_ratio`` gives; -1: as many as steps
    :param action_noise: added to the actor's actions while collecting (Box only); the paper uses none
    :param replay_buffer_class: a subclass of :class:`SequenceReplayBuffer`
    :param replay_buffer_kwargs: further arguments of the buffer
    :param optimize_memory_usage: accepted for compatibility with SB3; observations are never stored twice
    :param overlap: update while environments in other processes take their step (see docs/speed.md); False: as in
        SB3, one after the other
    :param mixed_precision: compute updates with products of bfloat16 (see docs/speed.md); weights stay float32
    :param cuda_graph: replay whole updates as one CUDA graph on CUDA; None: if it can be; True: or raise; False: no
    :param compile: True: compile the steps that an update repeats (see docs/speed.md); ``auto``: if the run has so many
        updates that it pays; False: no
    :param prefetch: draw the next batch in a thread where several updates are owed; None: on CUDA
    :param target_update_interval: updates between two moves of the slow critic
    :param rho: ρ, share of REINFORCE in the actor's gradient; the rest goes through the dynamics, straight through
        discrete actions. auto: 1 for discrete, 0 for Box actions *(schedule)*. 0 with discrete actions is Table 2's
        "No Policy Reinforce". The released code's ``actor_grad_mix`` is 1 - ρ
    :param kl_scale: β; auto: 0.1 for discrete, 1.0 for Box actions *(schedule)*
    :param kl_balance: α; None takes the plain KL (Table 2, "No KL Balancing")
    :param free_nats: smallest KL that is penalized: of the mean over the batch, or of each step if ``kl_balance`` is
        None; auto: 0 for discrete, 1 for Box actions
    :param discount_scale: scale of the discount loss
    :param tanh_rewards: learn from ``tanh(reward)`` (the paper on Atari); logged returns stay raw
    :param reward_gradients: let the reward loss shape the latent state (False: Table 2, "No Reward Gradients")
    :param image_gradients: let the reconstruction shape the latent state (False: Table 2, "No Image Gradients")
    :param latent_temperature: of the latents' estimator *(schedule)*
    :param actor_temperature: of the actor's estimator *(schedule)*
    :param weight_decay: share that every parameter loses at each update, not multiplied with the learning rate
    :param exploration_noise: standard deviation of noise on Box actions while collecting, clipped to the bounds; of
        discrete actions the share that is drawn uniformly (Dreamer V1: 0.3)
    :param pretrain: further updates before the first one (released code for control: 100)
    :param max_skipped_updates: so many non-finite updates in a row end the run with a report; 0: never
    :param stats_window_size: episodes over which returns are averaged in the log
    :param tensorboard_log: folder of TensorBoard logs
    :param policy_kwargs: fields of :class:`DreamerV2Spec` to replace (sizes, ``latent``, ``layer_norm``,
        ``latent_estimator``, ``actor_estimator``, ...), ``net_arch``, ``ignore_keys``
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

    @explained
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
        compile: bool | str = False,
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
        latent_temperature: float | Schedule = 1.0,
        actor_temperature: float | Schedule = 1.0,
        weight_decay: float = 1e-6,
        exploration_noise: float = 0.0,
        pretrain: int = 0,
        max_skipped_updates: int = 3,
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
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            batch_length=batch_length,
            train_ratio=train_ratio,
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
            compile=compile,
            prefetch=prefetch,
            max_skipped_updates=max_skipped_updates,
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
        self.exploration_noise = exploration_noise
        self.pretrain = pretrain
        if _init_setup_model:
            self._setup_model()
            self._warn_of_unused_arguments()

    # ---- construction ----------------------------------------------------------------------------------------------

    @property
    def behavior(self) -> DreamerV2Behavior:
        """Actor, critic and slow critic."""
        assert isinstance(self.policy.behavior, DreamerV2Behavior)
        return self.policy.behavior

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("actor_learning_rate", "critic_learning_rate"):
            check_range(name, getattr(self, name), 0.0, schedule=True)
        check_range("gae_lambda", self.gae_lambda, 0.0, 1.0)
        check_flags(self, "tanh_rewards", "reward_gradients", "image_gradients")
        check_range("horizon", self.horizon, 1, whole=True, hint="steps of a dream")
        check_range("max_grad_norm", self.max_grad_norm, 0.0, above=True)
        check_range("target_update_interval", self.target_update_interval, 1, whole=True)
        check_range("pretrain", self.pretrain, 0, whole=True)
        check_range("exploration_noise", self.exploration_noise, 0.0)
        check_range("discount_scale", self.discount_scale, 0.0)
        check_range("weight_decay", self.weight_decay, 0.0, 1.0)
        for name in (*SCHEDULED, "free_nats"):
            value, scheduled = resolve_auto(name, getattr(self, name), "discrete"), name in SCHEDULED
            check_range(name, value, 0.0, above=name.endswith("temperature"), schedule=scheduled)
        if self.kl_balance is not None:
            check_range("kl_balance", self.kl_balance, 0.0, 1.0, hint="or None for the plain KL")

    def _setup_model(self) -> None:
        super()._setup_model()
        kind = self.policy.codec.layout.kind
        #: schedules of numbers that may change while training, and what they give now: 0-d, filled in place
        self.schedules = {name: FloatSchedule(resolve_auto(name, getattr(self, name), kind)) for name in SCHEDULED}
        progress = self._current_progress_remaining  # of a file: as far as its run was
        self.now = {name: th.tensor(float(rate(progress)), device=self.device) for name, rate in self.schedules.items()}
        self._set_up_world_model(resolve_auto("free_nats", self.free_nats, kind))
        self.behavior.actor_gradient = gradient_kind(self.schedules["rho"])
        self._set_up_estimators()

    def _warn_of_unused_arguments(self) -> None:
        """Warn of arguments without effect, because the part that uses them is off."""
        spec, behavior = self.policy.spec, self.behavior
        through_actions = isinstance(behavior.actor, OneHotHead) and behavior.actor_gradient != "reinforce"
        warn_of_unused(
            self,
            default_values(DreamerV2),
            (spec.discount_head, ["discount_scale"], "Remove it, or add policy_kwargs={'discount_head': True}"),
            (spec.latent == "categorical", ["latent_temperature"], "It is for categorical latents: remove it"),
            (through_actions, ["actor_temperature"], "It is for discrete actions with rho below 1: remove it"),
        )

    def _set_up_world_model(self, free_nats: float) -> None:
        """Set the KL objective, the scales of the losses and the gradients that are cut (Table 2)."""
        world_model = self.policy.world_model
        if self.kl_balance is None:
            world_model.objective = FreeNatsKL(free=free_nats)
        else:
            mean = distributed.differentiable_mean
            world_model.objective = BalancedKL(balance=self.kl_balance, free=free_nats, mean=mean)
        world_model.scales["kl"] = self.now["kl_scale"]
        if isinstance(world_model.cont_head, DiscountHead):
            world_model.scales["cont"] = self.discount_scale
        flows = {"reward": self.reward_gradients, "recon": self.image_gradients}
        world_model.detached = frozenset(name for name, flow in flows.items() if not flow)

    def _set_up_estimators(self) -> None:
        """Set the gradient estimators of latents and discrete actions, with their temperatures.

        :raises ValueError: if the actor's estimator and ρ exclude each other
        """
        spec, rssm, actor = self.policy.spec, self.policy.world_model.rssm, self.behavior.actor
        if isinstance(rssm.latent, CategoricalLatent):
            estimator = self._estimator(spec.latent_estimator, "latent_temperature")
            rssm.latent = replace(rssm.latent, estimator=estimator)
        if not isinstance(actor, OneHotHead):
            return
        gradient = self.behavior.actor_gradient
        if spec.actor_estimator == "score_function" and gradient != "reinforce":
            raise ValueError(
                "actor_estimator='score_function' gives no dynamics gradients: use rho=1.0, or 'straight_through'"
            )
        if spec.actor_estimator == "gumbel_softmax" and gradient != "dynamics":
            raise ValueError(
                "actor_estimator='gumbel_softmax' draws mixtures of actions, which have no log-probability: use "
                "rho=0.0, or 'st_gumbel_softmax'"
            )
        actor.estimator = self._estimator(spec.actor_estimator, "actor_temperature")

    def _estimator(self, name: str, temperature: str) -> Estimator:
        fixed = constant(self.schedules[temperature])
        return make_estimator(name, self.now[temperature] if fixed is None else fixed)

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """Three of TensorFlow's Adams with epsilon 1e-5."""
        modules = {"model": self.policy.world_model, "actor": self.behavior.actor, "critic": self.behavior.critic}
        groups = {}
        for name, module in modules.items():
            params = list(module.parameters())
            adam = Adam(params, 1e-4, eps=1e-5)  # The rate is set before every round of updates.
            groups[f"{name}_optim"] = OptimizerGroup(
                name, params, adam, self.max_grad_norm, weight_decay=self.weight_decay
            )
        return groups

    def _learning_rates(self) -> dict[str, float | Schedule]:
        return {
            "model_optim": self.learning_rate,
            "actor_optim": self.actor_learning_rate,
            "critic_optim": self.critic_learning_rate,
        }

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "schedules", "now"]

    def _follow_schedules(self, progress_remaining: float) -> None:
        """Fill in what the schedules give, from 1 at the start of training to 0 at its end."""
        for name, schedule in self.schedules.items():
            self.now[name].fill_(schedule(progress_remaining))

    def _exploration_behavior(self) -> Behavior | None:
        noise = self.exploration_noise
        return NoisyBehavior(self.behavior, self.policy.codec.layout, noise) if noise else None

    # ---- updates ---------------------------------------------------------------------------------------------------

    def _train_after(self, rollout: RolloutReturn) -> None:
        if self.pretrain and self._n_updates == 0:
            self.train(self.pretrain, self.batch_size)
        super()._train_after(rollout)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Do a number of updates; see :meth:`WorldModelAlgorithm.train`."""
        self._follow_schedules(self._current_progress_remaining)
        super().train(gradient_steps, batch_size)

    def _update(self, batch: SequenceBatch) -> UpdateResult:
        """World model (Eq. 2), dreams, actor (Eq. 6) and critic (Eq. 4, 5); the slow critic follows every so often."""
        world_model, behavior = self.policy.world_model, self.behavior

        losses, post, metrics = self._model_loss(batch)
        metrics |= self.optimizers["model_optim"].step(world_model.total(losses))

        start_cont = 1.0 - batch.is_terminal.flatten().float()
        dream = behavior.rollout(world_model, post.flatten_time(), start_cont, self.horizon)
        targets = behavior.targets(dream, self.gamma, self.gae_lambda)
        actor_loss = behavior.actor_loss(dream, targets, self.now["rho"], self.now["ent_coef"])
        metrics |= self.optimizers["actor_optim"].step(actor_loss)
        metrics |= self.optimizers["critic_optim"].step(behavior.critic_loss(targets))

        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        metrics |= behavior.metrics(dream, targets.value, targets.returns)
        metrics |= {"batch_reward_std": self._learned_reward(batch).std()}
        return UpdateResult(metrics, post.detach())

    def _model_loss(self, batch: SequenceBatch) -> ModelOutput:
        """Losses of the world model, as an update computes them."""
        return super()._model_loss(batch._replace(reward=self._learned_reward(batch)))

    def _learned_reward(self, batch: SequenceBatch) -> th.Tensor:
        """Rewards as the reward head learns them, ``(B, T)``."""
        return th.tanh(batch.reward) if self.tanh_rewards else batch.reward

    def _after_update(self, result: UpdateResult) -> None:
        """Move the slow critic, with the first update and then at every ``target_update_interval``-th."""
        if self._n_updates % self.target_update_interval == 0:
            self.behavior.update_slow_critic(self.tau)


def resolve_auto(name: str, value: Any, kind: str) -> Any:
    """The paper's value of ``"auto"`` for a kind of actions; any other value as it is.

    :param kind: ``discrete`` or ``continuous``
    :raises ValueError: for any other string
    """
    if not isinstance(value, str):
        return value
    if name not in AUTO:
        raise ValueError(f"{name}={value!r} must be a number or a function of the remaining progress")
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
