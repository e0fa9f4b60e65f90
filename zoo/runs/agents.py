"""Find and load a trained agent with the environment that it was trained on."""

import itertools
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.suite_presets import suite_preset, warn_if_different
from sb3_dreamer.zoo.config import building, environments
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, check_algorithm
from sb3_dreamer.zoo.config.arguments import (
    KeyValues,
    OneLineParser,
    count_or_default,
    drawn_seed,
    folder,
    positive,
    whole,
)
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.hyperparams import find_entry
from sb3_dreamer.zoo.config.plan import DEFAULT_ENV
from sb3_dreamer.zoo.runs import run_folder, sharing
from sb3_dreamer.zoo.runs.run_folder import RunFolder

LOGS = "logs"
SHIPPED = Path(__file__).parents[1] / "agents"  #: run folders of trained agents, packed by ``studies.agents``


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

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with the package, where nothing is written."""
        return self.run.path.is_relative_to(SHIPPED)


def add_agent_arguments(parser: OneLineParser) -> None:
    """Add the flags of rl_zoo3's ``enjoy`` that choose the agent and how it acts."""
    group = parser.add_argument_group("which agent")
    group.add_argument(
        "--algo", metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)} (default: the first with a run of ENV)"
    )
    group.add_argument("--env", default=DEFAULT_ENV, metavar="ENV", help="as passed to train")
    group.add_argument(
        "-f",
        "--folder",
        type=folder,
        metavar="DIR",
        help=f"where the run folders are (default: {LOGS}, then the trained agents that come with sb3-dreamer)",
    )
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
    acting.add_argument(
        "--seed",
        type=drawn_seed,
        default=0,
        metavar="N",
        help="seed of environments and actions (default: 0; -1: drawn)",
    )
    acting.add_argument(
        "--env-kwargs",
        nargs="+",
        action=KeyValues,
        metavar="KEY:VALUE",
        help="settings of the environment that differ from training",
    )
    acting.add_argument(
        "--gym-packages",
        nargs="+",
        default=[],
        metavar="NAME",
        help="packages that register environments (default: those of its training)",
    )
    acting.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1")
    acting.add_argument(
        "--num-threads",
        type=count_or_default,
        default=-1,
        metavar="N",
        help="threads of PyTorch (default: PyTorch's choice)",
    )


def load_agent(args: Namespace, render_mode: str | None = None, run: RunFolder | None = None) -> Agent:
    """Load the agent that the flags name.

    :param args: flags of :func:`add_agent_arguments`
    :param render_mode: of the environment
    :param run: its run folder, if it was found already
    :raises UsageError: if there is no such run, file or environment, or the file does not fit
    """
    building.set_threads(args.num_threads)
    building.check_device(args.device)
    run = find_run(args) if run is None else run
    environments.import_packages(args.gym_packages or run_folder.read_args(run).get("gym_packages") or [])
    path = model_file(run, args)
    config = run_folder.read_config(run)
    env_name = str(config.get("env") or find_entry(args.algo, args.env).env)
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
        warn_if_different(config.get("suite_preset"), suite_preset(env))
        model = building.load_model(path, args.algo, device=args.device, seed=args.seed, verbose=0)
        check_spaces(model, env, path)
    except BaseException:
        env.close()
        raise
    by_default = environments.deterministic_by_default(env_name)
    return Agent(model, env, run, path, config, args.deterministic or (by_default and not args.stochastic))


def find_run(args: Namespace) -> RunFolder:
    """Find the run of ``--env`` by any name that ``train`` takes for it.

    Without one, and unless a folder or the number of a run was passed, it is the agent that comes with the package, and
    a line says so.

    :param args: flags of :func:`add_agent_arguments`; ``algo`` and ``folder`` become those of the run
    :raises UsageError: if there is none, with what there is
    """
    folders = [args.folder or LOGS, *([] if args.folder or args.exp_id else [SHIPPED])]
    algorithms = [check_algorithm(args.algo)] if args.algo else ALGORITHMS
    for root, algo in itertools.product(folders, algorithms):
        names = run_folder.names_for(root, algo, args.env)
        if names:
            run = run_folder.find(root, algo, names[0], args.exp_id)
            if root == SHIPPED:
                score = sharing.score_in_words(run)
                print(f"No run of your own in {LOGS}: this {algo} agent comes with sb3-dreamer ({score}).", flush=True)
            args.algo, args.folder = algo, str(root)
            return run
    has = [names_of(root) for root in folders]
    there = "; ".join(f"{algo} has {', '.join(names[:5])}" for algo, names in has[0].items())
    of_algo = f" of {args.algo}" if args.algo else ""
    known = {name for by_algo in has for names in by_algo.values() for name in names}
    hint = near(args.env, known - {args.env})
    where = f"there is no run of {args.env!r}{of_algo} in {folders[0]}{hint}"
    shipped = "" if len(has) == 1 else "; sb3-dreamer list --agents shows the trained agents that come with sb3-dreamer"
    raise UsageError(f"{where}: {there or 'train one, or pass -f FOLDER'}{shipped}")


def names_of(root: str | Path) -> dict[str, list[str]]:
    """List what each algorithm has runs of."""
    found = {algo: sorted({run.name for run in run_folder.all_runs(root, algo)}) for algo in ALGORITHMS}
    return {algo: names for algo, names in found.items() if names}


def model_file(run: RunFolder, args: Namespace) -> Path:
    """Find the model file of a run that the flags name.

    :raises UsageError: if the run has no such file, with those it has
    """
    if args.load_best and not run.scores.is_file():  # What was packed to share is one model.
        path = run.best_model
    elif args.load_checkpoint is not None or args.load_last_checkpoint:
        found = checkpoints(run)
        steps = max(found, default=0) if args.load_last_checkpoint else args.load_checkpoint
        if steps not in found:
            has = f"it has those after {', '.join(map(str, sorted(found)))} steps" if found else "it has none"
            raise UsageError(f"{run.path} has no checkpoint{f' after {steps} steps' if steps else ''}: {has}")
        path = found[steps]
    else:
        path = run.model
    if not path.is_file():
        models = sorted(file.name for file in run.path.glob("*.zip"))
        best = "; --load-best takes its best model" if run.best_model.name in models else ""
        last = "; --load-last-checkpoint takes its newest checkpoint" if checkpoints(run) else ""
        raise UsageError(f"{run.path} has no {path.name}: it has {', '.join(models) or 'no model yet'}{best}{last}")
    return path


def checkpoints(run: RunFolder) -> dict[int, Path]:
    """Find the models that a run saved on the way, by steps."""
    folders = (run.path / run_folder.CHECKPOINTS).glob("checkpoint_*_step_*")
    found = {int(path.name.rpartition("_")[2]): path / "model.zip" for path in folders}
    return found | {int(path.stem.split("_")[2]): path for path in run.path.glob("rl_model_*_steps.zip")}


def check_spaces(model: Any, env: Any, path: Path) -> None:
    """Refuse a model whose spaces are not those of the environment.

    :raises UsageError: naming both
    """
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(model, name), getattr(env, name)
        if ours not in (theirs, _channels_first(theirs)):
            raise UsageError(f"{path} was trained with {name} {ours}, the environment has {theirs}")


def _channels_first(space: Any) -> Any:
    """Return a space as SB3 changes it before training: images with their channels first, also those in a Dict."""
    from gymnasium import spaces
    from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
    from stable_baselines3.common.vec_env import VecTransposeImage

    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _channels_first(sub) for key, sub in space.items()})
    if not is_image_space(space) or is_image_space_channels_first(space):
        return space
    return VecTransposeImage.transpose_space(space)
