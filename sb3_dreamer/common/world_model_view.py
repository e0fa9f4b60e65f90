"""The world model on its own, with numpy arrays in and out."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose

from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.spaces import SINGLE_KEY, as_dict, space_dict
from sb3_dreamer.core.types import LatentState

Obs = np.ndarray | dict[str, np.ndarray]


class Latents(NamedTuple):
    """Latent states as arrays.

    :param deter: ``(..., D)``
    :param stoch: ``(..., S, K)``
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
        :raises ValueError: if a key is missing or a shape does not fit
        """
        world_model = self.policy.world_model
        prev_action = self._actions(actions)
        batch, length = prev_action.shape[:2]
        first = np.zeros((batch, length), bool) if is_first is None else np.asarray(is_first, bool)
        with th.no_grad(), self.policy.own_random_state():
            embed = world_model.encode(self._obs(obs, (batch, length)))
            observed = world_model.rssm.observe(embed, prev_action, self._tensor(first), self._state(state))
        return self._latents(observed.state)

    def imagine(
        self, state: Latents, actions: np.ndarray | None = None, horizon: int = 15
    ) -> tuple[Latents, np.ndarray]:
        """Dream from a state.

        :param state: ``(B, ...)``
        :param actions: ``(B, H, *shape)`` to take, ``actions[:, 0]`` first; None: those of the model's own behavior
        :param horizon: H, if there are no actions
        :return: states after each action ``(B, H, ...)``, and the actions
        """
        policy, start = self.policy, self._state(state)
        assert start is not None
        taken = None if actions is None else self._actions(actions)
        steps = iter(() if taken is None else taken.unbind(1))

        def choose(now: LatentState) -> th.Tensor:
            action = policy.behavior.act(policy.world_model, now) if taken is None else next(steps)
            return policy.codec.executed(action)

        with th.no_grad(), policy.own_random_state():
            length = horizon if taken is None else taken.shape[1]
            states, chosen = policy.world_model.imagine(choose, start, length)
        in_env = policy.codec.to_env(policy.codec.to_replay(chosen.flatten(0, 1)))
        return self._latents(states), in_env.reshape(*chosen.shape[:2], *in_env.shape[1:])

    def decode(self, state: Latents) -> Obs:
        """Mean observations, ``(..., *shape)``: images (uint8: 0 to 255), vectors, category numbers."""
        with th.no_grad():
            decoded = self.policy.world_model.decode(self._feat(state))
        arrays = {name: value.cpu().numpy() for name, value in decoded.items()}
        return arrays[SINGLE_KEY] if arrays.keys() == {SINGLE_KEY} else arrays

    def reward(self, state: Latents) -> np.ndarray:
        """Mean reward received on arrival in the states, ``(...)``."""
        with th.no_grad():
            return self.policy.world_model.reward(self._feat(state)).cpu().numpy()

    def cont(self, state: Latents) -> np.ndarray:
        """Whether the episode continues, ``(...)``: 0 or 1 (2023), or the probability times γ (2024)."""
        with th.no_grad():
            return self.policy.world_model.cont(self._feat(state)).cpu().numpy()

    # ---- numpy and torch -------------------------------------------------------------------------------------------

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        array = np.asarray(array)
        return th.as_tensor(array.astype(np.float32) if array.dtype == np.float64 else array, device=self.policy.device)

    def _obs(self, obs: Obs, lead: tuple[int, int]) -> dict[str, th.Tensor]:
        """Observations by key, ``(*lead, *shape)``, images channel-first."""
        arrays, spaces = as_dict(obs), space_dict(self.policy.observation_space)
        missing = [key.name for key in self.policy.keys if key.name not in arrays]
        if missing:
            raise ValueError(f"obs has no {missing[0]!r}: the model needs {[key.name for key in self.policy.keys]}")
        tensors = {}
        for key in self.policy.keys:
            array = np.asarray(arrays[key.name])
            if is_image_space(spaces[key.name]) and array.ndim == 5:
                frames = maybe_transpose(array.reshape(-1, *array.shape[2:]), spaces[key.name])
                array = frames.reshape(*array.shape[:2], *frames.shape[1:])
            _check_shape(f"obs {key.name!r}", array, (*lead, *key.shape))
            tensors[key.name] = self._tensor(array)
        return tensors

    def _actions(self, actions: np.ndarray) -> th.Tensor:
        actions = np.asarray(actions)
        codec, shape = self.policy.codec, self.policy.codec.space.shape or ()
        _check_shape("actions", actions, (*(actions.shape[:2] if actions.ndim > 1 else "BT"), *shape))
        flat = codec.from_env(actions.reshape(-1, *shape))
        return codec.to_model(self._tensor(flat)).unflatten(0, actions.shape[:2])

    def _state(self, state: Latents | None) -> LatentState | None:
        return None if state is None else LatentState(self._tensor(state.deter), self._tensor(state.stoch))

    def _feat(self, state: Latents) -> th.Tensor:
        tensors = self._state(state)
        assert tensors is not None
        return tensors.feat

    @staticmethod
    def _latents(state: LatentState) -> Latents:
        return Latents(state.deter.cpu().numpy(), state.stoch.cpu().numpy())


def _check_shape(name: str, array: np.ndarray, expected: tuple[int | str, ...]) -> None:
    """Refuse an array of another shape; B and T of the expected one stand for any number."""
    if array.shape != expected:
        shapes = [f"({', '.join(map(str, shape))})" for shape in (array.shape, expected)]
        raise ValueError(f"{name} of shape {shapes[0]}: pass {shapes[1]}, B sequences of T steps")
