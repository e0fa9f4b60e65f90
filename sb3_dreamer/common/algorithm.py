"""The base of all three algorithms: an SB3 off-policy algorithm around a world model."""

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_dreamer.common import distributed, report
from sb3_dreamer.common.checks import suite_preset, warn_other_preset
from sb3_dreamer.common.learning import LearningMethods
from sb3_dreamer.common.policy import PolicyState, WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.resume.checkpoint import ResumePoint
from sb3_dreamer.common.spaces import check_action_space, check_observation_space
from sb3_dreamer.common.updates.ratio import UpdateRatio
from sb3_dreamer.core.behavior import Behavior, RandomBehavior
from sb3_dreamer.core.optim import OptimizerGroup

Self = TypeVar("Self", bound="WorldModelAlgorithm")
ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class WorldModelAlgorithm(LearningMethods):
    """Collection, train ratio, recurrent carry, logging and files; a subclass writes ``_update``.

    :param policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy`` or a subclass of :class:`WorldModelPolicy`
    :param env: environment, its id, or a VecEnv of any number of environments
    :param learning_rate: of the world model; a number or an SB3 schedule
    :param buffer_size: rows of replay over all environments
    :param learning_starts: agent steps with random actions before the first update
    :param batch_size: sequences of a batch, B
    :param batch_length: rows of a sequence, T
    :param train_ratio: replayed steps per agent step; updates = agent steps · train_ratio / (B · T)
    :param tau: share by which the slow critic moves towards the critic at each update
    :param gamma: discount of a step
    :param train_freq: environment steps between two rounds of updates, as in SB3
    :param gradient_steps: updates per round, instead of what ``train_ratio`` gives; -1: as many as steps
    :param replay_buffer_class: a subclass of :class:`SequenceReplayBuffer`
    :param replay_buffer_kwargs: further arguments of the buffer
    :param overlap: update while environments in other processes (SubprocVecEnv) take their step. An update then sees
        replay without that step, and the policy acts with the weights before it; all else, counts included, is equal
    :param mixed_precision: compute updates with products of bfloat16 (see docs/speed.md); weights stay float32
    :param cuda_graph: replay whole updates as one CUDA graph; None: on CUDA, for updates of this library
    :param prefetch: draw the next batch in a thread where several updates are owed; None: on CUDA
    :param model_size: a named size of the algorithm
    :param policy_kwargs: fields of the algorithm's spec to replace, and ``net_arch``
    :param supported: action spaces that the algorithm supports

    The others are SB3's own (see :class:`stable_baselines3.common.off_policy_algorithm.OffPolicyAlgorithm`).
    """

    policy: WorldModelPolicy
    replay_buffer: SequenceReplayBuffer
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}

    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule,
        buffer_size: int,
        learning_starts: int,
        batch_size: int,
        batch_length: int,
        train_ratio: float,
        *,
        tau: float,
        gamma: float,
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
        model_size: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
    ):
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,  # type: ignore[arg-type]
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=ACTION_SPACES,
        )
        self.batch_length = batch_length
        self.train_ratio = train_ratio
        self.overlap = overlap
        self.mixed_precision = mixed_precision
        self.cuda_graph = cuda_graph
        self.prefetch = prefetch
        self.model_size = model_size
        self.suite_preset = suite_preset(self.env)  # stored with the model: a score means nothing without it
        self._carry: PolicyState | None = None
        self._ratio_state = [0, 1]
        self._owed = 0
        self._forecast = report.Forecast(self)
        self._metrics = report.MetricMeans()
        self._callback: BaseCallback | None = None
        self._resume: ResumePoint | None = None
        self._restart_seed: int | None = None
        self._collecting = False

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Take another environment of the same spaces; warns if its suite settings differ from the training's."""
        super().set_env(env, force_reset)
        warn_other_preset(self.suite_preset, self.env)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's wrapping, after checks whose errors say what to do; an id is made into its environment."""
        env = maybe_make_env(env, verbose)
        check_observation_space(env.observation_space)
        check_action_space(env.action_space)
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    # ---- what a subclass gives -------------------------------------------------------------------------------------

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """Optimizer groups by the name under which they are saved; names end in ``_optim``."""
        raise NotImplementedError

    def _learning_rates(self) -> dict[str, float | Schedule]:
        """Learning rate of each optimizer group, by the same names."""
        raise NotImplementedError

    # ---- construction ----------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self._convert_train_freq()
        self._world_size = distributed.world_size()
        self.ratio = UpdateRatio(self.train_ratio, self.batch_size * self._world_size, self.batch_length)
        self.ratio.restore(self._ratio_state)
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            model_size=self.model_size,
            **self.policy_kwargs,
        ).to(self.device)
        if self.seed is not None:
            self.policy.seed_random_state(distributed.own_seed(self.seed, self.n_envs))
        self.optimizers = self._make_optimizers()
        self.lr_schedules = {name: FloatSchedule(rate) for name, rate in self._learning_rates().items()}
        for name, group in self.optimizers.items():
            group.average = distributed.average
            setattr(self, name, group.optimizer)
        self.warmup_behavior = RandomBehavior(self.policy.codec.layout)
        if self.replay_buffer is None:
            self._make_replay_buffer()
        self._setup_updates()

    def _make_replay_buffer(self) -> None:
        self.replay_buffer_class = self.replay_buffer_class or SequenceReplayBuffer
        if not (
            isinstance(self.replay_buffer_class, type) and issubclass(self.replay_buffer_class, SequenceReplayBuffer)
        ):
            raise ValueError(
                f"replay_buffer_class={self.replay_buffer_class!r} must be SequenceReplayBuffer or a subclass: "
                "a world model learns from sequences"
            )
        kwargs = dict(self.replay_buffer_kwargs)
        if kwargs.get("replay_dir") is not None:
            kwargs["replay_dir"] = distributed.own_folder(kwargs["replay_dir"])
        self.replay_buffer = self.replay_buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            ignore_keys=self.policy.ignore_keys,
            seed=None if self.seed is None else distributed.own_seed(self.seed, self.n_envs),
            optimize_memory_usage=self.optimize_memory_usage,
            **kwargs,
        )
        if self.verbose >= 1:
            print(f"Replay: {report.replay_in_words(self.replay_buffer)}, taken as it fills")

    def describe(self) -> list[tuple[str, str]]:
        """What is about to be trained, as rows of a table: networks, updates per step, memory."""
        return report.describe(self)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        planner: Behavior | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for an observation; see :meth:`WorldModelPolicy.predict`.

        :param planner: acts in the latent space instead of the policy's own behaviour
        """
        return self.policy.predict(observation, state, episode_start, deterministic, behavior=planner)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed Python, numpy, torch, the environments, the replay's sampling and the stream of :meth:`predict`.

        Of several processes (see :mod:`sb3_dreamer.common.distributed`) each takes another seed that follows from it.
        """
        if seed is None:
            return
        seed = distributed.own_seed(seed, self.n_envs)
        super().set_random_seed(seed)
        if getattr(self, "policy", None) is not None:
            self.policy.seed_random_state(seed)
        if self.replay_buffer is not None:
            self.replay_buffer.rng = np.random.default_rng(seed)
