"""The dream as an environment: any SB3 algorithm learns in a world model and plays in the real task."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.arguments import check_range
from sb3_dreamer.common.spaces import space_dict
from sb3_dreamer.core.behavior import Behavior
from sb3_dreamer.core.types import LatentState
from sb3_dreamer.core.world_model import WorldModel


class DreamVecEnv(VecEnv):
    """Step a world model as if it were ``n_envs`` environments, all of them in one batch.

    An episode begins in the latent state of a replayed row and lasts until the model expects the task to end it, or
    ``horizon`` steps, where it counts as truncated. Rewards are the reward head's means. Nothing here changes the
    training of the model or its random numbers; weights and replay are those that the model has at the moment.

    :param model: a trained DreamerV3, DreamerV2 or PlaNet with its replay (after ``load``: ``load_replay_buffer``)
    :param n_envs: dreams in parallel
    :param horizon: steps of a dream (15, as in the papers); further ahead the model knows less
    :param observations: ``latent``, flat features ``(F,)`` (deter, then stoch), for :class:`DreamPolicy`; ``decoded``,
        means in the observation space of the task, without the keys that the model ignores; normalized, as the agent
        sees them, if the model learns under ``VecNormalize``
    :param threshold: a dream ends where the probability to continue is below it; None: by chance, with that
        probability. With ``hard_continue`` (default of DreamerV3's 2023 version) it is 0 or 1. PlaNet's dreams never
        end, unless it has an ``end_head``
    :param context: rows of a replayed sequence that are filtered before the first start, so that a start knows more
        than one observation; less than the model's ``batch_length``
    :param seed: of the choice of starts and of the dreams; one stream for all of them
    :raises ValueError: for numbers that do not work, or if replay holds no sequence of ``batch_length`` rows
    """

    render_mode = None

    def __init__(
        self,
        model: WorldModelAlgorithm,
        n_envs: int = 1024,
        *,
        horizon: int = 15,
        observations: Literal["latent", "decoded"] = "latent",
        threshold: float | None = None,
        context: int = 5,
        seed: int | None = None,
    ):
        if not isinstance(model, WorldModelAlgorithm):
            raise TypeError(f"model={model!r} has no world model: pass a DreamerV3, DreamerV2 or PlaNet")
        check_range("n_envs", n_envs, 1, whole=True)
        check_range("horizon", horizon, 1, whole=True)
        check_range(
            "context", context, 0, model.batch_length - 1, whole=True, hint="less than the model's batch_length"
        )
        if threshold is not None:
            check_range("threshold", threshold, 0.0, 1.0)
        if seed is not None:
            check_range("seed", seed, 0, whole=True)
        if observations not in ("latent", "decoded"):
            raise ValueError(f"observations={observations!r} is unknown: use 'latent' or 'decoded'")
        if not model.replay_buffer.ready(model.batch_length):
            raise ValueError(
                f"replay holds no sequence of batch_length={model.batch_length} rows to start from: call learn(), or "
                "load_replay_buffer() for a model from a file"
            )
        self.model = model
        self.horizon, self.threshold, self.context = horizon, threshold, context
        self.decoded = observations == "decoded"
        space = decoded_space(model) if self.decoded else latent_space(model)
        super().__init__(n_envs, space, model.action_space)
        self._restart(seed)
        self._state: LatentState | None = None
        self._steps = np.zeros(n_envs, np.int64)

    # ---- SB3's interface -------------------------------------------------------------------------------------------

    def reset(self) -> VecEnvObs:
        """Restart all dreams."""
        if self._seeds[0] is not None:
            self._restart(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self._steps[:] = 0
        with self._own_random_state():
            self._state = self._starts(self.num_envs)
            return self._observation(self._state)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for ``step_wait``."""
        codec = self.model.policy.codec
        in_replay = th.as_tensor(codec.from_env(actions), device=self.model.device)
        if len(in_replay) != self.num_envs:
            raise ValueError(f"{len(in_replay)} actions for {self.num_envs} dreams: pass one for each")
        self._action = codec.executed(codec.to_model(in_replay))

    def step_wait(self) -> VecEnvStepReturn:
        """Dream one step, and start a new dream in place of each that ended."""
        if self._state is None:
            raise RuntimeError("step() before reset(): call reset() first, which starts the dreams")
        world_model = self.model.policy.world_model
        self._steps += 1
        with self._own_random_state():
            state = world_model.rssm.img_step(self._state, self._action)
            reward = world_model.reward(state.feat).cpu().numpy()
            terminated = self._ends(state).cpu().numpy()
            dones = terminated | (self._steps >= self.horizon)
            obs = self._observation(state)
            infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
            if dones.any():
                for i in np.flatnonzero(dones):
                    infos[i] = {"terminal_observation": _rows(obs, i), "TimeLimit.truncated": not terminated[i]}
                state, obs = self._begin_again(state, obs, dones)
        self._state = state
        return obs, reward, dones, infos

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of the whole batch, once for each environment."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole batch.

        :raises ValueError: if it is to be that of some environments only
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{attr_name} is one for all dreams: leave indices out")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the whole batch once for each environment."""
        return [getattr(self, method_name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """False for every environment: there are no wrappers."""
        return [False for _ in self._get_indices(indices)]

    # ---- dreaming --------------------------------------------------------------------------------------------------

    def _restart(self, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)
        generator = th.Generator(self.model.device).manual_seed(int(self._rng.integers(2**62)))
        self._random_state = generator.get_state()
        self._pool = self.model.policy.world_model.rssm.initial(0)  #: starts that were not used yet

    @contextmanager
    def _own_random_state(self) -> Iterator[None]:
        """Draw from a stream of this object, without a graph."""
        policy = self.model.policy
        kept, policy.random_state = policy.random_state, self._random_state
        try:
            with th.no_grad(), policy.own_random_state():
                yield
        finally:
            self._random_state, policy.random_state = policy.random_state, kept

    def _ends(self, state: LatentState) -> th.Tensor:
        """Whether the task ends the episode with this state, ``(n,)`` bool."""
        world_model = self.model.policy.world_model
        alive = world_model.continue_probability(state.feat)
        return th.rand_like(alive) >= alive if self.threshold is None else alive < self.threshold

    def _begin_again(self, state: LatentState, obs: VecEnvObs, dones: np.ndarray) -> tuple[LatentState, VecEnvObs]:
        """Put new starts in place of the dreams that are over."""
        start, ended = self._starts(int(dones.sum())), th.as_tensor(np.flatnonzero(dones), device=self.model.device)
        self._steps[dones] = 0
        first = self._observation(start)
        if isinstance(obs, dict):
            assert isinstance(first, dict)
            for name, value in obs.items():
                value[dones] = first[name]
        else:
            assert isinstance(obs, np.ndarray)
            obs[dones] = first
        return LatentState(*(part.index_copy(0, ended, new) for part, new in zip(state, start, strict=True))), obs

    def _starts(self, n: int) -> LatentState:
        """The next ``n`` states from the pool, which is filled from replay."""
        while (missing := n - self._pool.deter.shape[0]) > 0:
            more = self._filter_replay(missing)
            self._pool = LatentState(*(th.cat(parts) for parts in zip(self._pool, more, strict=True)))
        taken, self._pool = LatentState(*(p[:n] for p in self._pool)), LatentState(*(p[n:] for p in self._pool))
        return taken

    def _filter_replay(self, wanted: int) -> LatentState:
        """Posterior states of replayed sequences in random order, without terminal ones: about as many as wanted."""
        model = self.model
        sequences = max(model.batch_size, -(-wanted // (model.batch_length - self.context)))
        batch, state = model.replay_buffer.sample_aside(self._rng, sequences, model.batch_length)
        posts = model.policy.world_model.observe(batch, state).state
        begins = ~batch.is_terminal
        begins[:, : self.context] = False
        found = LatentState(*(part[begins] for part in posts))
        order = th.randperm(found.deter.shape[0], device=found.deter.device)
        return LatentState(*(part[order] for part in found))

    def _observation(self, state: LatentState) -> VecEnvObs:
        """What the agent sees of states ``(n, ...)``, in fresh arrays."""
        if not self.decoded:
            return state.feat.cpu().numpy()
        decoded = self.model.policy.world_model.decode(state.feat)
        known = space_dict(self.observation_space)
        arrays = {name: _to_space(value.cpu().numpy(), known[name]) for name, value in decoded.items()}
        return arrays if isinstance(self.observation_space, spaces.Dict) else next(iter(arrays.values()))


class DreamPolicy(Behavior):
    """Play an SB3 agent that learned in a :class:`DreamVecEnv` on latent features in the real task.

    The world model filters what is seen, the agent acts on the latent state. ``predict`` has SB3's recurrent interface,
    so ``evaluate_policy(DreamPolicy(model, agent), env)`` works.

    :param model: the world model whose dreams the agent learned in
    :param agent: trained in ``DreamVecEnv(model)``; one without a recurrent state of its own
    :raises ValueError: if the agent's spaces are not those of the model's dreams
    """

    def __init__(self, model: WorldModelAlgorithm, agent: BaseAlgorithm):
        super().__init__()
        wanted = (latent_space(model), model.action_space)
        if (agent.observation_space, agent.action_space) != wanted:
            raise ValueError(
                f"the agent maps {agent.observation_space} to {agent.action_space}, the dreams of this model are "
                f"{wanted[0]} and {wanted[1]}: train it in DreamVecEnv(model). An agent of decoded observations needs "
                "no DreamPolicy"
            )
        self.model, self.agent = model, agent

    def act(self, world_model: WorldModel, state: LatentState, *, deterministic: bool = False) -> th.Tensor:
        """See :class:`Behavior`."""
        action, _ = self.agent.predict(state.feat.cpu().numpy(), deterministic=deterministic)
        codec = self.model.policy.codec
        return codec.to_model(th.as_tensor(codec.from_env(action), device=state.deter.device))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for a real observation; see :meth:`sb3_dreamer.common.policy.WorldModelPolicy.predict`."""
        return self.model.predict(observation, state, episode_start, deterministic, planner=self)


def latent_space(model: WorldModelAlgorithm) -> spaces.Box:
    """Space of the flat features of a model, ``(F,)``."""
    return spaces.Box(-np.inf, np.inf, (model.policy.world_model.rssm.feat_size,), np.float32)


def decoded_space(model: WorldModelAlgorithm) -> spaces.Space:
    """Space of what a model reconstructs: that of the task, without the keys that the model ignores.

    What ``VecNormalize`` normalizes is a Box of floats up to its ``clip_obs``.
    """
    space, normalizer = model.observation_space, model.get_vec_normalize_env()
    known = {key.name: space_dict(space)[key.name] for key in model.policy.keys}
    if normalizer is not None and normalizer.norm_obs:
        for name in normalizer.norm_obs_keys or known:
            known[name] = spaces.Box(-normalizer.clip_obs, normalizer.clip_obs, known[name].shape, np.float32)
    return spaces.Dict(known) if isinstance(space, spaces.Dict) else next(iter(known.values()))


def _to_space(value: np.ndarray, space: spaces.Space) -> np.ndarray:
    """A reconstruction in the dtype of its space, and within its bounds."""
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        low, high = (space.low, space.high) if isinstance(space, spaces.Box) else (0, 1)
        value = value.clip(low, high)
    assert space.dtype is not None
    return (value if np.issubdtype(space.dtype, np.floating) else value.round()).astype(space.dtype)


def _rows(obs: VecEnvObs, rows: Any) -> Any:
    return {name: value[rows].copy() for name, value in obs.items()} if isinstance(obs, dict) else obs[rows].copy()
