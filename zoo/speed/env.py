"""An environment that costs next to nothing, and replay filled with what it would have given."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

OBSERVATIONS = ("vectors", "images")
ACTIONS = ("box", "discrete")
VECTOR, IMAGE = (24,), (64, 64, 3)  # walker_walk's numbers; the image of all benchmark suites
EPISODE = 250  # steps, so that batches hold some rows where an episode begins
STOCK = 64  # different observations


class StockEnv(gym.Env):
    """Shows a fixed stock of observations and rewards in turn, whatever the action; costs next to nothing.

    :param observation_space: of the stock
    :param action_space: any
    :param observations: the stock, ``(n, ...)``
    :param rewards: ``(n,)``
    :param length: steps after which an episode is cut
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        observations: np.ndarray,
        rewards: np.ndarray,
        length: int = EPISODE,
    ):
        self.observation_space, self.action_space = observation_space, action_space
        self.observations, self.rewards, self.length = observations, rewards, length
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.t = 0
        return self.observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; every episode is cut at the same length."""
        self.t += 1
        now = self.t % len(self.observations)
        return self.observations[now], float(self.rewards[now]), False, self.t >= self.length, {}


class SyntheticEnv(StockEnv):
    """Noise from a fixed stock.

    :param obs: ``vectors`` (24 numbers) or ``images`` (64x64 RGB)
    :param action: ``box`` (6 numbers) or ``discrete`` (6 actions with vectors; 18, as in Atari, with images)
    :param seed: of the stock
    """

    def __init__(self, obs: str, action: str, seed: int = 0):
        rng = np.random.default_rng(seed)
        space: spaces.Space
        stock: np.ndarray
        if obs == "images":
            space, stock = spaces.Box(0, 255, IMAGE, np.uint8), rng.integers(0, 256, (STOCK, *IMAGE), np.uint8)
        else:
            space = spaces.Box(-np.inf, np.inf, VECTOR, np.float32)
            stock = rng.standard_normal((STOCK, *VECTOR)).astype(np.float32)
        discrete = spaces.Discrete(18 if obs == "images" else 6)
        actions = discrete if action == "discrete" else spaces.Box(-1.0, 1.0, (6,), np.float32)
        super().__init__(space, actions, stock, rng.standard_normal(STOCK))


def fill_replay(model: Any, rows: int, seed: int = 0) -> None:
    """Fill a model's replay with noise through the buffer's public way in, half of the episodes terminated.

    :param model: algorithm with an empty replay
    :param rows: at least so many rows are stored, in whole episodes of ``EPISODE`` steps
    :param seed: of the noise
    """
    rng = np.random.default_rng(seed)
    replay, space = model.replay_buffer, model.observation_space
    model.action_space.seed(seed)
    episodes = 0
    while replay.size() < rows:
        shape = (EPISODE + 1, *space.shape)
        image = space.dtype == np.uint8
        obs = rng.integers(0, 256, shape, np.uint8) if image else rng.standard_normal(shape).astype(np.float32)
        actions = np.stack([np.asarray(model.action_space.sample()) for _ in range(EPISODE)])
        episode = {"observations": obs, "actions": actions, "rewards": rng.standard_normal(EPISODE)}
        replay.add_episodes(episode | {"terminated": episodes % 2 == 0})
        episodes += 1
