"""The world model on its own, with numpy arrays in and out."""

from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose

from sb3_dreamer.common.arguments import check_range
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.spaces import SINGLE_KEY, as_dict, space_dict
from sb3_dreamer.core.types import LatentState

Obs = np.ndarray | dict[str, np.ndarray]


class Latents(NamedTuple):
    """Latent states as arrays.

    :param deter: ``(..., D)``
    :param stoch: ``(..., S, K)`` (categorical) or ``(..., S)`` (Gaussian)
    """

    deter: np.ndarray
    stoch: np.ndarray

    def at(self, t: int) -> "Latents":
        """The states of one time step: ``(B, T, ...)`` to ``(B, ...)``."""
        return Latents(self.deter[:, t], self.stoch[:, t])


class WorldModelView:
    """``model.world_model``: filter, dream, and read off observations, rewards and continue flags.

    Observations and actions are those of the environment; images may have their channels first or last, as in
    ``predict``, and come out channel-first.
    Nothing here changes the training or its random numbers.

    :param policy: whose world model it is
    """

    def __init__(self, policy: WorldModelPolicy):
        self.policy = policy

    def observe(
        self,
        obs: Obs,
        actions: np.ndarray,
        is_first: np.ndarray | None = None,
        state: Latents | None = None,
    ) -> Latents:
        """Filter sequences.

        :param obs: ``(B, T, *shape)``, or a dict of these
        :param actions: ``(B, T, *shape)``; ``actions[:, t]`` led to ``obs[:, t]``; ignored at ``is_first``
        :param is_first: ``(B, T)`` bool; by default the first row only, or none if there is a ``state``
        :param state: before the first row, ``(B, ...)``; None: the sequences begin episodes
        :return: posterior states ``(B, T, ...)``
        :raises ValueError: if a key is missing, a shape does not fit, or there is NaN or infinity
        """
        world_model = self.policy.world_model
        prev_action = self._actions(actions)
        batch, length = prev_action.shape[:2]
        first = np.zeros((batch, length), bool) if is_first is None else np.asarray(is_first, bool)
        _check_shape("is_first", first, (batch, length))
        start = None if state is None else self._start(state, batch)
        with th.no_grad(), self.policy.own_random_state():
            embed = world_model.encode(self._obs(obs, (batch, length)))
            observed = world_model.rssm.observe(embed, prev_action, self._tensor(first), start)
        return self._latents(observed.state)

    def imagine(
        self, state: Latents, actions: np.ndarray | None = None, horizon: int = 15
    ) -> tuple[Latents, np.ndarray]:
        """Dream from a state.

        :param state: ``(B, ...)``
        :param actions: ``(B, H, *shape)`` to take, ``actions[:, 0]`` first; None: those of the model's own behavior
        :param horizon: H, if there are no actions
        :return: states after each action ``(B, H, ...)``, and the actions
        :raises ValueError: if a shape does not fit, or there is no step to dream
        """
        policy, taken = self.policy, None if actions is None else self._actions(actions)
        length = horizon if taken is None else taken.shape[1]
        check_range("horizon", length, 1, whole=True, hint="steps of a dream")
        start = self._start(state, None if taken is None else len(taken))
        steps = iter(() if taken is None else taken.unbind(1))

        def choose(now: LatentState) -> th.Tensor:
            action = policy.behavior.act(policy.world_model, now) if taken is None else next(steps)
            return policy.codec.executed(action)

        with th.no_grad(), policy.own_random_state():
            states, chosen = policy.world_model.imagine(choose, start, length)
        in_env = policy.codec.to_env(policy.codec.to_replay(chosen.flatten(0, 1)))
        return self._latents(states), in_env.reshape(*chosen.shape[:2], *in_env.shape[1:])

    def decode(self, state: Latents) -> Obs:
        """Mean observations, ``(..., *shape)``: images (uint8: 0 to 255), vectors, category numbers."""
        with th.no_grad():
            decoded = self.policy.world_model.decode(self._feat(state))
        arrays = {name: value.cpu().numpy() for name, value in decoded.items()}
        return self._as_in_space(arrays)

    def reward(self, state: Latents) -> np.ndarray:
        """Mean reward received on arrival in the states, ``(...)``."""
        with th.no_grad():
            return self.policy.world_model.reward(self._feat(state)).cpu().numpy()

    def cont(self, state: Latents) -> np.ndarray:
        """Whether the episode continues, ``(...)``: the probability; DreamerV3 2023: 0 or 1, 2024: times γ."""
        with th.no_grad():
            return self.policy.world_model.cont(self._feat(state)).cpu().numpy()

    # ---- numpy and torch -------------------------------------------------------------------------------------------

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        array = np.asarray(array)
        return th.as_tensor(array.astype(np.float32) if array.dtype == np.float64 else array, device=self.policy.device)

    def _obs(self, obs: Obs, lead: tuple[int, int]) -> dict[str, th.Tensor]:
        """Observations by key, ``(*lead, *shape)``, images channel-first."""
        arrays, known = as_dict(obs), space_dict(self.policy.observation_space)
        missing = [key.name for key in self.policy.keys if key.name not in arrays]
        if missing:
            raise ValueError(f"obs has no {missing[0]!r}: the model needs {[key.name for key in self.policy.keys]}")
        flat = {}
        for key in self.policy.keys:
            array = np.asarray(arrays[key.name])
            if is_image_space(known[key.name]) and array.ndim == 5:
                frames = maybe_transpose(array.reshape(-1, *array.shape[2:]), known[key.name])
                array = frames.reshape(*array.shape[:2], *frames.shape[1:])
            _check_shape(f"obs {key.name!r}", array, (*lead, *key.shape))
            flat[key.name] = array.reshape(-1, *key.shape)
        tensors, _ = self.policy.obs_to_tensor(self._as_in_space(flat))
        return {name: tensor.unflatten(0, lead) for name, tensor in as_dict(tensors).items()}

    def _as_in_space(self, arrays: dict[str, np.ndarray]) -> Obs:
        """Observations by key as the environment has them: a dict, or an array."""
        return arrays if isinstance(self.policy.observation_space, spaces.Dict) else arrays[SINGLE_KEY]

    def _actions(self, actions: np.ndarray) -> th.Tensor:
        actions = np.asarray(actions)
        codec, shape = self.policy.codec, self.policy.codec.space.shape or ()
        _check_shape("actions", actions, (*(actions.shape[:2] if actions.ndim > 1 else "BT"), *shape))
        flat = codec.from_env(actions.reshape(-1, *shape))
        return codec.to_model(self._tensor(flat)).unflatten(0, actions.shape[:2])

    def _state(self, state: Latents) -> LatentState:
        """States of any batch axes as tensors."""
        if not hasattr(state, "deter"):
            raise TypeError(
                f"the state is a {type(state).__name__}: pass Latents, as observe() returns them; of a state that "
                "predict() returned, Latents(*state[:2])"
            )
        rssm, deter, stoch = self.policy.world_model.rssm, np.asarray(state.deter), np.asarray(state.stoch)
        own = (rssm.feat_size - rssm.latent.flat_size,), tuple(rssm.latent.shape)
        lead = deter.shape[:-1]
        if (deter.shape, stoch.shape) != ((*lead, *own[0]), (*lead, *own[1])):
            raise ValueError(
                f"the state has deter {deter.shape} and stoch {stoch.shape}, and this model's end in {own[0]} and "
                f"{own[1]}: pass what observe() or imagine() of the same model returned"
            )
        return LatentState(self._tensor(deter), self._tensor(stoch))

    def _start(self, state: Latents, batch: int | None) -> LatentState:
        """One state for each of ``batch`` sequences; None: for any number."""
        start = self._state(state)
        axes = tuple(start.deter.shape[:-1])
        if len(axes) != 1 or batch not in (None, *axes):
            wanted = f"({'B' if batch is None else batch},)"
            raise ValueError(f"the state has batch axes {axes}: pass one of {wanted}, such as states.at(-1)")
        return start

    def _feat(self, state: Latents) -> th.Tensor:
        return self._state(state).feat

    @staticmethod
    def _latents(state: LatentState) -> Latents:
        return Latents(state.deter.cpu().numpy(), state.stoch.cpu().numpy())


def _check_shape(name: str, array: np.ndarray, expected: tuple[int | str, ...]) -> None:
    """Refuse an array of another shape; B and T of the expected one stand for any number."""
    if array.shape != expected:
        shapes = [f"({', '.join(map(str, shape))})" for shape in (array.shape, expected)]
        raise ValueError(f"{name} of shape {shapes[0]}: pass {shapes[1]}, B sequences of T steps")
