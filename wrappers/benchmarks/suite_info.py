"""The outermost wrapper: how an environment was made."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from sb3_dreamer.wrappers.benchmarks.presets import SuitePreset


class SuiteInfo(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Carry the preset that an environment was made with.

    Read it through other wrappers with ``env.get_wrapper_attr("suite_preset")``, through an SB3 vector environment with
    ``vec_env.get_attr("suite_preset")[0]``; it is a dict of plain JSON values.

    :param env: environment to wrap
    :param preset: ``SuitePreset`` or its ``to_dict()``
    """

    def __init__(self, env: gym.Env, preset: SuitePreset | dict[str, Any]):
        data = preset.to_dict() if isinstance(preset, SuitePreset) else preset
        gym.utils.RecordConstructorArgs.__init__(self, preset=data)
        gym.Wrapper.__init__(self, env)
        self._preset = SuitePreset.from_dict(data)

    @property
    def suite_preset(self) -> dict[str, Any]:
        """Return suite, task, preset name, hash and settings as plain JSON values (a fresh copy)."""
        return self._preset.to_dict()
