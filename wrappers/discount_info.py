"""Write the continuation discount of a step into its info."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class DiscountInfo(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Write ``info["discount"]``: 0.0 where the task ended, 1.0 where it continues or was only cut by a time limit.

    A discount that the environment reports itself is kept: under ``"discount"`` (Crafter, ``LifeLoss``) or under
    ``"timestep.discount"`` (dm_control through shimmy). With ``timeout_terminates=True`` a truncated episode becomes
    terminated, which is what the released code of DreamerV2 and DreamerV3 does for Atari and DMLab.

    :param env: environment to wrap
    :param timeout_terminates: turn ``truncated`` into ``terminated`` (default False)
    """

    def __init__(self, env: gym.Env, timeout_terminates: bool = False):
        gym.utils.RecordConstructorArgs.__init__(self, timeout_terminates=timeout_terminates)
        gym.Wrapper.__init__(self, env)
        self.timeout_terminates = timeout_terminates

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and complete the info."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.timeout_terminates and truncated:
            terminated, truncated = True, False
        own = info.get("discount", info.get("timestep.discount"))
        discount = 0.0 if terminated else (1.0 if own is None else float(own))
        return obs, reward, terminated, truncated, {**info, "discount": discount}
