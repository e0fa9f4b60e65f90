"""PlaNet (arXiv 1811.04551) as an SB3 algorithm."""

import time
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutReturn, Schedule

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.arguments import check_flags, check_range, default_values, explained, warn_of_unused
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.common.report import duration
from sb3_dreamer.common.spec import one_of
from sb3_dreamer.core.behavior import Behavior, NoisyBehavior
from sb3_dreamer.core.cem import Deviation
from sb3_dreamer.core.objectives import FreeNatsKL
from sb3_dreamer.core.optim import OptimizerGroup, make_adam
from sb3_dreamer.core.overshooting import LatentOvershooting
from sb3_dreamer.core.planner import CEMPlanner
from sb3_dreamer.core.types import SequenceBatch, UpdateResult
from sb3_dreamer.planet.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_dreamer.planet.replay import RecentReplayBuffer


class PlaNet(WorldModelAlgorithm):
    """Learns a world model from replay and plans every action in it with the cross-entropy method; no actor, no critic.

    Paper: arXiv 1811.04551, Algorithms 1 and 2, with the numbers of the authors' last release.
    An agent step costs ``planning_iterations * planning_candidates`` dreams: lower these first on a slow machine.

    :param policy: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``
    :param env: environment, its id, or a VecEnv of any number of environments; action repeat belongs to it
    :param learning_rate: of the world model
    :param buffer_size: rows of replay over all environments
    :param learning_starts: agent steps with random actions, if more than ``seed_episodes`` take
    :param batch_size: sequences of a batch, B
    :param batch_length: rows of a sequence, L
    :param seed_episodes: episodes with random actions before the first update, S, over all environments
    :param collect_interval: updates for each finished episode, C, and once after the seed episodes
    :param exploration_noise: standard deviation of the noise on planned actions while collecting (for discrete actions:
        probability of a uniform choice)
    :param collection: ``planner``, or ``random`` for the paper's baseline that learns from random actions alone
    :param planning_horizon: steps that are planned, H
    :param planning_iterations: iterations of CEM, I
    :param planning_candidates: action sequences of an iteration, J
    :param planning_elites: sequences that the belief is refitted to, K; 1 with one iteration is random shooting
    :param planning_deviation: ``std`` (released code) or ``mad`` (as printed in Algorithm 2)
    :param warm_start: start each search from the last plan, shifted by a step (the paper does not)
    :param gamma: discount of predicted rewards in planning; the paper has none (1)
    :param reward_scale: factor of the reward loss
    :param kl_scale: factor of the KL loss
    :param free_nats: KL of a step that costs nothing
    :param overshooting_distance: D of latent overshooting; 0 (the last release) leaves it out
    :param overshooting_scale: β of the distances above 1
    :param recent_share: share of a batch that is drawn from recent episodes
    :param recent_episodes: how many episodes are recent
    :param adam_eps: ε of Adam
    :param max_grad_norm: largest gradient norm
    :param train_ratio: replayed steps per agent step, instead of ``collect_interval``; 0: follow the episodes
    :param model_size: ``debug``, ``small``, ``paper``; ``auto``: small for vectors, paper with images
    :param train_freq: environment steps between two looks at what is owed in updates
    :param gradient_steps: updates per ``train_freq``, instead of ``collect_interval``; -1: as many as steps
    :param action_noise: further noise, as in SB3 (Box only)
    :param replay_buffer_class: a subclass of :class:`SequenceReplayBuffer`; :class:`RecentReplayBuffer` by default
    :param replay_buffer_kwargs: further arguments of the buffer
    :param optimize_memory_usage: accepted for compatibility with SB3; observations are never stored twice
    :param mixed_precision: products of updates and plans in bfloat16 (see docs/speed.md); weights stay float32
    :param cuda_graph: replay whole updates as one CUDA graph on CUDA; None: if it can be; True: or raise; False: no
    :param compile: True: compile the steps that an update repeats (see docs/speed.md); ``auto``: if the run has so many
        updates that it pays; False: no
    :param prefetch: draw the next batch in a thread where several updates are owed; None: on CUDA
    :param max_skipped_updates: so many non-finite updates in a row end the run with a report; 0: never
    :param stats_window_size: episodes over which returns are averaged in the log
    :param tensorboard_log: folder of TensorBoard logs
    :param policy_kwargs: fields of :class:`PlaNetSpec` to replace, ``net_arch``, ``ignore_keys``
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
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 0,
        batch_size: int = 50,
        batch_length: int = 50,
        seed_episodes: int = 5,
        collect_interval: int = 100,
        exploration_noise: float = 0.3,
        collection: Literal["planner", "random"] = "planner",
        planning_horizon: int = 12,
        planning_iterations: int = 10,
        planning_candidates: int = 1000,
        planning_elites: int = 100,
        planning_deviation: Deviation = "std",
        warm_start: bool = False,
        gamma: float = 1.0,
        reward_scale: float = 10.0,
        kl_scale: float = 1.0,
        free_nats: float = 3.0,
        overshooting_distance: int = 0,
        overshooting_scale: float = 1.0,
        recent_share: float = 0.5,
        recent_episodes: int = 10,
        adam_eps: float = 1e-4,
        max_grad_norm: float = 1000.0,
        train_ratio: float = 0.0,
        model_size: str = "auto",
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int | None = None,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[SequenceReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        mixed_precision: bool = False,
        cuda_graph: bool | None = None,
        compile: bool | str = False,
        prefetch: bool | None = None,
        max_skipped_updates: int = 3,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        if policy_kwargs and "planner" in policy_kwargs:
            raise ValueError("policy_kwargs has 'planner': write planning_horizon=, planning_candidates=, ... instead")
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            batch_length=batch_length,
            train_ratio=train_ratio,
            tau=1.0,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
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
        self.seed_episodes = seed_episodes
        self.collect_interval = collect_interval
        self.exploration_noise = exploration_noise
        self.collection = collection
        self.planning_horizon = planning_horizon
        self.planning_iterations = planning_iterations
        self.planning_candidates = planning_candidates
        self.planning_elites = planning_elites
        self.planning_deviation = planning_deviation
        self.warm_start = warm_start
        self.reward_scale = reward_scale
        self.kl_scale = kl_scale
        self.free_nats = free_nats
        self.overshooting_distance = overshooting_distance
        self.overshooting_scale = overshooting_scale
        self.recent_share = recent_share
        self.recent_episodes = recent_episodes
        self.adam_eps = adam_eps
        self.max_grad_norm = max_grad_norm
        if _init_setup_model:
            self._setup_model()
            self._warn_of_unused_arguments()

    # ---- construction ----------------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("seed_episodes", "collect_interval", "overshooting_distance"):
            check_range(name, getattr(self, name), 0, whole=True)
        for name in ("planning_horizon", "planning_iterations", "planning_candidates", "planning_elites"):
            check_range(name, getattr(self, name), 1, whole=True)
        for name in ("exploration_noise", "reward_scale", "kl_scale", "free_nats", "overshooting_scale"):
            check_range(name, getattr(self, name), 0.0)
        for name in ("adam_eps", "max_grad_norm"):
            check_range(name, getattr(self, name), 0.0, above=True)
        if self.planning_elites > self.planning_candidates:
            raise ValueError(
                f"planning_elites={self.planning_elites} must not be more than "
                f"planning_candidates={self.planning_candidates}: lower it, too"
            )
        check_range("recent_share", self.recent_share, 0.0, 1.0)
        check_range("recent_episodes", self.recent_episodes, 1, whole=True)
        one_of("planning_deviation", self.planning_deviation, ("std", "mad"))
        check_flags(self, "warm_start")
        one_of("collection", self.collection, ("planner", "random"))

    def _setup_model(self) -> None:
        super()._setup_model()
        planner: dict[str, Any] = {
            "horizon": self.planning_horizon,
            "iterations": self.planning_iterations,
            "candidates": self.planning_candidates,
            "elites": self.planning_elites,
            "gamma": self.gamma,
            "deviation": self.planning_deviation,
            "warm_start": self.warm_start,
            "seed": self.seed or 0,
            "mixed_precision": self.mixed_precision,
        }
        self.policy.set_planner(planner)
        # A second planner collects, so that a warm start does not mix the plans of training and of predict().
        layout = self.policy.codec.layout
        self._collector = NoisyBehavior(CEMPlanner(layout, **planner), layout, self.exploration_noise)
        model = self.policy.world_model
        model.objective = FreeNatsKL(scale=self.kl_scale, free=self.free_nats)
        model.scales |= {"reward": self.reward_scale} | model.objective.scales
        if self.overshooting_distance > 1:
            model.overshooting = LatentOvershooting(
                self.overshooting_distance, scale=self.overshooting_scale, free=self.free_nats
            )
            model.scales |= model.overshooting.scales

    def _warn_of_unused_arguments(self) -> None:
        """Warn of arguments without effect, because the part that uses them is off."""
        drawn = isinstance(self.replay_buffer, RecentReplayBuffer)
        warn_of_unused(
            self,
            default_values(PlaNet),
            (self.overshooting_distance > 1, ["overshooting_scale"], "Remove it, or set overshooting_distance above 1"),
            (self.policy.codec.layout.kind == "continuous", ["planning_deviation"], "It is for Box actions: remove it"),
            (self.collection == "planner", ["exploration_noise"], "Remove it, or collection='random'"),
            (self.recent_share > 0.0, ["recent_episodes"], "Remove it, or set recent_share above 0"),
            (drawn, ["recent_share", "recent_episodes"], "It is for RecentReplayBuffer: remove it"),
        )

    def _own_replay_class(self) -> type[SequenceReplayBuffer]:
        return RecentReplayBuffer

    def _make_replay_buffer(self) -> None:
        super()._make_replay_buffer()
        if isinstance(self.replay_buffer, RecentReplayBuffer):
            for name in ("recent_share", "recent_episodes"):
                if name in self.replay_buffer_kwargs:
                    raise ValueError(
                        f"replay_buffer_kwargs has {name!r}, which is an argument of PlaNet: pass it there"
                    )
            self.replay_buffer.set_recent(self.recent_share, self.recent_episodes)

    def _make_optimizers(self) -> dict[str, OptimizerGroup]:
        """One Adam for everything."""
        params = list(self.policy.world_model.parameters())
        rate = self.learning_rate if isinstance(self.learning_rate, float) else 1e-3
        optimizer = make_adam(params, rate, eps=self.adam_eps)
        return {"model_optim": OptimizerGroup("model", params, optimizer, self.max_grad_norm)}

    def _learning_rates(self) -> dict[str, float | Schedule]:
        return {"model_optim": self.learning_rate}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_collector"]

    def describe(self) -> list[tuple[str, str]]:
        """Describe what is about to be trained; see :meth:`WorldModelAlgorithm.describe`."""
        search = (
            f"CEM, {self.planning_iterations} iterations of {self.planning_candidates:,} sequences of "
            f"{self.planning_horizon} steps, {self.planning_elites} elites"
        )
        return [*super().describe(), ("planning", search)]

    def _updates_text(self) -> str:
        if not self._by_episode:
            return super()._updates_text()
        return f"{self.collect_interval} per finished episode, after {self.seed_episodes} random ones"

    # ---- Algorithm 1 -----------------------------------------------------------------------------------------------

    def _exploration_behavior(self) -> Behavior | None:
        return self._collector

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Random until the seed episodes are complete, then planned; the time of planning is logged."""
        if self._episode_num < self.seed_episodes or self.collection == "random":
            learning_starts = self.num_timesteps + 1
        start = time.perf_counter()
        actions = super()._sample_action(learning_starts, action_noise, n_envs)
        if self.num_timesteps >= learning_starts:
            milliseconds = 1000.0 * (time.perf_counter() - start)
            self._metrics.add({"plan_ms": th.tensor(milliseconds)})
        return actions

    @property
    def _by_episode(self) -> bool:
        """Whether updates follow the finished episodes, as in Algorithm 1."""
        return self.gradient_steps is None and not self.train_ratio

    def _train_after(self, rollout: RolloutReturn) -> None:
        """C updates once the seed episodes are complete, then C for each episode that is finished."""
        if self._episode_num < self.seed_episodes:
            return
        if not self._by_episode:
            super()._train_after(rollout)
            return
        rounds = self._rounds(self._episode_num) - self._rounds(self._episode_num - rollout.n_episodes)
        self._owed += rounds * self.collect_interval
        self._train_owed()

    def _rounds(self, episodes: int) -> int:
        """Rounds of updates that Algorithm 1 has done when this many episodes are finished."""
        return max(0, episodes - max(1, self.seed_episodes) + 1)

    def _update(self, batch: SequenceBatch) -> UpdateResult:
        """One step on the bound of Eq. 3 (or Eq. 7, with overshooting)."""
        world_model = self.policy.world_model
        losses, post, metrics = self._model_loss(batch)
        metrics |= self.optimizers["model_optim"].step(world_model.total(losses))
        metrics |= {f"loss_{name}": loss.detach().mean() for name, loss in losses.items()}
        return UpdateResult(metrics, post.detach())

    def _forecast_text(self) -> str:
        """Forecast how long the run will take: updates come once an episode, and planning is most of a step."""
        if not self._by_episode or self._forecast.planned is not None:
            return super()._forecast_text()
        update, plan = self._forecast.seconds_per_update, self._plan_seconds()
        steps, episodes = max(1, self.num_timesteps), max(1, self._episode_num)
        per_step = plan / self.n_envs + update * self.collect_interval * episodes / steps
        left = self._total_timesteps - self.num_timesteps
        return (
            f"One update takes {1000 * update:.0f} ms, one planning call for {self.n_envs} environment(s) "
            f"{1000 * plan:.0f} ms: the remaining {left:,} steps take about {duration(left * per_step)}."
        )

    def _plan_seconds(self) -> float:
        """Seconds of one planning call, after one that warms up; the run continues as if there had been none."""
        first = th.ones(self.n_envs, dtype=th.bool, device=self.device)
        obs, state = self._obs_tensors(), self.policy.initial_state(self.n_envs)
        planner = CEMPlanner(self.policy.codec.layout, **self.policy.planner_settings)
        seconds = 0.0
        with th.random.fork_rng([self.device] if self.device.type == "cuda" else []), th.no_grad():
            for _ in range(2):
                start = time.perf_counter()
                self.policy.step(obs, state, first, deterministic=True, behavior=planner).prev_action.cpu()
                seconds = time.perf_counter() - start
        return seconds
