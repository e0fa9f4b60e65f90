"""DreamerV3 (arXiv 2301.04104v1) as an SB3 algorithm."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import LinearSchedule

from sb3_dreamer.common import distributed, report
from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.arguments import check_flags, check_range, default_values, explained, warn_of_unused
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.spaces import observation_keys
from sb3_dreamer.common.spec import one_of
from sb3_dreamer.core.action_masks import MaskedActing, MaskedRandom
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.functional import only
from sb3_dreamer.core.objectives import DynRepKL
from sb3_dreamer.core.optim import LaProp, OptimizerGroup, clipping_units, make_adam
from sb3_dreamer.core.types import LatentState, ModelOutput, SequenceBatch, UpdateResult
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.networks import joint_kernels
from sb3_dreamer.dreamer_v3.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v3.replay import CONTEXT_DTYPES, START, AnnotatedReplayBuffer
from sb3_dreamer.dreamer_v3.spec import SIZES, resolve_size

_PAPER = {"batch_size": 16, "batch_length": 64, "train_ratio": 512, "ent_coef": 3e-4, "warmup_updates": 1000}
#: defaults that depend on the size, by family, or by size where it is ours. Networks as small as those of ``100k`` take
#: larger steps, keep what they learned better with more sequences, a falling rate and more entropy, and are for CPUs,
#: hence fewer updates: measured in docs/notebook/cartpole.md
DEFAULTS: dict[str, dict[str, Any]] = {
    "2023": {"learning_rate": 1e-4, **_PAPER},
    "2024": {"learning_rate": 4e-5, **_PAPER},
    "100k": {
        "learning_rate": LinearSchedule(1e-3, 0.0, 1.0),
        "batch_size": 32,
        "batch_length": 16,
        "train_ratio": 128,
        "ent_coef": 3e-3,
        "warmup_updates": 50,
    },
}
CRITIC_TARGETS = ("fast", "slow")
RETURN_NORMS = ("percentile", "return_std", "advantage_std")
CLIPS = ("max_grad_norm", "actor_max_grad_norm", "critic_max_grad_norm")
ONLY = {  #: arguments that act in one family only
    "2023": ("actor_learning_rate", "critic_learning_rate", *CLIPS),
    "2024": ("agc", "warmup_updates", "replay_value_scale"),
}


def default_arguments(size: str) -> dict[str, Any]:
    """Values of the arguments that are None by default: the size's own, else its family's.

    :param size: a name in ``SIZES``
    """
    return DEFAULTS[size if size in DEFAULTS else SIZES[size].family]


class DreamerV3(WorldModelAlgorithm):
    """Learns a world model from replay and an actor-critic from its dreams; one set of hyperparameters for all domains.

    ``model_size`` chooses between two released families: 2023 (arXiv 2301.04104v1, hyperparameters of Table W.1 and of
    the authors' 2023 code; by default with images) and 2024 (the authors' code of December 2024; by default with
    vectors); see docs/dreamer_v3.md. Arguments marked with a year act in that family only. Those that are None by
    default have the values in parentheses: the paper's, or those of ``100k``, a size that is ours.

    :param policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``
    :param env: environment, its id, or a VecEnv of any number of environments
    :param learning_rate: of the world model (2023: 1e-4) or of everything (2024: 4e-5; ``100k``: from 1e-3 to 0 over
        the steps of ``learn``)
    :param buffer_size: rows of replay over all environments
    :param learning_starts: agent steps with random actions before the first update
    :param batch_size: sequences of a batch, B (16; ``100k``: 32)
    :param batch_length: rows of a sequence, T (64; ``100k``: 16)
    :param train_ratio: replayed steps per agent step (512; ``100k``: 128): agent steps · train_ratio / (B · T) updates
    :param tau: share by which the slow critic moves toward the critic at each update
    :param gamma: discount of a step
    :param gae_lambda: λ of the λ-returns
    :param horizon: steps of a dream, H
    :param ent_coef: entropy scale η (3e-4; ``100k``: 3e-3)
    :param actor_learning_rate: of the actor (2023)
    :param critic_learning_rate: of the critic (2023)
    :param max_grad_norm: largest gradient norm of the world model (2023)
    :param actor_max_grad_norm: of the actor (2023)
    :param critic_max_grad_norm: of the critic (2023)
    :param model_size: 2023: ``debug``, ``XXS``, ``XS``, ``S``, ``M``, ``L``, ``XL``; 2024: ``debug2024``,
        ``100k``, ``1m``, ``12m``, ``25m``, ``50m``, ``100m``, ``200m``, ``400m``; ``auto``: 100k for vectors, S
        with images
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
    :param kl_balancing: False weighs both sides of the KL alike (ablation, Figure D.1)
    :param free_bits: nats below which the KL is not minimized; 0 switches them off (ablation, Figure D.1)
    :param critic_target: returns from the critic (``fast``) or from its average (``slow``; ablation, Figure D.2)
    :param return_norm: ``percentile``; ``return_std`` or ``advantage_std`` (ablation, Figure D.3)
    :param return_norm_min: smallest scale that returns are divided by; 0 switches it off (ablation, Figure D.3)
    :param agc: largest ratio of gradient norm to parameter norm (2024)
    :param warmup_updates: updates over which the learning rate rises from 0 (2024; 1,000, ``100k``: 50)
    :param replay_value_scale: factor of the critic's loss on replayed rewards (2024)
    :param replay_context: store latent states in replay and start sequences from them instead of from a fresh state;
        None: the family's (2024: yes, 2023: no). It takes 2 bytes per deter unit and 1 per latent of every row
    :param context_dtype: ``float16`` or ``float32``, in which deter is stored
    :param explore_until: agent steps that the explorer of ``policy_kwargs={"exploration": "plan2explore"}`` collects;
        then the task's actor does. None: all. May be changed between two ``learn()``
    :param max_skipped_updates: so many non-finite updates in a row end the run with a report; 0: never
    :param stats_window_size: episodes over which returns are averaged in the log
    :param tensorboard_log: folder of TensorBoard logs
    :param policy_kwargs: fields of :class:`DreamerV3Spec` to replace (sizes, ``regression``, ``symlog_inputs``,
        ``action_masks``, ``exploration``, ...), ``net_arch``, ``ignore_keys``
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: of everything; the same seed gives the same run on a CPU
    :param device: ``auto``, ``cpu``, ``cuda``
    :raises ValueError: for spaces, sizes or numbers that do not work, saying what to write instead
    """

    policy: MlpPolicy
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    @explained
    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule | None = None,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1024,
        batch_size: int | None = None,
        batch_length: int | None = None,
        train_ratio: float | None = None,
        tau: float = 0.02,
        gamma: float = 1 - 1 / 333,
        gae_lambda: float = 0.95,
        horizon: int = 15,
        ent_coef: float | None = None,
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
        overlap: bool = False,
        mixed_precision: bool = False,
        cuda_graph: bool | None = None,
        compile: bool | str = False,
        prefetch: bool | None = None,
        kl_balancing: bool = True,
        free_bits: float = 1.0,
        critic_target: str = "fast",
        return_norm: str = "percentile",
        return_norm_min: float = 1.0,
        agc: float = 0.3,
        warmup_updates: int | None = None,
        replay_value_scale: float = 0.3,
        replay_context: bool | None = None,
        context_dtype: str = "float16",
        explore_until: int | None = None,
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
            learning_rate,  # type: ignore[arg-type]  # it and others are None until the size is known
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            batch_length=batch_length,  # type: ignore[arg-type]
            train_ratio=train_ratio,  # type: ignore[arg-type]
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
        self.ent_coef: float = ent_coef  # type: ignore[assignment]
        self.actor_learning_rate = actor_learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.max_grad_norm = max_grad_norm
        self.actor_max_grad_norm = actor_max_grad_norm
        self.critic_max_grad_norm = critic_max_grad_norm
        self.kl_balancing = kl_balancing
        self.free_bits = free_bits
        self.critic_target = critic_target
        self.return_norm = return_norm
        self.return_norm_min = return_norm_min
        self.agc = agc
        self.warmup_updates: int = warmup_updates  # type: ignore[assignment]
        self.replay_value_scale = replay_value_scale
        self.replay_context = replay_context
        self.context_dtype = context_dtype
        self.explore_until = explore_until
        self._mask: np.ndarray | None = None
        if _init_setup_model:
            self._setup_model()
            self._warn_of_unused_arguments()

    # ---- construction ----------------------------------------------------------------------------------------------

    @property
    def behavior(self) -> DreamerV3Behavior:
        """Actor, critic and return statistics."""
        assert isinstance(self.policy.behavior, DreamerV3Behavior)
        return self.policy.behavior

    def _check_arguments(self) -> None:
        self._fill_in_defaults()
        super()._check_arguments()
        for name in ("actor_learning_rate", "critic_learning_rate"):
            check_range(name, getattr(self, name), 0.0, schedule=True)
        check_range("gae_lambda", self.gae_lambda, 0.0, 1.0)
        check_range("horizon", self.horizon, 1, whole=True, hint="steps of a dream")
        check_range("ent_coef", self.ent_coef, 0.0, hint="the paper's 3e-4 is for all tasks")
        for name in CLIPS:
            check_range(name, getattr(self, name), 0.0, above=True)
        for name in ("free_bits", "return_norm_min", "replay_value_scale", "agc"):
            check_range(name, getattr(self, name), 0.0)
        if self.explore_until is not None:
            check_range("explore_until", self.explore_until, 0, whole=True)
        check_range("warmup_updates", self.warmup_updates, 0, whole=True)
        check_flags(self, "kl_balancing")
        check_flags(self, "replay_context", none=True)
        one_of("context_dtype", self.context_dtype, CONTEXT_DTYPES)
        one_of("critic_target", self.critic_target, CRITIC_TARGETS)
        one_of("return_norm", self.return_norm, RETURN_NORMS)

    def _fill_in_defaults(self) -> None:
        """Set the arguments that are None to what the size has, which may depend on the observations."""
        keys = observation_keys(
            self.observation_space,
            self.policy_kwargs.get("ignore_keys", ()),
            normalize_images=self.policy_kwargs.get("normalize_images", True),
        )
        for name, value in default_arguments(resolve_size(self.model_size, keys)).items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.explore_until is not None and self.policy.explorer is None:
            how = "policy_kwargs={'exploration': 'plan2explore'}"
            raise ValueError(f"explore_until={self.explore_until} has no effect without an explorer: add {how}")
        if self.policy.spec.action_masks:
            self.warmup_behavior = MaskedRandom(self.policy.codec.layout)
        self._set_up_ablations()

    def _warn_of_unused_arguments(self) -> None:
        """Name the arguments that were changed but only act in the other family, or in a part that is off."""
        size, family = self.model_size, self.policy.spec.family
        advice = f"model_size={size!r} belongs to the {family} version (see docs/dreamer_v3.md): remove it, or choose"
        warn_of_unused(
            self,
            default_values(DreamerV3) | default_arguments(size),
            *((family == year, names, f"{advice} a size of the {year} version") for year, names in ONLY.items()),
            (self._stores_latents, ["context_dtype"], "Remove it, or set replay_context=True"),
        )

    def _set_up_ablations(self) -> None:
        """Set the KL objective, the critic's target and the normalization of returns (Figures D.1 to D.3).

        Without KL balancing both sides of the KL get the same weight, with the same sum as before.
        """
        world_model, explorer = self.policy.world_model, self.policy.explorer
        objective = world_model.objective
        assert isinstance(objective, DynRepKL)
        if not self.kl_balancing:
            mean = (objective.dyn + objective.rep) / 2
            objective = replace(objective, dyn=mean, rep=mean)
        world_model.objective = replace(objective, free=self.free_bits)
        world_model.scales |= world_model.objective.scales
        # Without a minimum the range of the first returns, which are all equal, is 0. The explorer's returns are sums
        # of disagreement, far below 1: they are brought to the range of 1 to count against the entropy.
        minima = [(self.behavior, self.return_norm_min or 1e-8)]
        minima += [(explorer.behavior, 1e-3)] if explorer else []
        for behavior, minimum in minima:
            behavior.all_gather = distributed.all_gather
            behavior.critic_target = self.critic_target  # type: ignore[assignment]
            if (self.return_norm, minimum) != ("percentile", 1.0):
                behavior.set_normalization(self.return_norm, minimum)  # type: ignore[arg-type]

    def describe(self) -> list[tuple[str, str]]:
        """Describe what is about to be trained; see :meth:`WorldModelAlgorithm.describe`."""
        explorer, until = self.policy.explorer, self.explore_until
        if explorer is None:
            return super().describe()
        steps = "all steps" if until is None else f"the first {until:,} steps"
        text = f"{self.policy.spec.exploration} collects {steps}, {report.parameter_count(explorer):,} parameters"
        return [*super().describe(), ("exploration", text)]

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """Three Adams (2023), or one LaProp with adaptive clipping for everything but the slow critic (2024).

        An explorer has three more of the same kind.
        """
        modules = {"model": self.policy.world_model, "actor": self.behavior.actor, "critic": self.behavior.critic}
        explorer, more = self.policy.explorer, dict[str, th.nn.Module]()
        if explorer is not None:
            more |= {"explorer_actor": explorer.behavior.actor, "explorer_critic": explorer.behavior.critic}
            more |= {"ensemble": explorer.ensemble}
        if self.policy.spec.family == "2024":
            joint = joint_kernels(self.policy.world_model)
            groups = [self._laprop("model", modules.values(), joint)]
            groups += [self._laprop(name, [module]) for name, module in more.items()]
        else:
            clips = {
                "model": self.max_grad_norm,
                "actor": self.actor_max_grad_norm,
                "critic": self.critic_max_grad_norm,
            }
            clips |= {f"explorer_{name}": clips[name] for name in ("actor", "critic")} | {"ensemble": 100.0}
            groups = [self._adam(name, module, clips[name]) for name, module in (modules | more).items()]
        return {f"{group.name}_optim": group for group in groups}

    def _laprop(
        self, name: str, modules: Iterable[th.nn.Module], joint: Iterable[Iterable[th.Tensor]] = ()
    ) -> OptimizerGroup:
        params = [param for module in modules for param in module.parameters()]
        units = clipping_units(params, joint)
        rate = DEFAULTS["2024"]["learning_rate"]
        laprop = LaProp(params, rate, agc=self.agc, warmup=self.warmup_updates, units=units)
        return OptimizerGroup(name, params, laprop, None)

    def _adam(self, name: str, module: th.nn.Module, clip: float) -> OptimizerGroup:
        params = list(module.parameters())
        adam = make_adam(params, DEFAULTS["2023"]["learning_rate"], eps=1e-8 if name == "model" else 1e-5)
        return OptimizerGroup(name, params, adam, clip)

    def _learning_rates(self) -> dict[str, float | Schedule]:
        """The ensemble learns as the world model does (released code: 1e-4 both), the explorer as the task's actor."""
        if self.policy.spec.family == "2024":
            return dict.fromkeys(self.optimizers, self.learning_rate)
        rates = {"actor": self.actor_learning_rate, "critic": self.critic_learning_rate}
        own = {f"{name}_optim": rate for name, rate in rates.items()}
        own |= {f"explorer_{name}": rate for name, rate in own.items()}
        return {name: own.get(name, self.learning_rate) for name in self.optimizers}

    @property
    def _wants_context(self) -> bool:
        """Whether sequences are to begin with the latent states in replay."""
        return self.policy.spec.family == "2024" if self.replay_context is None else self.replay_context

    def _own_replay_class(self) -> type[SequenceReplayBuffer]:
        annotated = self._wants_context or self.policy.spec.action_masks
        return AnnotatedReplayBuffer if annotated else super()._own_replay_class()

    def _make_replay_buffer(self) -> None:
        wanted, spec, custom = self.replay_context, self.policy.spec, self.replay_buffer_class
        context = self._wants_context
        super()._make_replay_buffer()
        if isinstance(self.replay_buffer, AnnotatedReplayBuffer):
            sizes = (spec.deter, spec.stoch, spec.classes) if context else None
            self.replay_buffer.configure(context=sizes, dtype=self.context_dtype, masked=spec.action_masks)
        elif wanted is None and context and not spec.action_masks:
            warnings.warn(
                f"replay_buffer_class={custom!r} stores no latent states, so sequences begin with fresh ones: use a "
                "subclass of sb3_dreamer.dreamer_v3.AnnotatedReplayBuffer, or replay_context=False if that is wanted",
                stacklevel=2,
            )
        elif wanted or spec.action_masks:
            raise ValueError(
                f"replay_buffer_class={custom!r} stores neither latent states nor masks: use a subclass of "
                "sb3_dreamer.dreamer_v3.AnnotatedReplayBuffer, or replay_context=False and action_masks=False"
            )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_mask"]

    # ---- one update ------------------------------------------------------------------------------------------------

    def _update(self, batch: SequenceBatch) -> UpdateResult:
        """The algorithm box of the family that the model's size belongs to."""
        return self._update_2024(batch) if self.policy.spec.family == "2024" else self._update_2023(batch)

    def _update_2023(self, batch: SequenceBatch) -> UpdateResult:
        """World model (Eq. 4, 5), dreams, actor (Eq. 11) and critic (Eq. 8 to 10), slow critic."""
        world_model, behavior = self.policy.world_model, self.behavior

        losses, post, metrics = self._model_loss(batch)
        metrics |= self.optimizers["model_optim"].step(world_model.total(losses))

        start_cont = 1.0 - batch.is_terminal.flatten().float()
        dream = behavior.rollout(world_model, post.flatten_time(), start_cont, self.horizon)
        targets = behavior.targets(dream, self.gamma, self.gae_lambda)
        actor_loss = behavior.actor_loss(dream, targets, self.ent_coef)
        critic_loss = behavior.critic_loss(dream, targets)
        metrics |= self.optimizers["actor_optim"].step(actor_loss, retain_graph=True)
        metrics |= self.optimizers["critic_optim"].step(critic_loss)
        behavior.update_slow_critic(self.tau)
        if self.policy.explorer is not None:
            metrics |= self._update_explorer(batch, post.detach(), start_cont, self.gamma)

        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        metrics |= behavior.metrics(dream, targets.value, targets.returns) | {"batch_reward_std": batch.reward.std()}
        return UpdateResult(metrics, post.detach())

    def _update_2024(self, batch: SequenceBatch) -> UpdateResult:
        """All losses of the world model, the actor and the critic in one step; then the slow critic.

        The continue head's prediction holds the discount (at the start of a dream, too), so γ is 1 in the dream.
        """
        world_model, behavior = self.policy.world_model, self.behavior

        losses, post, metrics = self._model_loss(batch)

        dream = behavior.rollout(world_model, post.flatten_time(), None, self.horizon)
        targets = behavior.targets(dream, 1.0, self.gae_lambda)
        actor_loss = behavior.actor_loss(dream, targets, self.ent_coef)
        critic_loss = behavior.critic_loss(dream, targets)
        if behavior.actor_gradient != "reinforce":  # the dream's graph leads into the world model
            actor_loss = only(actor_loss, behavior.actor.parameters())
            critic_loss = only(critic_loss, behavior.critic.parameters())
        dream_return = targets.returns[:, 0].unflatten(0, batch.reward.shape)
        replay_loss = behavior.replay_value_loss(post, batch, dream_return, self.gamma, self.gae_lambda).mean()

        total = world_model.total(losses) + actor_loss + critic_loss + self.replay_value_scale * replay_loss
        metrics |= self.optimizers["model_optim"].step(total)
        behavior.update_slow_critic(self.tau)
        if self.policy.explorer is not None:
            metrics |= self._update_explorer(batch, post.detach(), None, 1.0)

        metrics |= {"actor_loss": actor_loss.detach(), "critic_loss": critic_loss.detach()}
        metrics |= {"loss_replay_value": replay_loss.detach()}
        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        metrics |= behavior.metrics(dream, targets.value, targets.returns) | {"batch_reward_std": batch.reward.std()}
        return UpdateResult(metrics, post.detach())

    def _update_explorer(
        self, batch: SequenceBatch, post: LatentState, start_cont: th.Tensor | None, gamma: float
    ) -> dict[str, th.Tensor]:
        """Ensemble (Plan2Explore, Eq. 3), and an actor-critic of its disagreement (Eq. 4) in dreams of its own.

        The task has no part in it: the explorer's rewards are intrinsic only.
        """
        explorer, optimizers = self.policy.explorer, self.optimizers
        assert explorer is not None
        metrics = optimizers["ensemble_optim"].step(explorer.ensemble.loss(post, batch).mean())
        dream = explorer.rollout(self.policy.world_model, post.flatten_time(), start_cont, self.horizon)
        targets = explorer.behavior.targets(dream, gamma, self.gae_lambda)
        actor_loss = explorer.behavior.actor_loss(dream, targets, self.ent_coef)
        critic_loss = explorer.behavior.critic_loss(dream, targets)
        metrics |= optimizers["explorer_actor_optim"].step(actor_loss, retain_graph=True)
        metrics |= optimizers["explorer_critic_optim"].step(critic_loss)
        explorer.behavior.update_slow_critic(self.tau)
        found = explorer.behavior.metrics(dream, targets.value, targets.returns)
        return metrics | {f"explorer_{name}": value for name, value in found.items()}

    def _model_loss(self, batch: SequenceBatch) -> ModelOutput:
        """Losses of the world model, as an update computes them, from the latent states in replay if it has them."""
        return self.policy.world_model.loss(batch, self.replay_state(batch))

    def replay_state(self, batch: SequenceBatch) -> LatentState | None:
        """Latent state before the rows of ``batch``; None: they begin afresh."""
        return LatentState(*(batch.obs[name] for name in START)) if START[0] in batch.obs else None

    def _after_update(self, result: UpdateResult) -> None:
        """Write the newer latent states back to replay, if it stores them."""
        if isinstance(self.replay_buffer, AnnotatedReplayBuffer):
            self.replay_buffer.write_back(result.post)

    # ---- acting and storing, with action masks ---------------------------------------------------------------------

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        planner: Behavior | None = None,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for an observation; see :meth:`WorldModelPolicy.predict`.

        :param planner: acts in the latent space instead of the policy's own behavior
        :param action_masks: ``(n, A)`` or ``(A,)`` bool, the actions that are allowed; None: those that the model
            expects to be allowed
        :raises ValueError: for masks of a model without ``action_masks``, of a wrong shape, or beside a planner
        """
        if action_masks is not None:
            if not self.policy.spec.action_masks:
                raise ValueError("this model knows no action masks: make it with policy_kwargs={'action_masks': True}")
            if planner is not None:
                raise ValueError("a planner does not see action_masks: pass one of the two")
            masks = np.atleast_2d(np.asarray(action_masks, bool))
            planner = self._masked(self.behavior, self._checked_masks(masks))
        return super().predict(observation, state, episode_start, deterministic, planner)

    @property
    def _stores_latents(self) -> bool:
        return isinstance(self.replay_buffer, AnnotatedReplayBuffer) and self.replay_buffer.context is not None

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.warmup_behavior, MaskedRandom):
            self._mask = self._current_masks()
            self.warmup_behavior.mask = th.as_tensor(self._mask, device=self.device)
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def _exploration_behavior(self) -> Behavior | None:
        explorer, until, collector = self.policy.explorer, self.explore_until, self.behavior
        if explorer is not None and (until is None or self.num_timesteps < until):
            collector = explorer.behavior
        return collector if self._mask is None else self._masked(collector, self._mask)

    def _masked(self, behavior: DreamerV3Behavior, mask: np.ndarray) -> Behavior:
        return MaskedActing(behavior, th.as_tensor(mask, device=self.device))

    def _current_masks(self) -> np.ndarray:
        """Actions that the environments allow now, ``(n_envs, A)`` bool."""
        assert self.env is not None
        if not self.env.has_attr("action_masks"):  # asking a subprocess for a missing one would end it
            raise ValueError(
                "action_masks=True, but the environment has no method action_masks(): add one, or wrap it in "
                "sb3_contrib.common.wrappers.ActionMasker"
            )
        masks = self.env.env_method("action_masks")
        return self._checked_masks(np.stack([np.asarray(mask, bool).reshape(-1) for mask in masks]))

    def _checked_masks(self, masks: np.ndarray) -> np.ndarray:
        sizes = self.policy.codec.layout.sizes
        if masks.shape[1:] != (sum(sizes),):
            entries = " x ".join(map(str, masks.shape[1:]))
            raise ValueError(f"action_masks() has {entries} entries, the action space {sum(sizes)}")
        ends = np.cumsum(sizes)[:-1]
        if not all(part.any(-1).all() for part in np.split(masks, ends, -1)):
            raise ValueError("action_masks() allows no action in some part of the action space: allow at least one")
        return masks

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if isinstance(replay_buffer, AnnotatedReplayBuffer):
            assert self._carry is not None
            replay_buffer.annotate(LatentState(self._carry.deter, self._carry.stoch), self._mask)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
