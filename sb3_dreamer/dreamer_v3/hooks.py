"""What surrounds the updates of DreamerV3: latent states and masks of collected steps, warnings, stops."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise

from sb3_dreamer.common import distributed
from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.core.action_masks import MaskedActing, MaskedRandom
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.types import LatentState, SequenceBatch
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.diagnosis import Diagnosis, Facts, entropy_range
from sb3_dreamer.dreamer_v3.nonfinite import SkipWatch, stop_with_report
from sb3_dreamer.dreamer_v3.policies import MlpPolicy
from sb3_dreamer.dreamer_v3.replay import START, AnnotatedReplayBuffer
from sb3_dreamer.dreamer_v3.world_model_view import WorldModelView

REPORT_FOLDER = "nan_report"


class DreamerV3Hooks(WorldModelAlgorithm):
    """The parts of :class:`DreamerV3` that are not its algorithm; arguments as there."""

    policy: MlpPolicy
    replay_context: bool | None
    context_dtype: str
    max_skipped_updates: int
    _mask: np.ndarray | None = None
    _latest: LatentState | None = None

    @property
    def behavior(self) -> DreamerV3Behavior:
        """Actor, critic and return statistics."""
        assert isinstance(self.policy.behavior, DreamerV3Behavior)
        return self.policy.behavior

    @property
    def world_model(self) -> WorldModelView:
        """The world model for use on its own, with numpy arrays in the units of the environment."""
        return WorldModelView(self.policy)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._skip_watch = SkipWatch(self.max_skipped_updates)
        self._diagnosis = Diagnosis()
        if self.policy.spec.action_masks:
            self.warmup_behavior = MaskedRandom(self.policy.codec.layout)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_skip_watch", "_diagnosis", "_mask", "_latest"]

    # ---- annotated replay ------------------------------------------------------------------------------------------

    def _make_replay_buffer(self) -> None:
        wanted = self.replay_context
        context = self.family.replay_context if wanted is None else wanted  # type: ignore[attr-defined]
        masked = self.policy.spec.action_masks
        custom = self.replay_buffer_class
        if (context or masked) and custom is None:
            self.replay_buffer_class = AnnotatedReplayBuffer
        super()._make_replay_buffer()
        if isinstance(self.replay_buffer, AnnotatedReplayBuffer):
            spec = self.policy.spec
            sizes = (spec.deter, spec.stoch, spec.classes) if context else None
            self.replay_buffer.configure(context=sizes, dtype=self.context_dtype, masked=masked)
        elif wanted or masked:
            raise ValueError(
                f"replay_buffer_class={custom!r} stores neither latent states nor masks: use a subclass of "
                "sb3_dreamer.dreamer_v3.AnnotatedReplayBuffer, or replay_context=False and action_masks=False"
            )

    def replay_state(self, batch: SequenceBatch) -> LatentState | None:
        """Latent state before the rows of ``batch``; None: they begin afresh."""
        return LatentState(*(batch.obs[name] for name in START)) if START[0] in batch.obs else None

    def remember(self, post: LatentState) -> None:
        """Keep latent states ``(B, T, ...)`` of the batch drawn last for replay, if it stores them."""
        context = isinstance(self.replay_buffer, AnnotatedReplayBuffer) and self.replay_buffer.context
        self._latest = post.detach() if context else None

    def _after_update(self, batch: SequenceBatch, metrics: dict[str, th.Tensor]) -> None:
        self._skip_watch.add(metrics, batch)
        if self._latest is not None:
            assert isinstance(self.replay_buffer, AnnotatedReplayBuffer)
            self.replay_buffer.write_back(self._latest)

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

    # ---- action masks ----------------------------------------------------------------------------------------------

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.warmup_behavior, MaskedRandom):
            self._mask = self._current_masks()
            self.warmup_behavior.mask = th.as_tensor(self._mask, device=self.device)
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def _exploration_behavior(self) -> Behavior | None:
        return None if self._mask is None else self._masked(self._mask)

    def _masked(self, mask: np.ndarray) -> Behavior:
        return MaskedActing(self.behavior, th.as_tensor(mask, device=self.device))

    def _current_masks(self) -> np.ndarray:
        """What the environments allow now, ``(n_envs, A)`` bool."""
        assert self.env is not None
        try:
            masks = self.env.env_method("action_masks")
        except AttributeError as error:
            raise ValueError(
                "action_masks=True, but the environment has no method action_masks(): give it one, or wrap it in "
                "sb3_contrib.common.wrappers.ActionMasker"
            ) from error
        return self._checked_masks(np.stack([np.asarray(mask, bool).reshape(-1) for mask in masks]))

    def _checked_masks(self, masks: np.ndarray) -> np.ndarray:
        sizes = self.policy.codec.layout.sizes
        if masks.shape[-1] != sum(sizes):
            raise ValueError(f"action_masks() has {masks.shape[-1]} entries, the action space {sum(sizes)}")
        ends = np.cumsum(sizes)[:-1]
        if not all(part.any(-1).all() for part in np.split(masks, ends, -1)):
            raise ValueError("action_masks() allows no action in some part of the action space: allow at least one")
        return masks

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

        :param planner: acts in the latent space instead of the policy's own behaviour
        :param action_masks: ``(n, A)`` or ``(A,)`` bool, the actions that are allowed; None: those that the model
            expects to be allowed
        :raises ValueError: for masks without ``action_masks=True`` in the constructor, or of a wrong shape
        """
        if action_masks is not None:
            if not self.policy.spec.action_masks:
                raise ValueError("this model knows no action masks: make it with DreamerV3(..., action_masks=True)")
            masks = np.asarray(action_masks, bool)
            planner = self._masked(self._checked_masks(masks.reshape(-1, masks.shape[-1])))
        return super().predict(observation, state, episode_start, deterministic, planner)

    # ---- diagnosis -------------------------------------------------------------------------------------------------

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Do a number of updates; several non-finite ones in a row end the run with a report.

        :raises NonFiniteError: naming the first tensor that is not finite
        """
        super().train(gradient_steps, batch_size)
        if self._skip_watch.exceeded():
            assert self._skip_watch.bad_batch is not None
            folder = Path(distributed.from_first(self.logger.get_dir() or ".")) / REPORT_FOLDER
            stop_with_report(self, self._skip_watch.bad_batch, distributed.own_folder(folder))  # type: ignore[arg-type]

    def dump_logs(self) -> None:
        """Write log data, and say in words what is wrong with it."""
        sums, counts = self._metrics.sums, self._metrics.counts
        means = {name: float(total) / counts[name] for name, total in sums.items()}
        if means:
            for sentence in self._diagnosis.check(means, self._facts()):
                self.say(sentence)
        super().dump_logs()

    def say(self, sentence: str) -> None:
        """Tell the user something about the run."""
        if not distributed.is_first():
            return
        warnings.warn(f"step {self.num_timesteps:,}: {sentence}.", UserWarning, stacklevel=3)

    def _facts(self) -> Facts:
        replay = self.replay_buffer
        ended = replay.arrays.get("is_terminal")
        return Facts(
            updates=self._n_updates,
            steps=self.num_timesteps,
            episodes=self._episode_num,
            terminations=ended is not None and bool(ended[:, : int(replay.filled.max())].any()),
            entropy_range=entropy_range(self.policy.codec.layout, self.behavior.actor),
        )
