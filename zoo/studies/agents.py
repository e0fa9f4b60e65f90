"""Train the agents that come with the package, pack each into ``zoo/agents/`` and evaluate what was packed.

::

    python -m sb3_dreamer.zoo.studies.agents                              # all of them
    python -m sb3_dreamer.zoo.studies.agents --only dreamerv3/CartPole-v1

A run of the same command in ``--logs`` is used as it is; otherwise it is trained. The agent is the model of the run's
best evaluation. After it was packed, it is scored on 100 fresh episodes, whose seeds neither training nor its
evaluations have used.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sb3_dreamer.zoo.programs import evaluate, train
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs import run_folder, sharing
from sb3_dreamer.zoo.runs.agents import SHIPPED, load_agent
from sb3_dreamer.zoo.runs.run_folder import RunFolder

EPISODES, N_ENVS = 100, 20
EVALUATION_SEED = 1_000_000  # far from those of training (0) and of its evaluations (100,000)


class Recipe(NamedTuple):
    """How an agent is trained.

    :param algo: algorithm
    :param env: task
    :param seed: of training
    :param flags: further ones of ``train``
    """

    algo: str
    env: str
    seed: int = 0
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name for ``--only``."""
        return f"{self.algo}/{self.env}"

    @property
    def words(self) -> list[str]:
        """Flags of ``train``; more threads would round differently."""
        return [
            *("--num-threads", "1", "--algo", self.algo, "--env", self.env, "--seed", str(self.seed)),
            *self.flags,
        ]


RECIPES = [
    Recipe("dreamerv3", "CartPole-v1", seed=1),
    Recipe("dreamerv3", "Pendulum-v1"),
    Recipe("dreamerv3", "Acrobot-v1"),
    Recipe("dreamerv3", "MountainCar-v0"),
    Recipe("dreamerv3", "LunarLander-v3", flags=("--eval-freq", "1000")),
    Recipe("dreamerv3", "PixelCatch"),
    Recipe("dreamerv2", "CartPole-v1"),
    Recipe("planet", "Pendulum-v1", flags=("-n", "2000")),
]


def find_run(recipe: Recipe, logs: Path) -> RunFolder | None:
    """Find a finished run of a recipe."""
    for run in run_folder.all_runs(logs, recipe.algo):
        command = run.command.read_text(encoding="utf-8").strip() if run.command.exists() else ""
        same = command.endswith(shlex.join(recipe.words)) and run.name == recipe.env
        if same and run.model.exists() and run.best_model.exists():
            return run
    return None


def make(recipe: Recipe, logs: Path, out: Path) -> None:
    """Train unless there is a run, pack, evaluate."""
    run = find_run(recipe, logs)
    if run is None:
        train.main(["-f", str(logs), *recipe.words])
        run = find_run(recipe, logs)
    if run is None:
        raise RuntimeError(f"training of {recipe.name} was stopped: start again")
    shutil.rmtree(out / recipe.algo / f"{run.name}_1", ignore_errors=True)
    target = RunFolder(out / recipe.algo / f"{run.name}_1", run.name)
    where = ["--algo", recipe.algo, "--env", recipe.env, "--seed", str(EVALUATION_SEED), "--num-threads", "1"]
    number = run.path.name.removeprefix(f"{run.name}_")
    trained = load_agent(parse([*where, "-f", str(logs), "--exp-id", number, "--load-best"]))
    trained.env.close()
    sharing.pack(trained.model, run, target)
    args = parse([*where, "-f", str(out), "-n", str(EPISODES), "--n-envs", str(N_ENVS)])
    sharing.write_scores(target, evaluate.evaluate_run(args))
    print(f"{target.path}: {sharing.score_in_words(target)}", flush=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read flags of ``evaluate``."""
    return evaluate.make_parser().parse_args(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ALGO/ENV", help=", ".join(names))
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where the runs are")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the packed agents go")
    args = parser.parse_args(argv)
    for recipe in RECIPES:
        if recipe.name in args.only:
            make(recipe, args.logs, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
