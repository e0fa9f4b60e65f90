"""Plan a training run: combine the file's entry, the config of an earlier run and the flags."""

import inspect
import secrets
from argparse import Namespace
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.algorithms import DEFAULT_ALGORITHM, algorithm_class, check_algorithm
from sb3_dreamer.zoo.config.errors import UsageError, quote
from sb3_dreamer.zoo.config.hyperparams import Entry, find_entry
from sb3_dreamer.zoo.config.values import ZOO_KEYS, check_values

DEFAULT_ENV = "CartPole-v1"
LARGEST_EVAL_FREQ = 25_000  # rl_zoo3's default
EVAL_SHARE = 0.2  # of the agent steps, which evaluation takes at most unless its length is asked for
# Least and most steps between checkpoints; a tenth of the run between these. A checkpoint waits up to half as long for
# the end of an episode, so with the least, none of up to 1,000 steps is cut.
SAVE_FREQ = (2_000, 250_000)
FIXED = ("model_size", "policy_kwargs", "policy")  # what a trained model cannot change


@dataclass
class Plan:
    """All settings of a run, as ``config.yml`` holds them.

    :param algo: algorithm name
    :param env: name for ``make_env``
    :param run_name: the environment's part of the run folder's name
    :param source: file that the hyperparameters are from
    :param n_timesteps: agent steps in all
    :param seed: of everything
    :param hyperparams: constructor arguments
    :param eval_share: share of the agent steps that evaluation takes at most; None: no limit
    :param save_models: write model files at every checkpoint as well
    """

    algo: str
    env: str
    run_name: str
    source: str
    n_timesteps: int
    seed: int
    hyperparams: dict[str, Any]
    policy: str = "auto"
    n_envs: int = 1
    preset: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    eval_env_kwargs: dict[str, Any] = field(default_factory=dict)
    env_wrapper: Any = None
    eval_freq: int = LARGEST_EVAL_FREQ
    eval_episodes: int = 5
    final_eval_episodes: int | None = None
    n_eval_envs: int = 1
    stop_at_return: float | None = None
    eval_share: float | None = None
    save_freq: int = -1
    save_models: bool = True
    trained_agent: str = ""
    suite_preset: dict[str, Any] | None = None

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @property
    def final_episodes(self) -> int:
        """Number of episodes of the evaluation at the end."""
        return self.eval_episodes if self.final_eval_episodes is None else self.final_eval_episodes


def make_plan(args: Namespace, config: dict[str, Any]) -> tuple[Plan, list[str]]:
    """Plan a training run; also return notes to print: how a name was understood, which values were overridden.

    :param args: flags of ``train``
    :param config: settings of the run that ``-i`` or ``--config`` names, empty for none
    :raises UsageError: for whatever cannot be done
    """
    notes: list[str] = []
    algo = check_algorithm(args.algo or config.get("algo") or DEFAULT_ALGORITHM)
    if args.trained_agent and algo != config.get("algo", algo):
        raise UsageError(f"--algo {algo}: {args.trained_agent} is an agent of {config['algo']}; leave --algo out")
    same = is_env_of(config, args, algo)
    _refuse_unused_files(args, config, same)
    if config and same:
        plan, run_defaults = _from_config(config, algo, args.config or args.trained_agent), config
    else:
        entry = find_entry(algo, DEFAULT_ENV if args.env is None else args.env, args.conf_file)
        plan, run_defaults = _from_entry(entry), entry.run_defaults
        notes += [entry.note] if entry.note else []
    notes += _override(plan, args)
    _set_defaults(plan, args, run_defaults)
    if any((getattr(args, name) or -1) > 0 for name in ("eval_freq", "eval_episodes", "final_eval_episodes")):
        plan.eval_share = None
    if args.seed >= 0:
        plan.seed = args.seed
    elif plan.seed < 0 or args.trained_agent:  # The old seed would repeat the first episodes of the run.
        plan.seed = secrets.randbelow(2**31)
    plan.trained_agent = args.trained_agent
    return plan, notes


def is_env_of(config: dict[str, Any], args: Namespace, algo: str) -> bool:
    """Whether ``--env`` names the environment of a run, as it does if it is left out.

    :param config: settings of the run; empty for none
    """
    own = config.get("env")
    if args.env in (None, own, config.get("run_name")):
        return True
    return own is not None and find_entry(algo, args.env, args.conf_file).env == own


def _refuse_unused_files(args: Namespace, config: dict[str, Any], same: bool) -> None:
    """Refuse files of settings that would not be read.

    :param same: the environment is that of ``config``
    :raises UsageError: naming what to leave out
    """
    if args.config and args.trained_agent:
        raise UsageError("--config and -i: the agent has settings of its own; leave --config out")
    if args.config and not same:
        raise UsageError(f"--env {args.env}: --config {args.config} is of {config.get('env')}; leave one of them out")
    if args.conf_file and args.trained_agent and config and same:
        raise UsageError("--conf-file and -i: the agent has settings of its own; change single ones with -params")


def _from_config(config: dict[str, Any], algo: str, path: str) -> Plan:
    names = [item.name for item in fields(Plan)]
    for name, value in config.items():
        if name not in names:
            raise UsageError(f"the config of {path} has an unknown key {name}={quote(value)}{near(str(name), names)}")
    needed = [name for name in ("env", "run_name", "n_timesteps", "seed", "hyperparams") if name not in config]
    if needed:
        raise UsageError(f"the config of {path} has no {', '.join(needed)}: pass the config.yml of a run folder")
    values = check_values(config["hyperparams"], algorithm_class(algo), str(path))
    return Plan(**{"source": "", **config, "algo": algo, "hyperparams": values})


def _from_entry(entry: Entry) -> Plan:
    values = dict(entry.values)
    zoo = {name: values.pop(name) for name in list(values) if name in ZOO_KEYS}
    zoo.pop("env", None)
    zoo.setdefault("n_timesteps", 1_000_000)
    return Plan(
        algo=entry.algo,
        env=entry.env,
        run_name=entry.run_name,
        source=entry.source,
        seed=-1,
        hyperparams=values,
        **{**entry.run_defaults, **zoo},
    )


def _override(plan: Plan, args: Namespace) -> list[str]:
    """Apply the flags to the plan; return notes on the hyperparameters that changed."""
    cls = algorithm_class(plan.algo)
    given = check_values(args.hyperparams or {}, cls, "--hyperparams")
    if args.trained_agent:
        for name in FIXED:
            if name in given:
                raise UsageError(f"--hyperparams {name}: a trained model keeps its {name}; train a new one without -i")
    notes = []
    if not args.trained_agent:
        plan.hyperparams = _of_the_version(cls, plan.hyperparams, given)
    before = plan.hyperparams
    plan.hyperparams = before | {name: value for name, value in given.items() if name not in ZOO_KEYS}
    for name, value in given.items():
        if name in ("env", "n_timesteps"):
            raise UsageError(f"--hyperparams {name}: use --{name.replace('_', '-')}")
        if name in ZOO_KEYS:
            notes += _changed(name, getattr(plan, name), value)
            setattr(plan, name, value)
        else:
            notes += _changed(name, before.get(name, _default(cls, name, plan.hyperparams)), value)
    notes += _updates_note(cls, before, plan.hyperparams)
    for name in ("n_timesteps", "eval_freq", "eval_episodes", "final_eval_episodes", "n_eval_envs"):
        if getattr(args, name) is not None:
            setattr(plan, name, getattr(args, name))
    if args.eval_episodes is not None and args.final_eval_episodes is None:
        plan.final_eval_episodes = None  # as many as in the other evaluations, whatever the file says
    if args.save_freq is not None:
        plan.save_freq, plan.save_models = args.save_freq, True
    plan.env_kwargs = {**plan.env_kwargs, **(args.env_kwargs or {})}
    plan.eval_env_kwargs = {**plan.eval_env_kwargs, **(args.eval_env_kwargs or {})}
    return notes


def _of_the_version(cls: Any, values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a file has for one version of DreamerV3 where ``model_size`` chooses the other one."""
    from sb3_dreamer.dreamer_v3.dreamer_v3 import ONLY, DreamerV3
    from sb3_dreamer.dreamer_v3.spec import SIZES

    size = SIZES.get({**values, **given}.get("model_size", "auto"))
    if cls is not DreamerV3 or size is None:
        return values
    unused = {name for family, names in ONLY.items() if family != size.family for name in names}
    return {name: value for name, value in values.items() if name not in unused}


def _set_defaults(plan: Plan, args: Namespace, run_defaults: dict[str, Any]) -> None:
    """Set what neither the flags nor the file say: how often a new run is evaluated and saved."""
    tenth = plan.n_timesteps // 10
    if args.eval_freq is None and "eval_freq" not in run_defaults:
        plan.eval_freq = max(1, min(LARGEST_EVAL_FREQ, tenth))
    if not {"eval_freq", "eval_episodes", "final_eval_episodes"} & set(run_defaults):
        plan.eval_share = EVAL_SHARE
    if args.save_freq is None and "save_freq" not in run_defaults:
        plan.save_freq, plan.save_models = max(SAVE_FREQ[0], min(SAVE_FREQ[1], tenth)), False


def _default(cls: Any, name: str, values: dict[str, Any]) -> Any:
    """Default of an argument beside these values; ``auto`` where it follows from the observations, as the size does."""
    from sb3_dreamer.dreamer_v3.dreamer_v3 import DEFAULTS, DreamerV3, default_arguments
    from sb3_dreamer.dreamer_v3.spec import SIZES

    default = inspect.signature(cls).parameters[name].default
    if cls is not DreamerV3 or name not in DEFAULTS["2024"]:
        return default
    size = values.get("model_size", "auto")
    return default_arguments(size)[name] if size in SIZES else "auto"


def _changed(name: str, old: Any, new: Any) -> list[str]:
    return [f"{name} {_short(old)} -> {_short(new)}"] if old != new else []


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _updates_note(cls: Any, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say how many times more or fewer updates there are now."""
    names = ("train_ratio", "batch_size", "batch_length")
    try:
        old, new = ([float(v.get(name, _default(cls, name, v))) for name in names] for v in (before, after))
        factor = (new[0] / (new[1] * new[2])) / (old[0] / (old[1] * old[2]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return []
    if not factor or abs(factor - 1) < 1e-9:
        return []
    return [f"{factor:.3g} times more updates" if factor > 1 else f"{1 / factor:.3g} times fewer updates"]
