"""The base of all three algorithms: an SB3 off-policy algorithm around a world model.

Read it from top to bottom: construction, acting, collecting, learning, one update, files. What it calls below gets what
it needs as arguments and does not know this class.
"""

import contextlib
import copy
import functools
import os
import pathlib
import warnings
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import utils
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    Schedule,
    TrainFreq,
    TrainFrequencyUnit,
)
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from sb3_dreamer.common import distributed, report
from sb3_dreamer.common.arguments import all_arguments, check_env_type, check_flags, check_policy, check_range
from sb3_dreamer.common.checks import (
    Place,
    check_noise,
    check_observation,
    check_reward,
    noise_for,
    reset_noise,
    terminal_observation,
    warn_other_preset,
)
from sb3_dreamer.common.diagnosis import Diagnosis, Facts, entropy_range
from sb3_dreamer.common.env_watch import EnvWatch
from sb3_dreamer.common.export import export_policy
from sb3_dreamer.common.files import save_load
from sb3_dreamer.common.files.fit import only_stored
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.policy import PolicyState, WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.replay.files import attach_replay, read_replay, write_replay
from sb3_dreamer.common.resume import checkpoint, parts
from sb3_dreamer.common.resume.folder import damaged, find_checkpoint, shared_checkpoint
from sb3_dreamer.common.resume.random_state import RandomState
from sb3_dreamer.common.spaces import (
    as_dict,
    check_action_space,
    check_ignore_keys,
    check_observation_space,
    space_dict,
    without_unstackable,
)
from sb3_dreamer.common.updates import compiled, prefetch
from sb3_dreamer.common.updates.cuda_graph import CudaGraph, GraphedUpdate, plain_arguments
from sb3_dreamer.common.updates.malloc import keep_freed_memory
from sb3_dreamer.common.updates.nonfinite import SkipWatch, broken, nonfinite_weights
from sb3_dreamer.common.updates.precision import check_mixed_precision, update_precision
from sb3_dreamer.common.vector_env import GymnasiumVecEnv
from sb3_dreamer.common.world_model_view import WorldModelView
from sb3_dreamer.core.behavior import Behavior, RandomBehavior
from sb3_dreamer.core.functional import run_steps_by
from sb3_dreamer.core.optim import OptimizerGroup
from sb3_dreamer.core.types import LatentState, ModelOutput, SequenceBatch, UpdateResult
from sb3_dreamer.hints import near
from sb3_dreamer.suite_presets import suite_preset

Self = TypeVar("Self", bound="WorldModelAlgorithm")
ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
LOG_AT_LEAST = 10_000  #: agent steps between two log lines at most, also in episodes that do not end
NAN_REPORT = "nan_report"  #: folder beside the log
ENV_MOVED = (
    "the training environment was stepped or reset from outside (evaluate_policy or EvalCallback on it?): the running "
    "episodes were cut and new ones begin, each time this happens. Evaluate on a separate environment. An error raised "
    "in the environment's step also leads here"
)


class WorldModelAlgorithm(OffPolicyAlgorithm):
    """Collection, train ratio, recurrent carry, logging and files; a subclass writes ``_update``.

    The arguments of the constructor are documented in the public classes; those not named here are SB3's own (see
    :class:`stable_baselines3.common.off_policy_algorithm.OffPolicyAlgorithm`).

    :ivar policy_aliases: policy classes by the names that users write
    """

    policy: WorldModelPolicy
    replay_buffer: SequenceReplayBuffer
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}

    # ---- construction ----------------------------------------------------------------------------------------------

    def __init__(
        self,
        policy: str | type[WorldModelPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule,
        *,
        batch_length: int,
        train_ratio: float,
        gradient_steps: int | None,
        model_size: str,
        overlap: bool = False,
        mixed_precision: bool = False,
        cuda_graph: bool | None = None,
        prefetch: bool | None = None,
        compile: bool | str = False,
        max_skipped_updates: int = 3,
        **of_sb3: Any,
    ):
        check_policy(policy, of_sb3.get("policy_kwargs"), self.policy_aliases)
        ignore = (of_sb3.get("policy_kwargs") or {}).get("ignore_keys", ())
        if env is not None:
            env = maybe_make_env(env, of_sb3.get("verbose", 0))
            check_env_type(env)
            check_ignore_keys(env.observation_space, ignore)
            env = without_unstackable(env, ignore)
        super().__init__(
            policy,
            env,
            learning_rate,
            gradient_steps=gradient_steps,  # type: ignore[arg-type]
            support_multi_env=True,
            sde_support=False,
            supported_action_spaces=ACTION_SPACES,
            **of_sb3,
        )
        self.batch_length = batch_length
        self.train_ratio = train_ratio
        self.model_size = model_size
        self.overlap = overlap
        self.mixed_precision = mixed_precision
        self.cuda_graph = cuda_graph
        self.prefetch = prefetch
        self.compile = compile
        self.max_skipped_updates = max_skipped_updates
        self.suite_preset = suite_preset(self.env)  # stored with the model: a score means nothing without it
        self._carry: PolicyState | None = None
        self._ratio_state = [0, 1]  # fraction of an update that is left over, numerator and denominator
        self._logged_step = 0
        self._owed = 0  # updates that wait for the next step (overlap)
        self._metrics = report.MetricMeans()
        self._env_watch: EnvWatch | None = None
        self._callback: BaseCallback | None = None
        self._callback_states: list[Any] = []  #: what callbacks remembered when learn() ended
        self._resume: checkpoint.TrainingState | None = None
        self._restart_seed: int | None = None
        self._last_checkpoint: Path | None = None
        self._collecting = False
        self._warned: set[str] = set()
        self.while_learning = contextlib.ExitStack()  #: what callbacks open for learn(); closed however it ends

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Wrap as SB3 does, after checks whose errors say what to do; an id is made into its environment."""
        env = maybe_make_env(env, verbose)
        check_env_type(env)
        if isinstance(env, gym.vector.VectorEnv):
            env = VecMonitor(GymnasiumVecEnv(env))
        # Which keys of a Dict are ignored, the policy knows; those without a shape cannot be stacked.
        stackable = [key for key, space in space_dict(env.observation_space).items() if space.shape is not None]
        if not isinstance(env.observation_space, spaces.Dict) or len(stackable) < len(env.observation_space.spaces):
            check_observation_space(env.observation_space, tuple(stackable))
        check_action_space(env.action_space)
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Take another environment of the same spaces; warns if its suite settings differ from the training's."""
        env = maybe_make_env(env, self.verbose)
        env = without_unstackable(env, self.policy.ignore_keys)
        super().set_env(env, force_reset)
        self.replay_buffer.normalizer = self._vec_normalize_env
        if self._resume is not None:
            parts.restore_normalizer(self._vec_normalize_env, self._resume.normalizer)
        self._env_watch = None
        warn_other_preset(self.suite_preset, self.env)

    def _check_arguments(self) -> None:
        """Refuse numbers that cannot work: of a constructor, of a file, or set since then.

        :raises ValueError: quoting the value, and saying what is allowed
        """
        for name, value in list(vars(self).items()):  # a file that held NumPy's numbers could not be loaded
            if isinstance(value, np.generic):
                setattr(self, name, value.item())
        if self.seed is not None:
            check_range("seed", self.seed, 0, 2**32 - 1, whole=True)
        check_range("learning_rate", self.learning_rate, 0.0, schedule=True)
        check_range("buffer_size", self.buffer_size, 1, 1e15, whole=True, hint="rows over all environments")
        check_range("learning_starts", self.learning_starts, 0, whole=True)
        check_range("batch_size", self.batch_size, 1, whole=True)
        check_range("batch_length", self.batch_length, 2, whole=True)
        check_range("train_ratio", self.train_ratio, 0.0, 1e9, hint="replayed steps per agent step")
        check_range("tau", self.tau, 0.0, 1.0)
        check_range("gamma", self.gamma, 0.0, 1.0, above=True)
        check_range("max_skipped_updates", self.max_skipped_updates, 0, whole=True)
        if self.action_noise is not None and not isinstance(self.action_noise, ActionNoise):
            raise ValueError(f"action_noise={self.action_noise!r} must be an ActionNoise of Stable-Baselines3, or None")
        if self.action_noise is not None and not isinstance(self.action_space, spaces.Box):
            raise ValueError(
                f"action_noise is for Box actions, and the action space is {self.action_space}: leave it out"
            )
        check_flags(self, "overlap", "mixed_precision", "optimize_memory_usage")
        check_flags(self, "cuda_graph", "prefetch", none=True)
        compiled.check_compile(self.compile)
        if self.gradient_steps is not None:
            check_range("gradient_steps", self.gradient_steps, -1, whole=True)
        self._convert_train_freq()
        every: Any = self.train_freq
        check_range("train_freq", every.frequency, 1, whole=True, hint=f"{every.unit.value}s")

    def _setup_model(self) -> None:
        if self.env is None and not hasattr(self, "observation_space"):
            raise ValueError("env=None: pass an environment, its id, or OfflineEnv(observation_space, action_space)")
        self._check_arguments()
        self._setup_lr_schedule()
        self._world_size = distributed.world_size()
        if not (isinstance(self.policy_class, type) and issubclass(self.policy_class, WorldModelPolicy)):
            raise ValueError(
                f"policy={self.policy_class!r} is not a world-model policy: use {', '.join(self.policy_aliases)} "
                "or a subclass of sb3_dreamer.common.policy.WorldModelPolicy"
            )
        for name in {"model_size", "gamma"} & self.policy_kwargs.keys():
            value = self.policy_kwargs[name]
            raise ValueError(f"policy_kwargs holds {name}={value!r}: pass it to {type(self).__name__} itself")
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            model_size=self.model_size,
            gamma=self.gamma,
            **self.policy_kwargs,
        ).to(self.device)
        self.model_size = self.policy.size_name  # so that files name the size, whatever "auto" means later
        if self.seed is not None:
            self.policy.seed_random_state(distributed.rank_seed(self.seed, self.n_envs))
        self.optimizers = self._make_optimizers()
        self.lr_schedules = {name: utils.FloatSchedule(rate) for name, rate in self._learning_rates().items()}
        for name, group in self.optimizers.items():
            group.average = distributed.all_reduce_mean
            setattr(self, name, group.optimizer)
        self.warmup_behavior: Behavior = RandomBehavior(self.policy.codec.layout)
        self._forecast = report.Forecast(self.device)
        self._skip_watch = SkipWatch(self.max_skipped_updates)
        self._diagnosis = Diagnosis()
        if self.replay_buffer is None:
            self._make_replay_buffer()
            self._check_replay_size()
        self._graphed = self._make_graphed_update()
        self._compiled = compiled.CompiledSteps() if self.compile is True else None

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """Optimizer groups by the name under which they are saved; names end in ``_optim``."""
        raise NotImplementedError

    def _learning_rates(self) -> dict[str, float | Schedule]:
        """Learning rate of each optimizer group, by the same names."""
        raise NotImplementedError

    def _own_replay_class(self) -> type[SequenceReplayBuffer]:
        """Replay that the algorithm takes where ``replay_buffer_class`` is None."""
        return SequenceReplayBuffer

    def _make_replay_buffer(self) -> None:
        replay_class = self._own_replay_class() if self.replay_buffer_class is None else self.replay_buffer_class
        if not (isinstance(replay_class, type) and issubclass(replay_class, SequenceReplayBuffer)):
            raise ValueError(
                f"replay_buffer_class={self.replay_buffer_class!r} must be SequenceReplayBuffer or a subclass: "
                "a world model learns from sequences"
            )
        kwargs = dict(self.replay_buffer_kwargs)
        known = all_arguments(replay_class)
        for name in kwargs:
            if name not in known:
                raise ValueError(f"replay_buffer_kwargs has {name!r}, which is unknown{near(name, known)}")
        if kwargs.get("replay_dir") is not None:
            kwargs["replay_dir"] = distributed.rank_folder(kwargs["replay_dir"])
        self.replay_buffer = replay_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            ignore_keys=self.policy.ignore_keys,
            seed=None if self.seed is None else distributed.rank_seed(self.seed, self.n_envs),
            optimize_memory_usage=self.optimize_memory_usage,
            **kwargs,
        )
        self.replay_buffer.normalizer = self._vec_normalize_env

    def _check_replay_size(self) -> None:
        """Refuse a buffer that never holds a whole sequence, so that no update would ever happen."""
        replay = self.replay_buffer
        needed = replay.rows_for(self.batch_length)
        if replay.buffer_size < needed:
            raise ValueError(
                f"buffer_size={self.buffer_size} holds {replay.buffer_size} rows for each of {self.n_envs} "
                f"environment(s), and a sequence of batch_length={self.batch_length} takes {needed}: use "
                f"buffer_size={needed * self.n_envs} at least, or a shorter batch_length"
            )

    def _make_graphed_update(self) -> GraphedUpdate | None:
        """The update as a CUDA graph, where the device and the settings allow it.

        :raises ValueError: for a precision that the device does not have
        """
        if self.mixed_precision:
            check_mixed_precision(self.device)
        # What someone else wrote in an ``_update`` may need the host: they have to ask for the graph.
        ours = type(self)._update.__module__.startswith("sb3_dreamer.")
        wanted = ours if self.cuda_graph is None else self.cuda_graph
        if not wanted or self.device.type != "cuda" or self._world_size > 1:
            return None
        return GraphedUpdate(
            self._eager_update,
            lambda: CudaGraph(self.device),
            self.optimizers.values(),
            functools.partial(plain_arguments, self),
            must=bool(self.cuda_graph),
        )

    def _prepare_compiling(self, updates: float) -> None:
        """Decide whether ``compile="auto"`` pays, and say that the first compiled update will take its time.

        :param updates: that the run will make
        """
        if self.compile == "auto" and self._compiled is None and updates >= compiled.PAYS_FROM:
            self._compiled = compiled.CompiledSteps()
            if self._graphed is not None:
                self._graphed.forget()  # an earlier, shorter run has captured its steps uncompiled
        if self._compiled is not None and not self._compiled.steps and updates and self.verbose >= 1:
            print(f"The first update compiles its steps, which {compiled.ABOUT}")

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed Python, numpy, torch, the environments, the replay's sampling and the stream of :meth:`predict`.

        Of several processes (see :mod:`sb3_dreamer.common.distributed`) each takes another seed that follows from it.
        """
        if seed is None:
            return
        seed = distributed.rank_seed(seed, self.n_envs)
        super().set_random_seed(seed)
        if getattr(self, "policy", None) is not None:
            self.policy.seed_random_state(seed)
        if self.replay_buffer is not None:
            self.replay_buffer.rng = np.random.default_rng(seed)

    def describe(self) -> list[tuple[str, str]]:
        """Describe what is about to be trained, as rows of a table: networks, updates per step, memory.

        With ``verbose=1`` :meth:`learn` prints them before the first step.
        """
        ranks = f" on each of {self._world_size} ranks" if self._world_size > 1 else ""
        return [
            ("algorithm", f"{type(self).__name__}, size {self.policy.size_name}, on {self.device}"),
            *report.network_rows(self.policy),
            ("updates", self._updates_text()),
            ("batch", f"{self.batch_size} sequence{'s' * (self.batch_size > 1)} of {self.batch_length} steps{ranks}"),
            ("replay", report.replay_text(self.replay_buffer)),
            *compiled.rows(self.compile),
        ]

    def _updates_text(self) -> str:
        """Train ratio and updates per agent step."""
        if self.gradient_steps is not None:
            assert isinstance(self.train_freq, TrainFreq)
            every = f"{self.train_freq.frequency} {self.train_freq.unit.value}(s)"
            return f"{self.gradient_steps} per {every} (gradient_steps)"
        ratio = report.ratio_text(float(self.updates_per_step))
        return f"{ratio} (train_ratio {self.train_ratio:g}), after {self.learning_starts:,} random steps"

    def update_seconds(self) -> float:
        """Measure how long an update takes on this machine, in a few seconds and before the first step.

        It is done on copies: weights, optimizers, replay and random streams stay as they are.
        """
        own, replay = (self.policy, self.optimizers), report.trial_replay(self.replay_buffer, self.batch_length)
        steps, self._compiled = self._compiled, None  # compiling takes longer than the measurement may
        cuda = [self.device] if self.device.type == "cuda" else []
        with th.random.fork_rng(cuda):
            self.policy, self.optimizers = copy.deepcopy(own)
            self.policy.set_training_mode(True)
            try:
                return report.trial_seconds(
                    self._eager_update, replay.sample_sequences, self.batch_size, self.batch_length
                )
            finally:
                (self.policy, self.optimizers), self._compiled = own, steps

    # ---- acting ----------------------------------------------------------------------------------------------------

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        planner: Behavior | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for an observation; see :meth:`WorldModelPolicy.predict`.

        :param planner: acts in the latent space instead of the policy's own behavior
        """
        return self.policy.predict(observation, state, episode_start, deterministic, behavior=planner)

    @property
    def _stores_latents(self) -> bool:
        """Whether replay stores the latent state of every step."""
        return False

    def _exploration_behavior(self) -> Behavior | None:
        """Behavior that acts after the warm-up; None: the policy's own."""
        return None

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions for the environments and for replay; moves the recurrent carry on.

        During the warm-up actions are uniform. The carry then only keeps the action that was executed, unless latent
        states are stored: the episode that runs when the warm-up ends is continued from a fresh state.
        """
        assert self._carry is not None and self._last_obs is not None
        warmup = self.num_timesteps < learning_starts
        if warmup and not self._stores_latents:
            state = self.policy.initial_state(n_envs)
            latent = LatentState(state.deter, state.stoch)
            action = self.warmup_behavior.act(self.policy.world_model, latent)
            self._carry = state._replace(prev_action=self.policy.codec.executed(action))
        else:
            self._carry = self.policy.step(
                self._obs_tensors(),
                self._carry,
                th.as_tensor(self._last_episode_starts, device=self.device),
                behavior=self.warmup_behavior if warmup else self._exploration_behavior(),
            )
        codec = self.policy.codec
        if action_noise is not None and codec.layout.kind == "continuous":
            noise = th.as_tensor(action_noise(), device=self.device, dtype=th.float32)
            check_noise(noise, self._carry.prev_action)
            noisy = self._carry.prev_action + noise.reshape(self._carry.prev_action.shape)
            self._carry = self._carry._replace(prev_action=codec.executed(noisy))
        buffer_action = codec.to_replay(self._carry.prev_action)
        return codec.to_env(buffer_action), buffer_action

    def _obs_tensors(self) -> dict[str, th.Tensor]:
        """The latest observations of the environments, by key."""
        return {key: th.as_tensor(value, device=self.device) for key, value in as_dict(self._last_obs).items()}

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Collect steps and store them; as in SB3, but a step is stored before the callbacks see it.

        A checkpoint that a callback writes therefore holds the step that ``num_timesteps`` counts.
        """
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        if self._restart_seed is not None:
            self._restart_environments()
        if action_noise is not None:
            action_noise = self.action_noise = noise_for(action_noise, env.num_envs)
        steps, episodes, continues = 0, 0, True
        self._collecting = True
        try:
            while continues and utils.should_collect_more_steps(train_freq, steps, episodes):
                watch = self._resync_environments(env)
                with self._forecast.part("acting"):
                    actions, buffer_actions = self._sample_action(learning_starts, action_noise, env.num_envs)
                env.step_async(actions)
                self._train_owed()  # with overlap, while environments in other processes take their step
                with self._forecast.part("environments"):
                    new_obs, rewards, dones, infos = env.step_wait()
                self.num_timesteps += env.num_envs * self._world_size
                steps += 1
                with self._forecast.part("storing"):
                    self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)  # type: ignore[arg-type]
                watch.look()  # not before: a step that is refused above was taken, and is not in replay
                self._update_info_buffer(infos, dones)
                reset_noise(action_noise, dones)
                self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
                callback.update_locals(locals())
                continues = callback.on_step()
                for _ in range(int(dones.sum())):
                    episodes += 1
                    self._episode_num += 1
                    if log_interval is not None and self._episode_num % log_interval == 0:
                        self.dump_logs()
                if log_interval is not None and self._log_is_due():
                    self.dump_logs()
            if continues:
                callback.on_rollout_end()  # still collecting: the updates of this rollout are not owed yet
        finally:
            self._collecting = False
        return RolloutReturn(steps * env.num_envs, episodes, continues)

    def _resync_environments(self, env: VecEnv) -> EnvWatch:
        """Begin new episodes if somebody else moved the environments since the last step; the running ones are cut."""
        if self._env_watch is None:
            self._env_watch = EnvWatch(env)
        if not self._env_watch.moved():
            return self._env_watch
        self._warn_once(ENV_MOVED)
        self.replay_buffer.cut()
        self._begin_episodes(env)
        return self._env_watch

    def _begin_episodes(self, env: VecEnv) -> None:
        """Reset all environments; the agent remembers nothing of before."""
        self._last_obs = env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.n_envs, bool)
        self._take_first_observation()
        if self.action_noise is not None:
            self.action_noise.reset()
        self._carry = self.policy.initial_state(self.n_envs)

    def _take_first_observation(self) -> None:
        """Check and keep what the environments returned when they were reset."""
        normalizer = self._vec_normalize_env
        first = self._last_obs if normalizer is None else normalizer.get_original_obs()
        check_observation(first, self.observation_space, Place.step(self.num_timesteps), self.policy.ignore_keys)
        self._last_obs = copy.deepcopy(self._last_obs)  # an environment may return the same array again
        self._last_original_obs = copy.deepcopy(first)
        if self._env_watch is not None:
            self._env_watch.look()

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store what the environments gave, with the true final observation where an episode ended.

        Values are stored as they are without VecNormalize, which normalizes what is sampled, as in SB3.
        """
        normalizer, before, after = self._vec_normalize_env, self._last_obs, new_obs
        if normalizer is not None:
            before, after = self._last_original_obs, normalizer.get_original_obs()
            reward = normalizer.get_original_reward()
        place = Place.step(self.num_timesteps)
        check_observation(after, self.observation_space, place, self.policy.ignore_keys)
        check_reward(reward, place)
        final = {key: value.copy() for key, value in as_dict(after).items()}
        for i in np.flatnonzero(dones):
            last = terminal_observation(infos[i], int(i))
            last = as_dict(last if normalizer is None else normalizer.unnormalize_obs(last))
            for key, value in final.items():  # unnormalized integers are not whole
                value[i] = np.rint(last[key]) if normalizer is not None and value.dtype.kind in "iu" else last[key]
        check_observation(final, self.observation_space, place, self.policy.ignore_keys)
        replay_buffer.add(before, final, buffer_action, reward, dones, infos)  # type: ignore[arg-type]
        self._last_obs = copy.deepcopy(new_obs)
        self._last_original_obs = copy.deepcopy(after)
        self._last_episode_starts = dones

    def add_episodes(self, source: Any) -> int:
        """Add recorded episodes to replay.

        :param source: dicts, npz files, an SB3 ReplayBuffer or a Minari dataset; see
            :func:`sb3_dreamer.common.replay.episodes.read_episodes`
        :return: number of episodes
        :raises ValueError: if an episode does not fit the spaces
        """
        return self.replay_buffer.add_episodes(source)

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` agent steps.

        :param total_timesteps: agent steps over all environments (a lower bound, as in SB3)
        :param callback: called at every step
        :param log_interval: episodes between two log lines
        :param tb_log_name: name of the TensorBoard run; the class's name by default
        :param reset_num_timesteps: False continues the count and the running episodes
        :param progress_bar: show a progress bar
        :return: the model itself
        """
        if log_interval is not None:
            check_range("log_interval", log_interval, 1, whole=True)
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        with self.while_learning:
            self.while_learning.callback(self._forget_callbacks)
            callback.on_training_start(locals(), globals())
            self._resume_rest()
            while self.num_timesteps < total_timesteps:
                rollout, filled = self._collect_on_all_ranks(callback, log_interval)
                if not rollout.continue_training:
                    break
                if self.num_timesteps > self.learning_starts and filled:
                    self._train_after(rollout)
            self._train_owed()
            callback.on_training_end()
        return self

    def _forget_callbacks(self) -> None:
        """Keep what callbacks remember, but not them: a callback holds modules, and a model with it is not copied."""
        assert self._callback is not None
        self._callback_states, self._callback = parts.callback_states(self._callback), None

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._check_arguments()
        self._check_replay_size()
        if reset_num_timesteps:
            self._resume = self._restart_seed = None
        self._join_ranks()
        callback, progress_bar = distributed.rank_callbacks(callback), progress_bar and distributed.is_rank_zero()
        if self.optimize_memory_usage and reset_num_timesteps and self.replay_buffer.size() > 0:  # as SB3 does
            warnings.warn(
                "The last trajectory in the replay buffer will be truncated: learn() resets the environments. "
                "Use reset_num_timesteps=False to continue the running episodes",
                stacklevel=3,
            )
        self._warned.discard(ENV_MOVED)
        self._resume_random()
        self._close_logger()
        resets = reset_num_timesteps or self._last_obs is None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if resets:
            self.replay_buffer.cut()
            self._take_first_observation()
        if reset_num_timesteps:
            self._logged_step = self.num_timesteps
        if self._carry is None or resets or len(self._carry.deter) != self.n_envs:
            self._carry = self.policy.initial_state(self.n_envs)
        report.check_memory(self.replay_buffer, -(-total_timesteps // self._world_size))
        if reset_num_timesteps and self.verbose >= 1:
            print("\n".join(f"{name}: {text}" for name, text in self.describe()))
        if self.device.type == "cpu":
            keep_freed_memory()
        self._prepare_compiling(self.planned_updates(result[0] - self.num_timesteps))
        self._callback = result[1]
        self._forecast = report.Forecast(self.device)
        return result

    def _close_logger(self) -> None:
        """Close the log of the last ``learn``, which the next one replaces: TensorBoard's has a thread of its own."""
        if not self._custom_logger and hasattr(self, "_logger"):
            self._logger.close()

    def _join_ranks(self) -> None:
        """Make all ranks start from rank 0's weights, and let it alone write the log."""
        distributed.join(self.policy, self._world_size)
        if not distributed.is_rank_zero():
            self.verbose = 0
            self.set_logger(Logger(None, []))
        elif self._world_size > 1 and self.get_vec_normalize_env() is not None:
            warnings.warn("VecNormalize keeps statistics of its own on each rank: leave it out", stacklevel=4)

    def _collect_on_all_ranks(self, callback: BaseCallback, log_interval: int) -> distributed.Merged:
        """Collect once, on all ranks: what they decide from afterwards is the same everywhere."""
        assert self.env is not None and isinstance(self.train_freq, TrainFreq)
        alone = self._world_size == 1
        steps, episodes = self.num_timesteps, self._episode_num
        rollout = self.collect_rollouts(
            self.env,
            callback,
            self.train_freq,
            self.replay_buffer,
            self.action_noise,
            self.learning_starts,
            log_interval if alone else None,
        )
        if alone:
            return distributed.Merged(rollout, self._replay_is_filled())
        ready = self._replay_is_filled() and self.replay_buffer.ready(self.batch_length)
        merged = distributed.merge_rollouts(rollout, ready)
        self.num_timesteps = steps + merged.rollout.episode_timesteps
        self._episode_num = episodes + merged.rollout.n_episodes
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        if log_interval and (self._episode_num // log_interval > episodes // log_interval or self._log_is_due()):
            self._dump_logs_of_all_ranks()
        return merged

    def _log_is_due(self) -> bool:
        """Whether the last log line is so far back that one is written in the middle of an episode."""
        return self.num_timesteps - self._logged_step >= LOG_AT_LEAST

    def _replay_is_filled(self) -> bool:
        """Whether replay holds as much as before the first update; not so after a resume without replay."""
        replay = self.replay_buffer
        share = -(-self.learning_starts // self._world_size)
        return replay.size() >= min(share, replay.buffer_size * replay.n_envs)

    @property
    def updates_per_step(self) -> Fraction:
        """Updates that one agent step asks for: ``train_ratio / (B · T)``, B over all ranks."""
        rows = self.batch_size * self._world_size * self.batch_length
        return Fraction(self.train_ratio).limit_denominator(10**9) / rows

    def planned_updates(self, steps: int) -> float:
        """Updates that so many agent steps ask for; 0 if updates follow episodes, whose length nobody knows."""
        if self.gradient_steps is None:
            return steps * float(self.updates_per_step)
        assert isinstance(self.train_freq, TrainFreq)
        if self.train_freq.unit is not TrainFrequencyUnit.STEP:
            return 0.0
        rounds = steps / (self.train_freq.frequency * self.n_envs)
        return steps if self.gradient_steps < 0 else rounds * self.gradient_steps

    def _train_after(self, rollout: RolloutReturn) -> None:
        """Owe the updates that a stretch of collection asks for, and do them unless they wait for the next step."""
        if not self.replay_buffer.ready(self.batch_length):
            return
        if self.gradient_steps is not None:
            self._owed += self.gradient_steps if self.gradient_steps >= 0 else rollout.episode_timesteps
        else:
            asked = Fraction(*self._ratio_state) + self.updates_per_step * rollout.episode_timesteps
            whole, rest = divmod(asked, 1)  # nothing is lost in rounding
            self._owed += whole
            self._ratio_state = [rest.numerator, rest.denominator]
        if not self.overlap:
            self._train_owed()

    def _train_owed(self) -> None:
        """Do the updates that collection has earned, as soon as replay holds a whole sequence."""
        if self._owed > 0 and self.replay_buffer.ready(self.batch_length):
            updates, self._owed = self._owed, 0
            self.train(updates, self.batch_size)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Do a number of updates, as soon as replay holds a whole sequence.

        :param gradient_steps: number of updates
        :param batch_size: B
        :raises NonFiniteError: if several updates in a row were not finite, naming the first tensor that is not
        """
        if not self.replay_buffer.ready(self.batch_length):
            return
        self.policy.set_training_mode(True)
        for name, schedule in self.lr_schedules.items():
            self.optimizers[name].set_learning_rate(schedule(self._current_progress_remaining))
        draw = functools.partial(self.replay_buffer.sample_sequences, batch_size, self.batch_length)
        ahead = self.device.type == "cuda" if self.prefetch is None else self.prefetch
        ahead = ahead and self.replay_buffer.draws_ahead
        with contextlib.closing(prefetch.batches(draw, gradient_steps, self.device, ahead=ahead)) as batches:
            for _ in range(gradient_steps):
                with self._forecast.part("sampling"):
                    batch = next(batches)
                with self._forecast.timed_update(self.num_timesteps):
                    metrics = self.update(batch)
                self._metrics.add(distributed.all_reduce_metrics(metrics))
                self._n_updates += 1
                if self._skip_watch.exceeded():
                    self._stop_with_report()
                if self._forecast.due() and self.verbose >= 1:
                    print(self._forecast_text())
        self.logger.record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _forecast_text(self) -> str:
        """Forecast how long the run will take."""
        if self._forecast.planned is not None:
            return self._forecast.offline_text()
        per_step = float(self.updates_per_step) if self.gradient_steps is None else None
        return self._forecast.text(self.num_timesteps, self._total_timesteps, per_step)

    def _stop_with_report(self) -> NoReturn:
        """Write batch, report and, if it could be loaded, the model, and end the run.

        A skipped step changes no weight, so what could not be updated is as it was after its last good step. That may
        have been finite, and yet so large that its weights are not. Of several ranks each reports its own batch.
        """
        folder = Path(distributed.broadcast_object(self.logger.get_dir() or ".")) / NAN_REPORT
        folder = distributed.rank_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if distributed.is_rank_zero() and not nonfinite_weights(self.policy):
            self.save(folder / "model.zip")
        where = f"update {self._n_updates}, step {self.num_timesteps}"
        self._skip_watch.stop(self.policy, self._model_loss, folder, where, self._last_checkpoint)

    def learn_offline(
        self: Self,
        updates: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str | None = None,
    ) -> Self:
        """Train on what replay holds, without an environment. ``num_timesteps`` stays.

        :param updates: number of updates
        :param callback: called after every update, which it counts as a step: ``EvalCallback(env, eval_freq=1000)``
            evaluates every 1,000 updates. False ends the training
        :param log_interval: updates between two log lines, whose step is the number of updates
        :param tb_log_name: name of the TensorBoard run; the class's name by default
        :return: the model itself
        :raises ValueError: if replay holds no sequence of ``batch_length`` rows
        """
        check_range("updates", updates, 0, whole=True)
        check_range("log_interval", log_interval, 1, whole=True)
        self._check_arguments()
        if not self.replay_buffer.ready(self.batch_length):
            raise ValueError(
                f"replay holds no stretch of batch_length={self.batch_length} rows: add_episodes() first, "
                "or lower batch_length"
            )
        self._join_ranks()
        if not self._custom_logger:
            self._close_logger()
            name = tb_log_name or type(self).__name__
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, name, True)
        self._forecast = report.Forecast(self.device, updates)
        self._prepare_compiling(updates)
        callback = self._callback = self._init_callback(distributed.rank_callbacks(callback))
        with self.while_learning:
            self.while_learning.callback(self._forget_callbacks)
            callback.on_training_start(locals(), globals())
            self._resume_rest()
            for update in range(updates):
                self._current_progress_remaining = 1.0 - update / updates
                self.train(1, self.batch_size)
                if (update + 1) % log_interval == 0:
                    self._record_metrics()
                    self.logger.dump(step=self._n_updates)
                callback.update_locals(locals())
                if not callback.on_step():
                    break
            callback.on_training_end()
        return self

    def dump_logs(self) -> None:
        """Write log data: SB3's keys and the means of all metrics since the last time; say what is wrong with them."""
        self._record_metrics()
        super().dump_logs()
        self._logged_step = self.num_timesteps

    def _record_metrics(self) -> None:
        means = self._metrics.take()
        for name, value in means.items():
            self.logger.record(f"train/{name}", value)
        for sentence in self._diagnosis.check(means, self._facts()) if means else ():
            self.warn(sentence)

    def _facts(self) -> Facts:
        replay = self.replay_buffer
        ended, head = replay.arrays.get("is_terminal"), self.policy.world_model.cont_head
        seen = ended is not None and bool(ended[:, : int(replay.filled.max())].any())
        return Facts(
            updates=self._n_updates,
            steps=self.num_timesteps,
            episodes=self._episode_num,
            terminations=seen if head is not None else None,
            entropy_range=entropy_range(self.policy.codec.layout, getattr(self.policy.behavior, "actor", None)),
        )

    def warn(self, sentence: str) -> None:
        """Tell the user something about the run, as a warning that names the step."""
        if distributed.is_rank_zero():
            warnings.warn(f"step {self.num_timesteps:,}: {sentence}.", UserWarning, stacklevel=4)

    def _warn_once(self, text: str) -> None:
        """Tell the user something that would be repeated with every file or episode."""
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, UserWarning, stacklevel=4)

    def _dump_logs_of_all_ranks(self) -> None:
        """Write the log of all ranks: means over the latest episodes of each of them."""
        own = self.ep_info_buffer, self.ep_success_buffer
        infos, successes = (distributed.all_gather_object(list(part or ())) for part in own)
        try:
            self.ep_info_buffer, self.ep_success_buffer = deque(chain(*infos)), deque(chain(*successes))
            self.dump_logs()
        finally:
            self.ep_info_buffer, self.ep_success_buffer = own

    @property
    def world_model(self) -> WorldModelView:
        """The world model for use on its own, with numpy arrays as ``predict`` takes and returns them."""
        return WorldModelView(self.policy)

    # ---- one update ------------------------------------------------------------------------------------------------

    def update(self, batch: SequenceBatch) -> dict[str, th.Tensor]:
        """Do one update from one batch, in the chosen precision, from a CUDA graph if there is one.

        :return: metrics as 0-d tensors
        """
        result = (self._graphed or self._eager_update)(batch)
        self._skip_watch.add(result.metrics, batch)
        self._after_update(result)
        return result.metrics

    def _eager_update(self, batch: SequenceBatch) -> UpdateResult:
        with update_precision(self.device, self.mixed_precision), run_steps_by(self._compiled):
            return self._update(batch)

    def _update(self, batch: SequenceBatch) -> UpdateResult:
        """Update everything from one batch: the paper's algorithm box.

        A function of tensors, so that a CUDA graph can hold it: see :mod:`sb3_dreamer.common.updates.cuda_graph`.

        :return: metrics as 0-d tensors, and the posterior states of the batch
        """
        raise NotImplementedError

    def _model_loss(self, batch: SequenceBatch) -> ModelOutput:
        """Losses of the world model, as an update computes them."""
        return self.policy.world_model.loss(batch)

    def _after_update(self, result: UpdateResult) -> None:
        """Do what belongs to an update but not to its tensors: moves every so often, writing to replay."""

    # ---- files -----------------------------------------------------------------------------------------------------

    def _excluded_save_params(self) -> list[str]:
        """Names that a model file never holds: what is built anew, and what belongs to the running process."""
        rebuilt = ["optimizers", "warmup_behavior", "lr_schedule", "lr_schedules", "policy_class", "_carry"]
        process = ["start_time", "_world_size", "_collecting", "_callback", "_callback_states"]
        process += ["_resume", "_restart_seed", "_env_watch", "_forecast", "_metrics", "_skip_watch", "_diagnosis"]
        process += ["_graphed", "_compiled", "_warned", "_last_checkpoint", "while_learning"]
        return [*super()._excluded_save_params(), *rebuilt, *process, *getattr(self, "optimizers", ())]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *self.optimizers], []

    def _optimizers_by_name(self) -> dict[str, th.optim.Optimizer]:
        return {name: group.optimizer for name, group in self.optimizers.items()}

    def save(
        self,
        path: save_load.Path,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the model: a zip of JSON and safetensors, whole or not at all.

        Attributes that the constructor does not make are left out with a warning: ``load`` takes none from a file.

        :param path: file name (``.zip`` is added if it has no suffix) or binary file object
        :param exclude: attributes to leave out; ``["optimizers"]`` leaves out the states of the optimizers, which are
            more than half of a file: it acts the same, and learning continues from it with new optimizers
        :param include: attributes to store although they are left out by default
        """
        left_out = set(exclude or ())
        for name in left_out - {"optimizers"} - vars(self).keys():
            raise ValueError(
                f"exclude has {name!r}, which is not an attribute of the model{near(name, ['optimizers', *vars(self)])}"
            )
        skipped = (left_out | set(self._excluded_save_params())) - set(include or ())
        if added := self._added_attributes() - skipped:
            skipped |= added
            self._warn_once(f"{', '.join(sorted(added))}: set on the model from outside, so not in its file")
        save_load.write_algorithm(
            path,
            type(self).__name__,
            {name: value for name, value in self.__dict__.items() if name not in skipped},
            self.policy,
            {} if "optimizers" in left_out else self._optimizers_by_name(),
            None if self._carry is None else self._carry._asdict(),
            warn=self._warn_once,
            verbose=self.verbose,
        )

    def export(self, path: str | os.PathLike[str], deterministic: bool = True) -> Path:
        """Write one step of acting to a file that runs without this package; see docs/export.md.

        It maps ``(observation, state, episode_start)`` to ``(action, next state)`` as :meth:`predict` does, for any
        number of environments, preprocessing included.

        :param path: ends in ``.onnx`` (needs the extra ``export``), or in ``.pt2`` for a program of ``torch.export``
        :param deterministic: modes instead of samples; False: random numbers are drawn inside
        :return: the path
        :raises ValueError: for another ending, or a behavior that the format cannot hold (PlaNet's planner if
            ``deterministic``; samples of DreamerV2's actor for Box actions in ONNX)
        """
        return export_policy(self.policy, path, deterministic=deterministic)

    def _added_attributes(self) -> set[str]:
        """Names that :meth:`load` would refuse in a file, because the constructor does not make them."""
        with contextlib.suppress(TypeError):  # a subclass may take other arguments; no file of it can be loaded
            made = type(self)(self.policy_class, None, device=self.device, _init_setup_model=False)  # type: ignore[call-arg, arg-type]
            return set(vars(self)) - set(vars(made)) - {*save_load.NEEDED, *save_load.WITH_ENV}
        return set()

    @classmethod
    def load(
        cls: type[Self],
        path: save_load.Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Read what :meth:`save` wrote. No code of the file is run.

        :param path: file name (with or without ``.zip``) or binary file object
        :param env: environment to continue with; None if the model is only to predict
        :param device: where the model goes
        :param custom_objects: values to use instead of stored ones, by attribute name; also ``policy_class``
        :param print_system_info: print where the file was written, and where it is read
        :param force_reset: reset ``env`` before learning continues
        :param kwargs: attributes to change; ``tensorboard_log`` and ``replay_dir`` (in ``replay_buffer_kwargs``) are
            not taken from a file: pass them to write there again
        :raises ModelFileError: if the file is damaged, of another algorithm, or holds pickled data
        :raises ValueError: if ``env`` has other spaces than the model
        """
        custom = custom_objects or {}
        stored = save_load.read_algorithm(path, cls.__name__, custom)
        data = {"_logged_step": stored.data.get("num_timesteps", 0)} | stored.data
        if print_system_info:
            print("== CURRENT SYSTEM INFO ==")
            utils.get_system_info()
            print(f"== SAVED MODEL SYSTEM INFO ==\n{stored.system_info}")
        kwargs = cls._passed_settings(kwargs, data)
        if env is not None:
            verbose, ignore = data.get("verbose", 0), (data.get("policy_kwargs") or {}).get("ignore_keys", ())
            env = cls._wrap_env(without_unstackable(maybe_make_env(env, verbose), ignore), verbose)
            utils.check_for_correct_spaces(env, data["observation_space"], data["action_space"])
            data["n_envs"] = env.num_envs
            if force_reset:
                data["_last_obs"] = None
        policy_class = save_load.find_policy_class(stored.policy_class, cls.policy_aliases.values())
        model = cls(policy=policy_class, env=env, device=device, _init_setup_model=False)  # type: ignore[call-arg, arg-type]
        save_load.check_attributes(data, model, stored.name)
        model.__dict__.update(data)
        # As in SB3, custom objects replace what is there and add nothing.
        model.__dict__.update({name: value for name, value in custom.items() if hasattr(model, name)})
        for name in kwargs:
            if name not in vars(model):
                raise ValueError(
                    f"load() was given {name!r}, which is not a setting of {cls.__name__}{near(name, vars(model))}"
                )
        model.__dict__.update(kwargs)
        if kwargs:
            model._check_arguments()
        weights = stored.tensors.get("policy", {})
        with only_stored(weights, stored.name, passed=bool(kwargs or custom)):
            if isinstance(policy_class, type) and issubclass(policy_class, WorldModelPolicy):
                former = policy_class.former_defaults(model.policy_kwargs, model.model_size, weights)
                model.model_size = former.pop("model_size", model.model_size)
                model.policy_kwargs |= former
            model._setup_model()
        model._restore(stored)
        if env is not None and not stored.settings:
            warnings.warn(f"{stored.name} holds no optimizers: learning continues with new ones", stacklevel=2)
        warn_other_preset(data.get("suite_preset"), model.env)
        save_load.warn_left_out(stored, custom.keys() | kwargs.keys())
        return model

    @staticmethod
    def _passed_settings(kwargs: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Attributes passed to :meth:`load`, checked against those of the file, and completed by them.

        :raises ValueError: for other ``policy_kwargs`` than the file's
        """
        kwargs = dict(kwargs)
        if kwargs.get("model_size") == "auto":
            del kwargs["model_size"]  # the file's own
        if "stats_window_size" in kwargs:  # SB3 keeps it under another name
            kwargs["_stats_window_size"] = kwargs.pop("stats_window_size")
        if "replay_buffer_kwargs" in kwargs:
            stored, passed = data.get("replay_buffer_kwargs") or {}, kwargs["replay_buffer_kwargs"] or {}
            kwargs["replay_buffer_kwargs"] = stored | passed
        if "policy_kwargs" in kwargs and kwargs["policy_kwargs"] != data["policy_kwargs"]:
            raise ValueError(
                f"The specified policy kwargs do not equal the stored policy kwargs. "
                f"Stored kwargs: {data['policy_kwargs']}, specified kwargs: {kwargs['policy_kwargs']}"
            )
        return kwargs

    def _restore(self, stored: save_load.StoredModel) -> None:
        """Load weights, optimizers and, for the same running episodes, the carry."""
        save_load.restore_tensors(self.policy, self._optimizers_by_name(), stored)
        carry = stored.tensors.get("carry")
        if carry is not None and len(carry["deter"]) == self.n_envs and self._last_obs is not None:
            self._carry = PolicyState(**{key: value.to(self.device) for key, value in carry.items()})

    def set_parameters(
        self,
        load_path_or_dict: Any,
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """Take over parameters from a model file or from what :meth:`get_parameters` gave.

        :param load_path_or_dict: file name, file object or dict of state dicts
        :param exact_match: refuse missing and unknown entries; a file without optimizers, too
        :param device: accepted for compatibility with SB3; tensors go where the model is
        """
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)
            return
        stored = save_load.read_algorithm(load_path_or_dict, type(self).__name__, {})
        if exact_match and not stored.settings:
            raise ValueError(f"{stored.name} holds no optimizers: pass exact_match=False to take the weights alone")
        save_load.restore_tensors(self.policy, self._optimizers_by_name(), stored)

    def save_replay_buffer(self, path: save_load.Path) -> None:
        """Write the replay buffer to one safetensors file, whole or not at all.

        :param path: file name, used as it is, or binary file object
        """
        assert self.replay_buffer is not None, "The replay buffer is not defined"
        write_replay(self.replay_buffer, path)

    def load_replay_buffer(
        self, path: save_load.Path, truncate_last_traj: bool = True, trust_pickle: bool = False
    ) -> None:
        """Read what :meth:`save_replay_buffer` wrote, or continue with a ``replay_dir``.

        :param path: file name, binary file object, or the folder that ``replay_dir`` names
        :param truncate_last_traj: the running episodes of the file do not continue: mark them as truncated
        :param trust_pickle: also read a buffer that Stable-Baselines3 saved. Such a file is a pickle, which can run any
            code when it is loaded: only for files that you wrote yourself
        :raises ModelFileError: if the file is damaged, or its rows are of other spaces
        """
        if self.replay_buffer is None:
            self._make_replay_buffer()
        replay = read_replay(self.replay_buffer, path, trust_pickle=trust_pickle)
        if truncate_last_traj:
            replay.cut()
        replay.device = self.device
        self.replay_buffer = replay

    # ---- checkpoints: see sb3_dreamer.common.resume.checkpoint -----------------------------------------------------

    def save_checkpoint(self, folder: str | os.PathLike[str], keep: int = 3, replay: bool = True) -> Path:
        """Write a checkpoint, whole or not at all, and start the environments again.

        :mod:`sb3_dreamer.common.resume.checkpoint` has the rule for environments. Call it between two ``learn()``, or
        let :class:`~sb3_dreamer.common.resume.callback.ResumableCheckpoint` do so. Of several ranks all call it.

        :param folder: of the run's checkpoints
        :param keep: how many checkpoints stay
        :param replay: False leaves replay out; :meth:`load_checkpoint` then needs ``allow_empty_replay=True``. With
            ``replay_dir`` the rows stay where they are, and the checkpoint holds the cursors
        :return: the checkpoint
        :raises RuntimeError: in the middle of a rollout
        :raises OSError: if it cannot be written, for example to a full disk; older checkpoints stay
        :raises FloatingPointError: if weights are NaN or infinite: it could not be loaded, and older checkpoints stay
        """
        if self._collecting:
            raise RuntimeError(
                "a checkpoint cannot be written in the middle of a rollout: call save_checkpoint() in "
                "on_rollout_start, or use sb3_dreamer.common.resume.callback.ResumableCheckpoint"
            )
        self.replay_buffer.cut()
        # Whether writing succeeds or not: the run must not depend on it.
        self._restart_seed = checkpoint.restart_seed(self.seed, self.num_timesteps)
        weights = nonfinite_weights(self.policy)
        if weights:
            raise FloatingPointError(broken(weights))
        with shared_checkpoint(folder, self.num_timesteps, keep) as (part, final):
            if distributed.is_rank_zero():
                self.save(part / checkpoint.MODEL)
            state = self._training_state(self._restart_seed, replay)
            checkpoint.write_training(part / checkpoint.TRAINING, type(self).__name__, state)
            if replay and not self.replay_buffer.on_disk:
                self.save_replay_buffer(part / checkpoint.REPLAY)
        self._last_checkpoint = final
        return final

    def _training_state(self, restart_seed: int, replay: bool) -> checkpoint.TrainingState:
        """Collect what a checkpoint holds besides model and replay."""
        pending = self._resume  # of a checkpoint that was read, and from which learn() has not continued yet
        log, contents = parts.logger_state(getattr(self, "_logger", None))
        where: Any = checkpoint.REPLAY if replay else None
        if replay and self.replay_buffer.on_disk:
            self.replay_buffer.allocate()
            self.replay_buffer.flush()
            where = self.replay_buffer.journal()
        if pending is not None:
            return pending._replace(restart_seed=restart_seed, replay=where)
        return checkpoint.TrainingState(
            step=self.num_timesteps,
            restart_seed=restart_seed,
            random=RandomState.take(self.device, self.policy.random_state),
            callbacks=parts.callback_states(self._callback) if self._callback else self._callback_states,
            logger=log,
            logs=contents,
            metric_counts=dict(self._metrics.counts),
            metrics=self._metrics.sums,
            normalizer=parts.normalizer_state(self._vec_normalize_env),
            replay=where,
            episodes=[self.ep_info_buffer, self.ep_success_buffer],
        )

    @classmethod
    def load_checkpoint(
        cls: type[Self],
        path: str | os.PathLike[str],
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        allow_empty_replay: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Read a checkpoint; ``learn(steps, reset_num_timesteps=False)`` then continues exactly where it was written.

        :param path: a checkpoint, or the folder of a run's checkpoints (the newest is taken)
        :param env: the same environments, made anew; may also follow with ``set_env``
        :param device: where the model goes; only on the same kind of device the run is the same
        :param custom_objects: see :meth:`load`
        :param allow_empty_replay: take a checkpoint that was written without replay; collecting then refills replay
            with ``learning_starts`` rows before the first update. Also takes one of another number of ranks: weights,
            optimizers and counters continue, replay and random states do not
        :param kwargs: attributes to change
        :raises FileNotFoundError: if there is no checkpoint
        :raises ModelFileError: if it is damaged, of another algorithm, or without replay
        """
        found = find_checkpoint(path)
        own, kind = distributed.rank_folder(found), cls.__name__
        try:
            exact = checkpoint.same_ranks(found, kind, allow_empty_replay)
            state = checkpoint.read_training(own / checkpoint.TRAINING, kind) if exact else None
            if state is not None and state.replay is None and not allow_empty_replay:
                raise ModelFileError(
                    f"'{found}' was written without replay, and a run without replay does not continue as it was: "
                    "pass allow_empty_replay=True to collect anew before the first update"
                )
            model_file = found / checkpoint.MODEL
            model = cls.load(model_file, env=env, device=device, custom_objects=custom_objects, **kwargs)
            model._last_obs, model._last_checkpoint = None, found
            if state is None:
                return model
            model._take_over(state, own)
        except (ModelFileError, FileNotFoundError) as error:
            raise damaged(found, error) from error
        if env is not None:
            parts.restore_normalizer(model._vec_normalize_env, state.normalizer)
        return model

    def _take_over(self, state: checkpoint.TrainingState, folder: pathlib.Path) -> None:
        """Take replay and metrics of a checkpoint now, and keep the rest until ``learn`` begins."""
        if state.replay == checkpoint.REPLAY:
            self.load_replay_buffer(folder / checkpoint.REPLAY, truncate_last_traj=False)
        elif state.replay is not None:
            attach_replay(self.replay_buffer, state.replay)
        if self._world_size > 1 and state.episodes is not None:
            self.ep_info_buffer, self.ep_success_buffer = state.episodes
        sums = {name: value.to(self.device) for name, value in state.metrics.items()}
        self._metrics.restore(sums, state.metric_counts)
        self._resume, self._restart_seed = state, state.restart_seed

    def _resume_random(self) -> None:
        """Put the random states of the checkpoint back, and start the environments again if that is due."""
        if self._resume is not None:
            self.policy.random_state = self._resume.random.put(self.device)
        if self._restart_seed is not None:
            self._restart_environments()
        if self._resume is not None:
            random = RandomState.take(self.device, self.policy.random_state)
            self._resume = self._resume._replace(random=random)

    def _resume_rest(self) -> None:
        """Restore callbacks, log files and random states, right before the first step: whatever was drawn meanwhile."""
        state, self._resume = self._resume, None
        if state is None:
            return
        assert self._callback is not None
        parts.restore_callbacks(self._callback, state.callbacks)
        parts.restore_logger(self.logger, state.logger, state.logs, state.step)
        parts.seed_evaluations(self._callback, state.restart_seed)
        self.policy.random_state = state.random.put(self.device)

    def _restart_environments(self) -> None:
        """Reset all environments with the seed of the last checkpoint; the agent remembers nothing of before."""
        seed, self._restart_seed = self._restart_seed, None
        assert self.env is not None and seed is not None
        self.env.seed(seed)
        self._begin_episodes(self.env)
        parts.seed_evaluations(self._callback, seed)
