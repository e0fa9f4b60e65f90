"""Learning from recorded episodes alone, without an environment."""

from typing import TYPE_CHECKING, Any, TypeVar, cast

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common import utils
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_dreamer.common import report, together

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm

Self = TypeVar("Self", bound="OfflineMethods")


class OfflineEnv(gym.Env):
    """Spaces without an environment, for models that learn from recorded episodes.

    :param observation_space: of the recorded episodes
    :param action_space: of the recorded episodes
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """There is nothing to reset.

        :raises RuntimeError: always
        """
        raise RuntimeError("OfflineEnv only carries spaces: use learn_offline(), or set_env() with an environment")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """There is nothing to step.

        :raises RuntimeError: always
        """
        raise RuntimeError("OfflineEnv only carries spaces: use learn_offline(), or set_env() with an environment")


class OfflineMethods(OffPolicyAlgorithm):
    """``add_episodes`` and ``learn_offline`` of a :class:`WorldModelAlgorithm`."""

    def add_episodes(self, source: Any) -> int:
        """Add recorded episodes to replay.

        :param source: dicts, npz files, an SB3 ReplayBuffer or a Minari dataset; see
            :func:`sb3_dreamer.common.replay.episodes.read_episodes`
        :return: number of episodes
        :raises ValueError: if an episode does not fit the spaces
        """
        return cast("WorldModelAlgorithm", self).replay_buffer.add_episodes(source)

    def learn_offline(self: Self, updates: int, log_interval: int = 100, tb_log_name: str | None = None) -> Self:
        """Train on what replay holds, without an environment. ``num_timesteps`` stays.

        :param updates: number of updates
        :param log_interval: updates between two log lines, whose step is the number of updates
        :param tb_log_name: name of the TensorBoard run; the class's name by default
        :return: the model itself
        :raises ValueError: if replay holds no sequence of ``batch_length`` rows
        """
        model = cast("WorldModelAlgorithm", self)
        if not model.replay_buffer.ready(model.batch_length):
            raise ValueError(
                f"replay holds no stretch of batch_length={model.batch_length} rows: add_episodes() first, "
                "or lower batch_length"
            )
        together.join(model)
        if not self._custom_logger:
            name = tb_log_name or type(self).__name__
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, name, True)
        model._forecast = report.Forecast(model)
        for update in range(updates):
            self._current_progress_remaining = 1.0 - update / updates
            self.train(1, self.batch_size)
            if (update + 1) % log_interval == 0:
                for name, value in model._metrics.take().items():
                    self.logger.record(f"train/{name}", value)
                self.logger.dump(step=self._n_updates)
        return self
