"""Make the environments and the model of a plan, with every error in one line."""

from pathlib import Path
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.config.plan import Plan
from sb3_dreamer.zoo.config.values import to_constructor

EVAL_LIMIT = 10_000  #: agent steps of an evaluation's episode, if the task has no time limit
EVAL_SEED = 100_000  # evaluation environments are seeded this far from the training ones
SMALL_UPDATE = 100_000_000  # replayed steps of a batch times parameters, below which more threads gain next to nothing


def make_training_env(plan: Plan, vec_env: str | None) -> Any:
    """Make the environments to learn from."""
    return environments.make_envs(
        plan.env,
        plan.n_envs,
        plan.seed,
        preset=plan.preset,
        env_kwargs=plan.env_kwargs,
        env_wrapper=plan.env_wrapper,
        vec_env=vec_env,
    )


def has_time_limit(env: Any) -> bool:
    """Whether episodes of a training environment end for certain; suites have limits of their own."""
    (spec,) = env.get_attr("spec", [0])
    return spec is None or spec.max_episode_steps is not None or "ale_py" in str(spec.entry_point)


def make_evaluation_env(plan: Plan, vec_env: str | None, algorithm: Any, render_mode: str | None = None) -> Any:
    """Make the environments to evaluate on, with the wrappers that SB3 gives the training ones.

    Episodes of a task without a time limit end after ``EVAL_LIMIT`` steps: a policy may have found how not to end them.
    """
    wrappers = [plan.env_wrapper] if isinstance(plan.env_wrapper, str | dict) else list(plan.env_wrapper or [])
    if not has_time_limit(algorithm.get_env()):
        wrappers.append({"gymnasium.wrappers.TimeLimit": {"max_episode_steps": EVAL_LIMIT}})
    env = environments.make_envs(
        plan.env,
        plan.n_eval_envs,
        (plan.seed + EVAL_SEED) % 2**31,
        preset=plan.preset,
        env_kwargs=plan.env_kwargs | plan.eval_env_kwargs,
        env_wrapper=wrappers,
        vec_env=vec_env,
        render_mode=render_mode,
    )
    return algorithm._wrap_env(env, 0, False)


def check_policy(plan: Plan, env: Any) -> None:
    """Choose the policy for ``policy: auto``; refuse unknown names."""
    known = algorithm_class(plan.algo).policy_aliases
    plan.policy = environments.choose_policy(plan.policy, env.observation_space)
    if plan.policy not in known:
        raise UsageError(f"policy={plan.policy!r} is unknown{near(plan.policy, known)}: use auto, {', '.join(known)}")


def check_device(device: str) -> str:
    """Return the device if it can be used; SB3 would fall back to the CPU silently.

    :raises UsageError: if it is unknown or missing
    """
    import torch as th

    if device == "auto":
        return device
    try:
        kind = th.device(device).type
    except RuntimeError:
        raise UsageError(f"--device {device!r} cannot be used: use auto, cpu, cuda or cuda:1") from None
    try:
        th.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device!r} cannot be used: {one_line(error)[:100]}; use auto or cpu") from error
    return device if kind != "meta" else "cpu"


def set_threads(count: int) -> None:
    """Limit PyTorch to this many threads; -1 leaves it alone."""
    if count > 0:
        import torch as th

        th.set_num_threads(count)


def choose_threads(model: Any) -> None:
    """Use one thread if an update on the CPU is small.

    Two threads save about a tenth there (size ``100k``) on an idle machine. Beside another busy program each waits for
    the other at every operation, and an update takes up to ten times as long.
    """
    from sb3_dreamer.common.report import parameter_count

    work = model.batch_size * model.batch_length * parameter_count(model.policy)
    if model.device.type == "cpu" and work < SMALL_UPDATE:
        set_threads(1)


def make_model(plan: Plan, env: Any, device: str) -> Any:
    """Make a new model.

    :raises UsageError: for whatever the constructor refuses
    """
    check_policy(plan, env)
    cls = algorithm_class(plan.algo)
    try:
        return cls(plan.policy, env, seed=plan.seed, device=device, verbose=0, **to_constructor(plan.hyperparams, cls))
    except Exception as error:
        raise refusal(error) from error


def load_model(path: Path, algo: str, env: Any = None, device: str = "auto", **changes: Any) -> Any:
    """Load a model from a file.

    :param changes: attributes to change
    :raises UsageError: if the file is damaged, of another algorithm, or does not fit the environment
    """
    cls = algorithm_class(algo)
    try:
        return cls.load(path, env=env, device=device, **to_constructor_or_attribute(changes, cls))
    except Exception as error:
        raise refusal(error) from error


def to_constructor_or_attribute(values: dict[str, Any], cls: type) -> dict[str, Any]:
    """Prepare values for ``load``: hyperparameters as the constructor takes them, seed and verbose as they are."""
    own = {name: value for name, value in values.items() if name in ("seed", "verbose")}
    return to_constructor({name: value for name, value in values.items() if name not in own}, cls) | own


def refusal(error: Exception) -> UsageError:
    """Turn an error of the library or of SB3 into one line; raise again what is not a refusal."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, ValueError | AssertionError | NotImplementedError | MemoryError | OSError | RuntimeError):
        return UsageError(one_line(error) or type(error).__name__)
    raise error
