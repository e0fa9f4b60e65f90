"""An environment that only has spaces, for models that learn from recorded episodes."""

from typing import Any

import gymnasium as gym
from gymnasium import spaces


class OfflineEnv(gym.Env):
    """Spaces without an environment, for models that learn from recorded episodes.

    :param observation_space: of the recorded episodes
    :param action_space: of the recorded episodes
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Refuse: there is nothing to reset.

        :raises RuntimeError: always
        """
        raise RuntimeError("OfflineEnv only carries spaces: use learn_offline(), or set_env() with an environment")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Refuse: there is nothing to step.

        :raises RuntimeError: always
        """
        raise RuntimeError("OfflineEnv only carries spaces: use learn_offline(), or set_env() with an environment")
