"""What the constructor arguments of DreamerV3 do to the networks: the ablations of Figures D.1 to D.3."""

from dataclasses import replace
from typing import TYPE_CHECKING

from sb3_dreamer.common.spec import one_of
from sb3_dreamer.core.objectives import DynRepKL

if TYPE_CHECKING:
    from sb3_dreamer.dreamer_v3.dreamer_v3 import DreamerV3

CRITIC_TARGETS = ("fast", "slow")
RETURN_NORMS = ("percentile", "return_std", "advantage_std")


def apply_recipe(model: "DreamerV3") -> None:
    """Set the KL objective, the critic's target and the normalisation of returns.

    Without KL balancing both sides of the KL get the same weight, with the same sum as before.

    :raises ValueError: for values that are not known or out of range
    """
    one_of("critic_target", model.critic_target, CRITIC_TARGETS)
    one_of("return_norm", model.return_norm, RETURN_NORMS)
    for name in ("free_bits", "return_norm_min", "replay_value_scale", "agc", "warmup_updates", "max_skipped_updates"):
        if getattr(model, name) < 0:
            raise ValueError(f"{name}={getattr(model, name)!r} must be 0 or more")
    world_model, behavior = model.policy.world_model, model.behavior
    objective = world_model.objective
    assert isinstance(objective, DynRepKL)
    if not model.kl_balancing:
        mean = (objective.dyn + objective.rep) / 2
        objective = replace(objective, dyn=mean, rep=mean)
    world_model.objective = replace(objective, free=model.free_bits)
    world_model.scales |= world_model.objective.scales
    behavior.critic_target = model.critic_target  # type: ignore[assignment]
    if (model.return_norm, model.return_norm_min) != ("percentile", 1.0):
        # Without a minimum the range of the first returns, which are all equal, is 0.
        behavior.set_normalization(model.return_norm, model.return_norm_min or 1e-8)  # type: ignore[arg-type]
