"""Find and load a trained agent with the environment that it was trained on."""

import re
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config import building
from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, check_algorithm
from sb3_dreamer.zoo.config.arguments import KeyValues, OneLineParser, positive, whole
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.hyperparams import find_entry
from sb3_dreamer.zoo.config.plan import DEFAULT_ENV
from sb3_dreamer.zoo.runs.run_folder import RunFolder


@dataclass
class Agent:
    """A trained model and its environment.

    :param model: the model
    :param env: vector environment
    :param run: its run folder
    :param path: its file
    :param config: the settings it was trained with
    :param deterministic: whether it takes the most likely action
    """

    model: Any
    env: Any
    run: RunFolder
    path: Path
    config: dict[str, Any]
    deterministic: bool


def add_agent_arguments(parser: OneLineParser) -> None:
    """Add the flags of rl_zoo3's ``enjoy`` that choose the agent and how it acts."""
    group = parser.add_argument_group("which agent")
    group.add_argument("--algo", default=DEFAULT_ALGORITHM, metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)}")
    group.add_argument("--env", default=DEFAULT_ENV, metavar="ENV", help="as passed to train")
    group.add_argument("-f", "--folder", default="logs", metavar="DIR", help="where the run folders are")
    group.add_argument(
        "--exp-id", type=whole, default=0, metavar="N", help="number of the run (default: 0, the latest)"
    )
    files = group.add_mutually_exclusive_group()
    files.add_argument("--load-best", action="store_true", help="load the model of the best evaluation")
    files.add_argument("--load-checkpoint", type=whole, metavar="STEPS", help="load the model saved after STEPS steps")
    files.add_argument("--load-last-checkpoint", action="store_true", help="load the latest model of --save-freq")
    acting = parser.add_argument_group("how it acts")
    choice = acting.add_mutually_exclusive_group()
    choice.add_argument(
        "--deterministic", action="store_true", help="take the most likely action (default except on Atari)"
    )
    choice.add_argument("--stochastic", action="store_true", help="sample actions (default on Atari)")
    acting.add_argument("--n-envs", type=positive, default=1, metavar="N", help="environments in parallel")
    acting.add_argument("--seed", type=whole, default=0, metavar="N", help="seed of environments and actions")
    acting.add_argument("--env-kwargs", nargs="+", action=KeyValues, metavar="KEY:VALUE", help="settings of the environment that differ from training")
    acting.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="NAME", help="packages that register environments"
    )
    acting.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1")
    acting.add_argument(
        "--num-threads", type=whole, default=-1, metavar="N", help="threads of PyTorch (default: PyTorch's choice)"
    )


def load_agent(args: Namespace, render_mode: str | None = None) -> Agent:
    """Load the agent that the flags name.

    :param args: flags of :func:`add_agent_arguments`
    :param render_mode: of the environment
    :raises UsageError: if there is no such run, file or environment, or the file does not fit
    """
    environments.import_packages(args.gym_packages)
    algo = check_algorithm(args.algo)
    building.check_device(args.device)
    run = find_run(args, algo)
    path = model_file(run, args)
    config = run_folder.read_config(run)
    env_name = str(config.get("env") or find_entry(algo, args.env).env)
    env = environments.make_envs(
        env_name,
        args.n_envs,
        args.seed,
        preset=config.get("preset"),
        env_kwargs={
            **(config.get("env_kwargs") or {}),
            **(config.get("eval_env_kwargs") or {}),
            **(args.env_kwargs or {}),
        },
        env_wrapper=config.get("env_wrapper"),
        vec_env="dummy" if render_mode == "human" else None,
        render_mode=render_mode,
    )
    try:
        warn_if_task_changed(config, env)
        model = building.load_model(path, algo, device=args.device, seed=args.seed, verbose=0)
        check_spaces(model, env, path)
    except BaseException:
        env.close()
        raise
    by_default = environments.deterministic_by_default(env_name)
    return Agent(model, env, run, path, config, args.deterministic or (by_default and not args.stochastic))


def find_run(args: Namespace, algo: str) -> RunFolder:
    """Find the run folder for ``--env``: the name itself, or the environment that the name stands for."""
    literal = re.sub(r"[^\w.+-]", "-", args.env)
    if run_folder.run_numbers(Path(args.folder) / algo, literal):
        return run_folder.find(args.folder, algo, literal, args.exp_id)
    entry = find_entry(algo, args.env)
    return run_folder.find(args.folder, algo, entry.run_name, args.exp_id)


def model_file(run: RunFolder, args: Namespace) -> Path:
    """Find the model file of a run that the flags name.

    :raises UsageError: if the run has no such file, with those it has
    """
    steps = checkpoints(run)
    if args.load_best:
        path = run.best_model
    elif args.load_checkpoint is not None:
        path = run.path / f"rl_model_{args.load_checkpoint}_steps.zip"
    elif args.load_last_checkpoint:
        if not steps:
            raise UsageError(
                f"{run.path} has no checkpoint: train with --save-freq, or leave out --load-last-checkpoint"
            )
        path = run.path / f"rl_model_{max(steps)}_steps.zip"
    else:
        path = run.model
    if not path.is_file():
        has = sorted(file.name for file in run.path.glob("*.zip"))
        raise UsageError(f"{run.path} has no {path.name}: it has {', '.join(has) or 'no model yet'}")
    return path


def checkpoints(run: RunFolder) -> list[int]:
    """List the steps of the model files of ``--save-freq``."""
    matches = (re.fullmatch(r"rl_model_(\d+)_steps\.zip", path.name) for path in run.path.glob("rl_model_*.zip"))
    return sorted(int(match[1]) for match in matches if match)


def warn_if_task_changed(config: dict[str, Any], env: Any) -> None:
    """Warn if the environment is set up differently from the one that the agent was trained on."""
    from sb3_dreamer.wrappers.benchmarks.presets import compare_presets

    stored, current = config.get("suite_preset"), environments.suite_preset(env)
    differences = compare_presets(stored, current) if stored and current else []
    if differences:
        print(f"Note: the environment differs from the one of training: {'; '.join(differences)}")


def check_spaces(model: Any, env: Any, path: Path) -> None:
    """Refuse a model whose spaces are not those of the environment.

    :raises UsageError: naming both
    """
    from stable_baselines3.common.vec_env import VecTransposeImage

    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(model, name), getattr(env, name)
        if (
            ours != theirs and VecTransposeImage.transpose_space(theirs) != ours
            if _is_image(theirs)
            else ours != theirs
        ):
            raise UsageError(f"{path} was trained with {name} {ours}, the environment has {theirs}")


def _is_image(space: Any) -> bool:
    from gymnasium import spaces
    from stable_baselines3.common.preprocessing import is_image_space

    return is_image_space(space) or isinstance(space, spaces.Dict)
