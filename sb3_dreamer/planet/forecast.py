"""PlaNet's time forecast: updates come once an episode, and planning is most of a step."""

import time
from typing import TYPE_CHECKING, cast

import torch as th

from sb3_dreamer.common.report import Forecast, duration

if TYPE_CHECKING:
    from sb3_dreamer.planet.planet import PlaNet


class PlaNetForecast(Forecast):
    """As :class:`Forecast`, with a planning call that is measured once."""

    def _words(self) -> str:
        model = cast("PlaNet", self.model)
        if not model.verbose or model.gradient_steps is not None or model.train_ratio:
            return super()._words()
        update = self.update_seconds / (self.updates - 1)
        plan = self._plan_seconds(model)
        steps, episodes = max(1, model.num_timesteps), max(1, model._episode_num)
        per_step = plan / model.n_envs + update * model.collect_interval * episodes / steps
        left = model._total_timesteps - model.num_timesteps
        return (
            f"One update takes {1000 * update:.0f} ms, one planning call for {model.n_envs} environment(s) "
            f"{1000 * plan:.0f} ms: the {left:,} steps that are left take about {duration(left * per_step)}."
        )

    @staticmethod
    def _plan_seconds(model: "PlaNet") -> float:
        """Seconds of one planning call, after one that warms up; leaves the random streams as they were."""
        assert model._carry is not None and model._last_obs is not None
        first = th.ones(model.n_envs, dtype=th.bool, device=model.device)
        arguments = (model._tensors(model._last_obs), model.policy.initial_state(model.n_envs), first)
        seconds = 0.0
        for _ in range(2):
            start = time.perf_counter()
            model.policy.step(*arguments, deterministic=True).prev_action.cpu()
            seconds = time.perf_counter() - start
        return seconds
