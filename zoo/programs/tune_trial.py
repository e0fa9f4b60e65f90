"""One trial of ``tune``: a short training, evaluated and perhaps stopped on the way."""

from argparse import Namespace
from typing import Any

import numpy as np
import optuna
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_dreamer.zoo.config import building, environments
from sb3_dreamer.zoo.config.plan import Plan, make_plan
from sb3_dreamer.zoo.config.search_space import suggest
from sb3_dreamer.zoo.programs.errors import UsageError, one_line
from sb3_dreamer.zoo.programs.train import set_threads
from sb3_dreamer.zoo.programs.training_arguments import make_parser


class TrialFailedError(Exception):
    """The hyperparameters of a trial do not work; the study goes on."""


class Objective:
    """Trains with a trial's hyperparameters; its value is the mean return of the last evaluation.

    :param space: search space
    :param args: flags of ``tune``
    """

    def __init__(self, space: dict[str, Any], args: Namespace):
        self.space, self.args = space, args
        set_threads(args.num_threads)
        self.plan(args.hyperparams or {}, args.seed)  # An error of the flags shows before the first trial.

    def plan(self, values: dict[str, Any], seed: int) -> Plan:
        """The plan of ``train`` with these hyperparameters."""
        args = make_parser().parse_args(["--algo", self.args.algo, "--env", self.args.env, "--seed", str(seed)])
        args.hyperparams, args.n_timesteps = values, self.args.n_timesteps
        plan = make_plan(args)[0]
        plan.n_eval_envs = self.args.eval_episodes
        return plan

    def __call__(self, trial: optuna.Trial) -> float:
        """Train and evaluate."""
        values = {**(self.args.hyperparams or {}), **suggest(trial, self.space)}
        print(f"Trial {trial.number}: {', '.join(f'{name} {_short(value)}' for name, value in values.items())}")
        plan = self.plan(values, self.args.seed + trial.number)
        trial.set_user_attr("seed", plan.seed)
        trial.set_user_attr("n_timesteps", plan.n_timesteps)
        env = eval_env = None
        try:
            env = building.make_training_env(plan, None)
            model = building.make_model(plan, env, self.args.device)
            eval_env = building.make_evaluation_env(plan, None, model)
            callback = Reports(trial, eval_env, plan, self.args)
            model.learn(plan.n_timesteps, callback=callback)
        except (UsageError, ValueError, RuntimeError) as error:
            print(f"Trial {trial.number} failed: {one_line(error)}")
            raise TrialFailedError(one_line(error)) from error
        finally:
            for each in (env, eval_env):
                if each is not None:
                    each.close()
        if callback.pruned:
            print(f"Trial {trial.number}: stopped early at {callback.last:.1f}")
            raise optuna.TrialPruned
        print(f"Trial {trial.number}: {callback.last:.1f}", flush=True)
        return callback.last


class Reports(BaseCallback):
    """Evaluates at even distances, tells Optuna, and stops a trial that is not worth its time."""

    def __init__(self, trial: optuna.Trial, env: Any, plan: Plan, args: Namespace):
        super().__init__()
        self.trial, self.env, self.plan, self.args = trial, env, plan, args
        self.frequency = max(1, plan.n_timesteps // args.n_evaluations)
        self.done, self.pruned, self.last = 0, False, float("nan")

    def _on_step(self) -> bool:
        if self.num_timesteps < self.frequency * (self.done + 1):
            return True
        self.done += 1
        returns, _ = evaluate_policy(
            self.model,
            self.env,
            n_eval_episodes=self.args.eval_episodes,
            deterministic=environments.deterministic_by_default(self.plan.env),
            return_episode_rewards=True,
            warn=False,
        )
        self.last = float(np.mean(returns))
        self.trial.report(self.last, self.num_timesteps)
        # Not in the first third, where agents are hardly trained and returns are noise; at the end nothing is saved.
        evaluations = self.args.n_evaluations
        self.pruned = evaluations // 3 < self.done < evaluations and self.trial.should_prune()
        return not self.pruned


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
