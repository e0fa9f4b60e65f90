"""DreamerV3 (arXiv 2301.04104v1) as an SB3 algorithm."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_dreamer.common import distributed
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.optim import OptimizerGroup
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v3.families import FAMILIES, Family, family_of
from sb3_dreamer.dreamer_v3.hooks import DreamerV3Hooks
from sb3_dreamer.dreamer_v3.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.dreamer_v3.recipe import apply_recipe


class DreamerV3(DreamerV3Hooks):
    """Learns a world model from replay and an actor-critic from its dreams; one set of hyperparameters for all domains.

    ``model_size`` chooses between two released families: 2023 (arXiv 2301.04104v1, hyperparameters of Table W.1 and of
    the authors' 2023 code; the default) and 2024 (the authors' code of December 2024); see docs/dreamer_v3.md.

    :param policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``
    :param env: environment, its id, or a VecEnv of any number of environments
    :param learning_rate: of the world model (2023, 1e-4) or of everything (2024, 4e-5); None: the family's
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
    :param actor_learning_rate: of the actor (2023)
    :param critic_learning_rate: of the critic (2023)
    :param max_grad_norm: largest gradient norm of the world model (2023)
    :param actor_max_grad_norm: of the actor (2023)
    :param critic_max_grad_norm: of the critic (2023)
    :param model_size: 2023: ``debug``, ``XXS``, ``XS``, ``S``, ``M``, ``L``, ``XL``; 2024: ``debug2024``, ``1m``,
        ``12m``, ``25m``, ``50m``, ``100m``, ``200m``, ``400m``; ``auto``: XXS for vectors, S with images
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
    :param kl_balancing: False weighs both sides of the KL alike (ablation, Figure D.1)
    :param free_bits: nats below which the KL is not minimised; 0 switches them off (ablation, Figure D.1)
    :param symlog_inputs: False feeds vectors as they are (ablation, Figure D.1)
    :param regression: reward head and critic: ``twohot``; ``symlog`` or ``mse`` without bins (ablation, Figure D.2)
    :param critic_target: returns from the critic (``fast``) or from its average (``slow``; ablation, Figure D.2)
    :param return_norm: ``percentile``; ``return_std`` or ``advantage_std`` (ablation, Figure D.3)
    :param return_norm_min: smallest scale that returns are divided by; 0 switches it off (ablation, Figure D.3)
    :param agc: largest ratio of gradient norm to parameter norm (2024)
    :param warmup_updates: updates over which the learning rate rises from 0 (2024)
    :param replay_value_scale: factor of the critic's loss on replayed rewards (2024)
    :param replay_context: store latent states in replay and go on from them instead of from a fresh state; None: the
        family's (2024: yes, 2023: no). It takes 2 bytes per deter unit and 1 per latent of every row
    :param context_dtype: ``float16`` or ``float32``, in which deter is stored
    :param action_masks: call the environments' ``action_masks()`` at every step, as sb3-contrib does, act with them
        and learn to predict them for dreams
    :param max_skipped_updates: so many non-finite updates in a row end the run with a report; 0: never
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
        learning_rate: float | Schedule | None = None,
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
        overlap: bool = False,
        mixed_precision: bool = False,
        cuda_graph: bool | None = None,
        prefetch: bool | None = None,
        kl_balancing: bool = True,
        free_bits: float = 1.0,
        symlog_inputs: bool = True,
        regression: str = "twohot",
        critic_target: str = "fast",
        return_norm: str = "percentile",
        return_norm_min: float = 1.0,
        agc: float = 0.3,
        warmup_updates: int = 1000,
        replay_value_scale: float = 0.3,
        replay_context: bool | None = None,
        context_dtype: str = "float16",
        action_masks: bool = False,
        max_skipped_updates: int = 3,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        forms = {
            "symlog_inputs": (symlog_inputs, True),
            "regression": (regression, "twohot"),
            "action_masks": (action_masks, False),
        }
        # The policy must be able to build itself anew from its own arguments, so these belong to them.
        architecture = {name: value for name, (value, default) in forms.items() if value != default}
        super().__init__(
            policy,
            env,
            family_of(model_size).learning_rate if learning_rate is None else learning_rate,
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
        self.actor_max_grad_norm = actor_max_grad_norm
        self.critic_max_grad_norm = critic_max_grad_norm
        self.kl_balancing = kl_balancing
        self.free_bits = free_bits
        self.critic_target = critic_target
        self.return_norm = return_norm
        self.return_norm_min = return_norm_min
        self.agc = agc
        self.warmup_updates = warmup_updates
        self.replay_value_scale = replay_value_scale
        self.replay_context = replay_context
        self.context_dtype = context_dtype
        self.max_skipped_updates = max_skipped_updates
        if _init_setup_model:
            self._setup_model()

    @property
    def family(self) -> Family:
        """The released version that the model's size belongs to."""
        return FAMILIES[self.policy.spec.family]

    def _setup_model(self) -> None:
        super()._setup_model()
        self.family.prepare(self)
        apply_recipe(self)
        norm = self.behavior.return_norm
        norm.bounds = distributed.gathering(norm.bounds)  # type: ignore[method-assign, assignment]

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        return self.family.make_optimizers(self)

    def _learning_rates(self) -> dict[str, float | Schedule]:
        return self.family.learning_rates(self)

    def _update(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        """The algorithm box of the family: :meth:`Family2023.update`, :meth:`Family2024.update`."""
        return self.family.update(self, batch) | {"batch_reward_std": batch.reward.std()}
