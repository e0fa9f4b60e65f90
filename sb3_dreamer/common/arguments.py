"""Check constructor arguments: names that other algorithms have, numbers out of range, wrong types."""

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from sb3_dreamer.hints import near

#: arguments of other SB3 algorithms, and what takes their place
ELSEWHERE = {
    "n_steps": "experience goes to replay at every step: see train_freq, train_ratio and batch_length",
    "n_epochs": "replayed data is used train_ratio times: see train_ratio",
    "clip_range": "updates are not clipped to a trust region: leave it out",
    "clip_range_vf": "updates are not clipped to a trust region: leave it out",
    "normalize_advantage": "advantages are scaled by return_norm (DreamerV3): leave it out",
    "vf_coef": "the critic has a learning rate of its own: see critic_learning_rate",
    "target_kl": "updates are not clipped to a trust region: leave it out",
    "rms_prop_eps": "the optimizers are those of the paper: leave it out",
    "use_rms_prop": "the optimizers are those of the paper: leave it out",
    "rollout_buffer_class": "experience goes to replay: see replay_buffer_class",
    "rollout_buffer_kwargs": "experience goes to replay: see replay_buffer_kwargs",
    "target_entropy": "the weight of the entropy is fixed: see ent_coef",
    "target_update_interval": "the slow critic follows at every update: see tau",
    "target_policy_noise": "the actor learns from dreams: leave it out",
    "target_noise_clip": "the actor learns from dreams: leave it out",
    "policy_delay": "actor and critic learn at every update: leave it out",
    "exploration_fraction": "the actor samples its actions: see ent_coef",
    "exploration_initial_eps": "the actor samples its actions: see ent_coef",
    "exploration_final_eps": "the actor samples its actions: see ent_coef",
    "n_quantiles": "the critic is the paper's: leave it out",
    "top_quantiles_to_drop_per_net": "the critic is the paper's: leave it out",
    "sde_sample_freq": "generalized state-dependent exploration is not supported: leave it out",
    "use_sde_at_warmup": "generalized state-dependent exploration is not supported: leave it out",
    "monitor_wrapper": "environments get a Monitor: leave it out",
    "lr": "write learning_rate",
    "model_lr": "write learning_rate",
    "actor_lr": "write actor_learning_rate",
    "critic_lr": "write critic_learning_rate",
    "seq_len": "write batch_length",
    "sequence_length": "write batch_length",
    "imag_horizon": "write horizon",
    "imagination_horizon": "write horizon",
    "replay_size": "write buffer_size",
    "discount": "write gamma",
    "lambda_": "write gae_lambda",
}
#: arguments that are fields of the spec
OF_THE_SPEC = (
    *("regression", "symlog_inputs", "action_masks", "hard_continue", "latent", "layer_norm", "latent_estimator"),
    *("actor_estimator", "net_arch", "deter", "stoch", "classes", "units", "layers", "unimix", "bins", "cnn_depth"),
)


def explained(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate a constructor, so that an unknown argument is told with what takes its place.

    ``use_sde=False``, a default of many SB3 algorithms, is accepted.
    """
    known = inspect.signature(init).parameters

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        sde = kwargs.pop("use_sde", False)
        if sde:
            raise ValueError("use_sde=True is not supported: the actor explores by sampling; leave it out")
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no argument {name!r}{_instead(name, known)}")
        init(self, *args, **kwargs)

    return checked


def _instead(name: str, known: Any) -> str:
    if name in OF_THE_SPEC:
        return f": write policy_kwargs={{{name!r}: ...}}"
    if name in ELSEWHERE:
        return f": {ELSEWHERE[name]}"
    return near(name, known)


def all_arguments(kind: type) -> list[str]:
    """Names that the constructor of a class takes, those that it passes on to its base class included."""
    names: list[str] = []
    for cls in kind.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
            names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def check_range(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    whole: bool = False,
    schedule: bool = False,
    hint: str = "",
) -> None:
    """Refuse a number out of range.

    :param name: of the argument
    :param low: smallest value
    :param high: largest value; infinity itself is never allowed
    :param above: ``low`` itself is not allowed
    :param whole: only integers are allowed
    :param schedule: a function is allowed, which is not looked at
    :param hint: what the number means, for the message
    :raises ValueError: quoting the value and the range
    """
    if schedule and callable(value):
        return
    kind = isinstance(value, Real) and not isinstance(value, bool)
    fits = kind and (low < value if above else low <= value) and value <= high and math.isfinite(value)
    if fits and (not whole or (float(value).is_integer() and not isinstance(value, float))):
        return
    what = "an integer" if whole else "a number"
    span = f"{'above' if above else 'from'} {low:g}" + (
        f" to {high:g}" if math.isfinite(high) else "" if above else " up"
    )
    raise ValueError(f"{name}={value!r} must be {what} {span}{f' ({hint})' if hint else ''}")


def check_flags(owner: Any, *names: str, none: bool = False) -> None:
    """Refuse attributes that are neither True nor False.

    :param owner: has the attributes
    :param none: None is allowed, too
    :raises ValueError: quoting the value
    """
    for name in names:
        value = getattr(owner, name)
        if not (isinstance(value, bool) or (none and value is None)):
            raise ValueError(f"{name}={value!r} must be True{', False or None' if none else ' or False'}")


def default_values(cls: type) -> dict[str, Any]:
    """Defaults of the arguments that a constructor takes, by name."""
    return {name: one.default for name, one in inspect.signature(cls).parameters.items()}


def warn_of_unused(owner: Any, defaults: Mapping[str, Any], *parts: tuple[bool, Iterable[str], str]) -> None:
    """Warn of arguments that were changed but have no effect, because the part that uses them is off.

    :param owner: has them as attributes
    :param defaults: of the arguments, by name
    :param parts: for each whether it is on, the arguments that act in it alone, and what to do about them
    """
    for on, names, advice in parts:
        changed = [f"{name}={getattr(owner, name)!r}" for name in names if getattr(owner, name) != defaults[name]]
        if changed and not on:
            warnings.warn(f"no effect: {', '.join(changed)}. {advice}", stacklevel=5)


def check_policy(policy: Any, kwargs: Any, known: Mapping[str, Any]) -> None:
    """Refuse an unknown policy name, and ``policy_kwargs`` that are not a dict with string keys.

    :param known: policies by name
    :raises ValueError: with the nearest known name, and all of them
    """
    if isinstance(policy, str) and policy not in known:
        raise ValueError(f"policy={policy!r} is unknown{near(policy, known)}: use {', '.join(known)}")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise ValueError(f"policy_kwargs={kwargs!r} must be a dict from argument names of the policy to values")


def check_env_type(env: Any) -> None:
    """Refuse anything that is not an environment.

    :raises TypeError: quoting the value
    """
    if not hasattr(env, "observation_space"):
        raise TypeError(
            f"env={env!r} is not an environment: pass a gymnasium environment, its id, a gymnasium vector environment "
            "or an SB3 VecEnv (for a function that makes one, stable_baselines3.common.env_util.make_vec_env)"
        )
