"""The program ``train``: plan, model, table, training, evaluation at the end."""

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config import building, environments
from sb3_dreamer.zoo.config.plan import Plan, make_plan
from sb3_dreamer.zoo.programs import cli, display, training_callbacks, training_ranks
from sb3_dreamer.zoo.programs import tables as reporting
from sb3_dreamer.zoo.programs.arguments import to_words
from sb3_dreamer.zoo.programs.errors import RunError, UsageError, one_line
from sb3_dreamer.zoo.programs.training_arguments import make_parser
from sb3_dreamer.zoo.runs import logs, run_folder
from sb3_dreamer.zoo.runs import resume as training_resume
from sb3_dreamer.zoo.runs.run_folder import RunFolder

NOT_FOR_CONTINUING = ("algo", "env", "n_timesteps", "hyperparams", "conf_file", "config", "trained_agent", "seed")


def main(words: Sequence[str]) -> int:
    """Train.

    :param words: command-line arguments
    :return: exit status; 130 after Ctrl-C
    """
    args = make_parser().parse_args(words)
    checkpoint = training_resume.find_checkpoint(args)
    training_ranks.start(args)
    if args.track:
        logs.import_wandb()
    environments.import_packages(args.gym_packages)
    plan, notes = make_plan(args)
    if checkpoint is not None and args.seed < 0:
        plan.seed = training_resume.stored_seed(checkpoint)
    plan.seed = training_ranks.from_first(plan.seed)
    set_threads(args.num_threads)
    building.check_device(args.device)
    session = Session(args, plan, checkpoint)
    try:
        session.announce(notes)
        session.open_folder(cli.command("train", words))
        return session.train()
    finally:
        session.close()
        training_ranks.stop()


def set_threads(count: int) -> None:
    """Limit PyTorch to this many threads; -1 leaves it alone."""
    if count > 0:
        import torch as th

        th.set_num_threads(count)


class Session:
    """One training run, from its environments to its report.

    :param args: flags
    :param plan: what to do
    :param checkpoint: the checkpoint that it goes on from; None: from a model file, or from the start
    :raises UsageError: if it cannot be done; nothing has been written then
    """

    def __init__(self, args: Namespace, plan: Plan, checkpoint: Path | None = None):
        self.args, self.plan, self.checkpoint = args, plan, checkpoint
        self.rank = training_ranks.rank()
        self.console = display.make_console()
        self.envs: list[Any] = []
        self.tracking: Any = None
        self.replay_note = ""
        try:
            self.env = self._keep(building.make_training_env(plan, args.vec_env))
            plan.suite_preset = environments.suite_preset(self.env)
            self.model = self._load() if plan.trained_agent else building.make_model(plan, self.env, args.device)
            self.eval_env = None
            if self.rank == 0:
                self.eval_env = self._keep(building.make_evaluation_env(plan, args.vec_env, self.model))
            self._check_memory()
        except BaseException:
            self.close()
            raise
        self.run: RunFolder
        self.evaluation: Any = None

    def _keep(self, env: Any) -> Any:
        self.envs.append(env)
        return env

    def _load(self) -> Any:
        """The model to continue, with its replay; settles how many steps are left."""
        path = Path(self.plan.trained_agent)
        given = self.args.hyperparams or {}
        changes = {name: self.plan.hyperparams[name] for name in given if name in self.plan.hyperparams}
        if self.checkpoint is not None:
            model = training_resume.load(self.checkpoint, self.plan, self.env, self.args.device, changes)
            self.replay_note = f"{model.replay_buffer.size():,} steps, and all else, from {self.checkpoint}"
        else:
            changes["seed"] = self.plan.seed
            model = building.load_model(path, self.plan.algo, self.env, self.args.device, **changes)
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
        if self.checkpoint is not None:
            folder = self.checkpoint.parents[1]
        rows = reporting.plan_rows(plan, self.model, notes, self.replay_note, folder)
        display.print_table(self.console, f"{plan.algo} on {plan.run_name}", rows)

    def open_folder(self, command: str) -> None:
        """Make the run folder and write what the run was started with."""
        args, plan = self.args, self.plan
        folder = None if self.rank else training_resume.make_folder(args, plan, self.checkpoint, command)
        shared = training_ranks.from_first(folder)
        assert shared is not None, "the first process has the folder"
        self.run = shared
        self.model.verbose = args.verbose
        if self.rank:
            self.model.set_logger(logs.no_logger())
            return
        if args.track:
            self.tracking = logs.start_tracking(args, self.run.path.name, plan.to_config())
        tensorboard = self.run.path / "tensorboard"
        if args.tensorboard_log:
            tensorboard = Path(args.tensorboard_log) / plan.algo / self.run.path.name
        self.model.set_logger(logs.make_logger(self.run.path, tensorboard, args.verbose >= 2))

    def train(self) -> int:
        """Learn, save, evaluate and report."""
        from sb3_dreamer.zoo.runs.callbacks import ShowProgress
        from sb3_dreamer.zoo.runs.stopping import StopOnSignal

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
                    callback=[stop, *training_callbacks.make(self, stop), progress],
                    log_interval=self.args.log_interval if self.args.log_interval > 0 else 4,
                    reset_num_timesteps=False,
                )
        except KeyboardInterrupt:
            raise RunError("stopped at once: the model was not saved") from None
        except Exception as error:
            raise self._failure(error) from error
        finally:
            progress.close()
        if self.rank:
            return 130 if stop.stopped else 0
        self._save(with_replay=self.args.save_replay_buffer or (stop.stopped and plan.save_freq <= 0))
        if stop.stopped:
            return self._report_stop()
        self._report(time.monotonic() - start)
        return 0

    def _failure(self, error: Exception) -> RunError:
        """The error in one line; the traceback goes to a file of the run, and the model so far is kept."""
        import traceback

        path = self.run.path / (f"error_rank_{self.rank}.txt" if self.rank else "error.txt")
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        kept = self.run.path / f"rl_model_{self.model.num_timesteps}_steps.zip"
        if self.rank:
            return RunError(f"rank {self.rank}: {one_line(error) or type(error).__name__} (the traceback is in {path})")
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
        exact = self.plan.save_freq > 0
        continued = ["-i", str(self.run.path)] if exact else ["--algo", self.plan.algo, "-i", str(self.run.model)]
        words = [*continued, *to_words(make_parser(), self.args, NOT_FOR_CONTINUING)]
        what = "a checkpoint is" if exact else "model and replay are"
        print(
            f"Stopped at step {self.model.num_timesteps:,}; {what} in {self.run.path}.\n"
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
        if self.evaluation is not None and self.evaluation.best_step:
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
