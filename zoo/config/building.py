"""Models and environments of a plan, with every error in one line."""

import re
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.config.algorithms import algorithm_class
from sb3_dreamer.zoo.config.plan import Plan
from sb3_dreamer.zoo.config.values import to_constructor
from sb3_dreamer.zoo.programs.errors import UsageError, near, one_line
from sb3_dreamer.zoo.runs import run_folder

EVAL_SEED = 100_000  # evaluation environments are seeded this far from the training ones


def make_training_env(plan: Plan, vec_env: str | None) -> Any:
    """The environments to learn from."""
    return environments.make_envs(
        plan.env,
        plan.n_envs,
        plan.seed,
        preset=plan.preset,
        env_kwargs=plan.env_kwargs,
        env_wrapper=plan.env_wrapper,
        vec_env=vec_env,
    )


def make_evaluation_env(plan: Plan, vec_env: str | None, algorithm: Any) -> Any:
    """The environments to evaluate on, with the wrappers that SB3 gives the training ones."""
    env = environments.make_envs(
        plan.env,
        plan.n_eval_envs,
        (plan.seed + EVAL_SEED) % 2**31,
        preset=plan.preset,
        env_kwargs=plan.env_kwargs | plan.eval_env_kwargs,
        env_wrapper=plan.env_wrapper,
        vec_env=vec_env,
    )
    return algorithm._wrap_env(env, 0, False)


def check_policy(plan: Plan, env: Any) -> None:
    """Settle ``policy: auto``; refuse unknown names."""
    known = algorithm_class(plan.algo).policy_aliases
    plan.policy = environments.choose_policy(plan.policy, env.observation_space)
    if plan.policy not in known:
        raise UsageError(f"policy={plan.policy!r} is unknown{near(plan.policy, known)}: use auto, {', '.join(known)}")


def check_device(device: str) -> str:
    """The device, if it is there; SB3 would go on with the CPU without a word.

    :raises UsageError: if it is unknown or missing
    """
    import torch as th

    if device == "auto":
        return device
    try:
        kind = th.device(device).type
        th.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device!r} cannot be used: {one_line(error)[:100]}; use auto or cpu") from error
    return device if kind != "meta" else "cpu"


def make_model(plan: Plan, env: Any, device: str) -> Any:
    """A new model.

    :raises UsageError: for whatever the constructor refuses
    """
    check_policy(plan, env)
    cls = algorithm_class(plan.algo)
    try:
        return cls(plan.policy, env, seed=plan.seed, device=device, verbose=0, **to_constructor(plan.hyperparams, cls))
    except Exception as error:
        raise refusal(error) from error


def load_model(path: Path, algo: str, env: Any = None, device: str = "auto", **changes: Any) -> Any:
    """A model from a file.

    :param changes: attributes to change
    :raises UsageError: if the file is damaged, of another algorithm, or does not fit the environment
    """
    cls = algorithm_class(algo)
    try:
        return cls.load(path, env=env, device=device, **to_constructor_or_attribute(changes, cls))
    except Exception as error:
        raise refusal(error) from error


def to_constructor_or_attribute(values: dict[str, Any], cls: type) -> dict[str, Any]:
    """Values for ``load``: hyperparameters as the constructor takes them, the others (seed, verbose) as they are."""
    own = {name: value for name, value in values.items() if name in ("seed", "verbose")}
    return to_constructor({name: value for name, value in values.items() if name not in own}, cls) | own


def refusal(error: Exception) -> UsageError:
    """An error of the library or of SB3 as one line; what is not a refusal is raised again."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, ValueError | AssertionError | NotImplementedError | MemoryError | OSError | RuntimeError):
        return UsageError(one_line(error) or type(error).__name__)
    raise error


def replay_of(path: Path) -> Path | None:
    """The replay file that was written together with a model file; None for a best model, which has none."""
    if path.stem == "best_model":
        return None
    checkpoint = re.fullmatch(r"(.+)_(\d+_steps)", path.stem)
    name = f"{checkpoint[1]}_replay_buffer_{checkpoint[2]}.safetensors" if checkpoint else run_folder.REPLAY
    return path.with_name(name)


def load_replay(model: Any, path: Path) -> str:
    """Load the replay buffer that was saved with a model, if it was; else the warm-up starts again.

    :param path: the model's file
    :return: a line that says what was found
    :raises UsageError: if it is damaged or does not fit
    """
    replay = replay_of(path)
    if replay is not None and replay.is_file():
        try:
            model.load_replay_buffer(replay)
        except Exception as error:
            raise refusal(error) from error
        return f"{model.replay_buffer.size():,} steps from {replay}"
    warmup = model.learning_starts
    model.learning_starts = model.num_timesteps + warmup
    return f"none beside {path.name}: starts empty, with {warmup:,} random steps"
