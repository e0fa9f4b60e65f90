"""The program ``train``: plan, model, table, training, evaluation at the end."""

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo import building, cli, display, environments, logs, provenance, reporting, run_folder
from sb3_dreamer.zoo.arguments import to_words
from sb3_dreamer.zoo.errors import RunError, UsageError, one_line
from sb3_dreamer.zoo.plan import Plan, make_plan
from sb3_dreamer.zoo.run_folder import RunFolder
from sb3_dreamer.zoo.training_arguments import make_parser

NOT_FOR_CONTINUING = ("algo", "env", "n_timesteps", "hyperparams", "conf_file", "config", "trained_agent", "seed")


def main(words: Sequence[str]) -> int:
    """Train.

    :param words: command-line arguments
    :return: exit status; 130 after Ctrl-C
    """
    args = make_parser().parse_args(words)
    if args.track:
        logs.import_wandb()
    environments.import_packages(args.gym_packages)
    plan, notes = make_plan(args)
    set_threads(args.num_threads)
    building.check_device(args.device)
    session = Session(args, plan)
    try:
        session.announce(notes)
        session.open_folder(cli.command("train", words))
        return session.train()
    finally:
        session.close()


def set_threads(count: int) -> None:
    """Limit PyTorch to this many threads; -1 leaves it alone."""
    if count > 0:
        import torch as th

        th.set_num_threads(count)


class Session:
    """One training run, from its environments to its report.

    :param args: flags
    :param plan: what to do
    :raises UsageError: if it cannot be done; nothing has been written then
    """

    def __init__(self, args: Namespace, plan: Plan):
        self.args, self.plan = args, plan
        self.console = display.make_console()
        self.envs: list[Any] = []
        self.tracking: Any = None
        self.replay_note = ""
        try:
            self.env = self._keep(building.make_training_env(plan, args.vec_env))
            plan.suite_preset = environments.suite_preset(self.env)
            self.model = self._load() if plan.trained_agent else building.make_model(plan, self.env, args.device)
            self.eval_env = self._keep(building.make_evaluation_env(plan, args.vec_env, self.model))
            self._check_memory()
        except BaseException:
            self.close()
            raise
        self.run: RunFolder
        self.best: tuple[float, int] | None = None

    def _keep(self, env: Any) -> Any:
        self.envs.append(env)
        return env

    def _load(self) -> Any:
        """The model to continue, with its replay; settles how many steps are left."""
        path = Path(self.plan.trained_agent)
        given = self.args.hyperparams or {}
        changes = {name: self.plan.hyperparams[name] for name in given if name in self.plan.hyperparams}
        model = building.load_model(path, self.plan.algo, self.env, self.args.device, seed=self.plan.seed, **changes)
        self.replay_note = building.load_replay(model, path)
        done = model.num_timesteps
        if self.args.n_timesteps is not None:
            self.plan.n_timesteps = done + self.args.n_timesteps
        elif self.plan.n_timesteps <= done:
            total = self.plan.n_timesteps
            raise UsageError(f"{path} was trained for {done:,} of {total:,} steps: add -n STEPS to train it further")
        return model

    def _check_memory(self) -> None:
        from sb3_dreamer.common.report import check_memory

        try:
            check_memory(self.model.replay_buffer, self.plan.n_timesteps - self.model.num_timesteps)
        except MemoryError as error:
            raise UsageError(one_line(error)) from error

    def announce(self, notes: Sequence[str]) -> None:
        """Print what is about to happen: one table."""
        if self.args.verbose < 1:
            return
        plan = self.plan
        folder = run_folder.next_path(self.args.log_folder, plan.algo, plan.run_name)
        rows = reporting.plan_rows(plan, self.model, notes, self.replay_note, folder)
        display.print_table(self.console, f"{plan.algo} on {plan.run_name}", rows)

    def open_folder(self, command: str) -> None:
        """Make the run folder and write what the run was started with."""
        args, plan = self.args, self.plan
        self.run = run_folder.create(args.log_folder, plan.algo, plan.run_name, _uuid() if args.uuid else "")
        self.run.write_settings(
            plan.to_config(), vars(args) | {"seed": plan.seed}, command, provenance.describe_system()
        )
        if args.track:
            self.tracking = logs.start_tracking(args, self.run.path.name, plan.to_config())
        tensorboard = self.run.path / "tensorboard"
        if args.tensorboard_log:
            tensorboard = Path(args.tensorboard_log) / plan.algo / self.run.path.name
        self.model.set_logger(logs.make_logger(self.run.path, tensorboard, args.verbose >= 2))
        self.model.verbose = args.verbose

    def train(self) -> int:
        """Learn, save, evaluate and report."""
        from sb3_dreamer.zoo.callbacks import ShowProgress
        from sb3_dreamer.zoo.stopping import StopOnSignal

        model, plan = self.model, self.plan
        stop = StopOnSignal()
        progress = ShowProgress(
            (self.console.is_terminal or self.args.progress) and self.args.verbose > 0, self.console
        )
        start = time.monotonic()
        try:
            with stop:
                model.learn(
                    plan.n_timesteps - model.num_timesteps,
                    callback=[stop, *self._callbacks(stop), progress],
                    log_interval=self.args.log_interval if self.args.log_interval > 0 else 4,
                    reset_num_timesteps=False,
                )
        except KeyboardInterrupt:
            raise RunError("stopped at once: the model was not saved") from None
        except Exception as error:
            raise self._failure(error) from error
        finally:
            progress.close()
        self._save(with_replay=self.args.save_replay_buffer or stop.stopped)
        if stop.stopped:
            return self._report_stop()
        self._report(time.monotonic() - start)
        return 0

    def _callbacks(self, stop: Any) -> list[Any]:
        from sb3_dreamer.zoo.callbacks import Checkpoints, EpisodeLog, Evaluation

        plan, folder = self.plan, self.run.path
        callbacks: list[Any] = [EpisodeLog(folder, plan.env, environments.frames_per_step(plan.suite_preset))]
        if plan.eval_freq > 0:
            self.evaluation = Evaluation(
                self.eval_env,
                stop=stop,
                n_eval_episodes=plan.eval_episodes,
                eval_freq=max(1, plan.eval_freq // plan.n_envs),
                best_model_save_path=str(folder),
                log_path=str(folder),
                deterministic=environments.deterministic_by_default(plan.env),
                callback_on_new_best=self._stop_when_solved(),
            )
            callbacks.append(self.evaluation)
        if plan.save_freq > 0:
            frequency = max(1, plan.save_freq // plan.n_envs)
            callbacks.append(Checkpoints(frequency, str(folder), save_replay_buffer=self.args.save_replay_buffer))
        return callbacks

    def _stop_when_solved(self) -> Any:
        """SB3's callback for the return at which the task's file says that training may end, or None."""
        from stable_baselines3.common.callbacks import StopTrainingOnRewardThreshold

        threshold = self.plan.stop_at_return
        return None if threshold is None else StopTrainingOnRewardThreshold(threshold)

    def _failure(self, error: Exception) -> RunError:
        """The error in one line; the traceback goes to a file of the run, and the model so far is kept."""
        import traceback

        path = self.run.path / "error.txt"
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        kept = self.run.path / f"rl_model_{self.model.num_timesteps}_steps.zip"
        try:
            self.model.save(kept)
            text = f"the model at step {self.model.num_timesteps:,} is in {kept}"
        except Exception:
            text = "the model could not be saved"
        return RunError(f"{one_line(error) or type(error).__name__} ({text}, the traceback in {path})")

    def _save(self, with_replay: bool) -> None:
        self.model.save(self.run.model)
        if with_replay:
            self.model.save_replay_buffer(self.run.replay)

    def _report_stop(self) -> int:
        left = self.plan.n_timesteps - self.model.num_timesteps
        words = [
            "--algo",
            self.plan.algo,
            "-i",
            str(self.run.model),
            *to_words(make_parser(), self.args, NOT_FOR_CONTINUING),
        ]
        print(
            f"Stopped at step {self.model.num_timesteps:,}; model and replay are in {self.run.path}.\n"
            f"To continue with the {left:,} steps that are left:\n  {cli.command('train', words)}",
            flush=True,
        )
        return 130

    def _report(self, seconds: float) -> None:
        """Evaluate the trained model and say where everything is."""
        plan, run = self.plan, self.run
        rows = [("training", f"{self.model.num_timesteps:,} steps in {reporting.duration(seconds)}")]
        if plan.final_episodes > 0:
            rows.append(reporting.final_evaluation(self.model, self.eval_env, plan, run.path / "final_evaluation.csv"))
        if plan.eval_freq > 0 and self.evaluation.best_step:
            best, step = self.evaluation.best_mean_reward, self.evaluation.best_step
            rows.append(("best evaluation", f"{best:.1f} over {plan.eval_episodes} episodes at step {step:,}"))
        rows += [("model", str(run.model)), ("logs", f"{run.path}: progress.csv, 0.monitor.csv, tensorboard/")]
        folder = [] if self.args.log_folder == "logs" else ["-f", self.args.log_folder]
        rows.append(("watch it", cli.command("enjoy", ["--algo", plan.algo, "--env", plan.run_name, *folder])))
        if self.args.verbose >= 1:
            display.print_table(self.console, "trained", rows)

    def close(self) -> None:
        """Close environments, logger and tracking."""
        for env in self.envs:
            env.close()
        if hasattr(self, "run"):
            self.model.logger.close()
        if self.tracking is not None:
            self.tracking.finish()


def _uuid() -> str:
    import uuid

    return str(uuid.uuid4())
