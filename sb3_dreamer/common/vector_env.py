"""gymnasium's vector environments as Stable-Baselines3's."""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

NEXT_STEP, SAME_STEP = "NextStep", "SameStep"  #: two of gymnasium's three autoreset modes


class GymnasiumVecEnv(VecEnv):
    """Use a gymnasium vector environment where Stable-Baselines3 wants a ``VecEnv``.

    The two differ in when the next episode starts. A ``VecEnv`` resets in the step that ends an episode: it returns the
    first observation of the next one, the final one is in ``infos[i]["terminal_observation"]``, and every call is one
    step of every environment. In gymnasium it depends on the autoreset mode:

    ===========  ==================================================================================================
    mode         what this class does at the end of an episode
    ===========  ==================================================================================================
    SAME_STEP    takes the final observation and info from ``infos["final_obs"]`` and ``infos["final_info"]``
    DISABLED     resets the environments that ended (``options={"reset_mask": ...}``)
    NEXT_STEP    the same: the mode's own reset would take a step in which the other environments act and this one
                 only resets, a row that no one played
    ===========  ==================================================================================================

    Episode returns come from ``stable_baselines3.common.vec_env.VecMonitor`` around it.

    :param env: vector environment, sync, async or of its own kind
    :raises ValueError: if its environments cannot be reset one by one in ``NEXT_STEP`` mode
    """

    def __init__(self, env: gym.vector.VectorEnv):
        self.env = env
        mode = env.metadata.get("autoreset_mode", NEXT_STEP)
        self.mode: str = getattr(mode, "value", mode)
        if self.mode == NEXT_STEP:
            _check_single_resets(env)
        self._actions: Any = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset every environment, with its seed and the options if some were set."""
        if any(options != self._options[0] for options in self._options):
            raise ValueError(f"options differ between environments ({self._options}): a gymnasium vector takes one.")
        obs, infos = self.env.reset(seed=_one_seed(self._seeds), options=dict(self._options[0]) or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [_info_of(infos, index) for index in range(self.num_envs)]
        return _copy(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment once; start the next episode where one ended."""
        obs, rewards, terminated, truncated, raw = self.env.step(self._actions)
        obs, dones = _copy(obs), np.logical_or(terminated, truncated)
        infos = [_info_of(raw, index) for index in range(self.num_envs)]
        if dones.any():
            obs = self._end_episodes(obs, dones, infos)
        for index, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
        return obs, np.array(rewards, np.float32), dones, infos

    def _end_episodes(self, obs: Any, dones: np.ndarray, infos: list[dict[str, Any]]) -> VecEnvObs:
        """Put final observations into the infos; return the observations with those of the next episodes."""
        ended = [int(index) for index in np.flatnonzero(dones)]
        if self.mode == SAME_STEP:
            for index in ended:
                if "final_obs" not in infos[index]:
                    kind = type(self.env.unwrapped).__name__
                    raise ValueError(f"{kind} resets in the same step but has no infos['final_obs']: it must return it")
                self.reset_infos[index] = infos[index]
                final = self.reset_infos[index].pop("final_obs")
                infos[index] = self.reset_infos[index].pop("final_info", {})
                infos[index]["terminal_observation"] = _copy(final)
            return obs
        first, raw = self.env.reset(options={"reset_mask": dones.copy()})
        for index in ended:
            infos[index]["terminal_observation"] = _row(obs, index)
            self.reset_infos[index] = _info_of(raw, index)
        if not isinstance(obs, dict):
            return _where(dones, first, obs)
        return {key: _where(dones, first[key], value) for key, value in obs.items()}

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> list[np.ndarray | None]:
        """Return what every environment renders."""
        frames: Any = self.env.render() if self.render_mode == "rgb_array" else None
        return [None] * self.num_envs if frames is None else list(frames)

    def has_attr(self, attr_name: str) -> bool:
        """Return whether every environment has the attribute (asking a worker for a missing one would end it)."""
        base: Any = self.env.unwrapped
        if hasattr(base, "call"):
            return all(base.call("has_wrapper_attr", attr_name))
        return hasattr(base, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of some environments; a vector without single environments has it itself.

        :raises AttributeError: if it is missing
        """
        base: Any = self.env.unwrapped
        if not self.has_attr(attr_name):
            raise AttributeError(f"the environments in {type(base).__name__} have no attribute {attr_name!r}")
        values = base.get_attr(attr_name) if hasattr(base, "call") else [getattr(base, attr_name)] * self.num_envs
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of some environments."""
        base: Any = self.env.unwrapped
        chosen = set(self._get_indices(indices))
        if len(chosen) == self.num_envs:
            values = [value] * self.num_envs
        else:
            values = [value if i in chosen else old for i, old in enumerate(self.get_attr(attr_name))]
        base.set_attr(attr_name, values)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of every environment; gymnasium cannot call it of some.

        :raises ValueError: for a choice of environments
        """
        if len(set(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices={indices!r}: a gymnasium vector calls a method of all environments, write None")
        base: Any = self.env.unwrapped
        return list(base.call(method_name, *method_args, **method_kwargs))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether some environments are wrapped with a class; False for those in other processes."""
        envs = getattr(self.env.unwrapped, "envs", [None] * self.num_envs)
        return [_is_wrapped(envs[index], wrapper_class) for index in self._get_indices(indices)]


def _check_single_resets(env: gym.vector.VectorEnv) -> None:
    """Refuse what cannot start an episode without a step of the others."""
    base: Any = env.unwrapped
    why = ""
    if not isinstance(base, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
        name = repr(base.spec.id) if getattr(base, "spec", None) is not None else "..."
        why = (
            f"{type(base).__name__} cannot reset single environments: make it with "
            f"gymnasium.make_vec({name}, num_envs={env.num_envs}, vectorization_mode='sync')"
        )
    elif _is_wrapped(env, gym.wrappers.vector.NormalizeObservation):
        why = (
            "gymnasium.wrappers.vector.NormalizeObservation refuses to reset single environments: use "
            "gymnasium.wrappers.NormalizeObservation in each of them, or SB3's VecNormalize"
        )
    elif not getattr(base, "shared_memory", True):  # its workers forget that they were reset
        why = "AsyncVectorEnv without shared memory: add autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
    if why:
        raise ValueError(f"the vector environment resets at the next step (AutoresetMode.NEXT_STEP), and {why}")


def _one_seed(seeds: list[int | None]) -> Any:
    """Return consecutive seeds as their first one, which every vector environment takes; others as they are."""
    first = seeds[0]
    if first is not None and seeds == list(range(first, first + len(seeds))):
        return first
    return None if not any(seed is not None for seed in seeds) else seeds


def _info_of(infos: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the info of one environment; gymnasium keeps an array for each name, beside a mask called ``_<name>``."""
    own: dict[str, Any] = {}
    for name, values in infos.items():
        if name.startswith("_") and name[1:] in infos:
            continue
        mask = infos.get(f"_{name}")
        if mask is None or mask[index]:
            own[name] = _info_of(values, index) if isinstance(values, dict) else values[index]
    return own


def _copy(obs: Any) -> Any:
    """Copy an observation: a vector environment may write the next one into the same arrays."""
    return {key: np.array(value) for key, value in obs.items()} if isinstance(obs, dict) else np.array(obs)


def _row(obs: Any, index: int) -> Any:
    """Return the observation of one environment."""
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def _where(dones: np.ndarray, first: np.ndarray, obs: np.ndarray) -> np.ndarray:
    """Return first observations where an episode ended and the others elsewhere, in a new array."""
    return np.where(dones.reshape(-1, *[1] * (obs.ndim - 1)), first, obs)


def _is_wrapped(env: Any, wrapper_class: type) -> bool:
    """Return whether a wrapper of the class is among those of an environment or a vector."""
    while isinstance(env, gym.Wrapper | gym.vector.VectorWrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
