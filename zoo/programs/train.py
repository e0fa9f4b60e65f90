"""The program ``train``: flags, plan, table, training, evaluation at the end."""

import contextlib
import dataclasses
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from sb3_dreamer.common.files.atomic import remove_left_overs
from sb3_dreamer.suite_presets import suite_preset
from sb3_dreamer.zoo.config import building, environments
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, algorithm_class
from sb3_dreamer.zoo.config.arguments import (
    KeyValues,
    OneLineParser,
    check_output,
    count_or_default,
    folder,
    interval,
    natural,
    positive,
    seed,
    to_command,
    to_words,
    whole,
)
from sb3_dreamer.zoo.config.errors import RunError, UsageError, one_line, plural
from sb3_dreamer.zoo.config.plan import DEFAULT_ENV, LARGEST_EVAL_FREQ, SAVE_FREQ, Plan, make_plan
from sb3_dreamer.zoo.config.values import ZOO_KEYS, constructor_arguments
from sb3_dreamer.zoo.programs import tables
from sb3_dreamer.zoo.runs import logs, resume, run_folder, tracking
from sb3_dreamer.zoo.runs.episodes import Episode, play
from sb3_dreamer.zoo.runs.run_folder import RunFolder

LEFT_OUT = "left out"
NOT_FOR_RESUMING = ("algo", "env", "n_timesteps", "hyperparams", "conf_file", "config", "trained_agent", "seed")
#: rl_zoo3's flags of ``train`` that are flags of ``tune`` here
SEARCH_FLAGS = {
    "-optimize", "--optimize-hyperparameters", "--n-trials", "--max-total-trials", "--sampler", "--pruner",
    "--n-startup-trials", "--n-evaluations", "--n-jobs", "--storage", "--study-name", "--trial-id",
    "--optimization-log-path", "--no-optim-plots",
}  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Train.

    :param words: command-line arguments
    :return: exit status; 130 after Ctrl-C
    """
    parser = make_parser()
    for word in words:
        if word.partition("=")[0] in SEARCH_FLAGS:
            raise UsageError(f"{word} belongs to the hyperparameter search: see sb3-dreamer tune --help")
    _refuse_hyperparameters(parser, words)
    args = parser.parse_args(words)
    checkpoint = resume.find_checkpoint(args, vars(parser.parse_args([])))
    if checkpoint is None:
        check_output("--log-folder", args.log_folder, is_folder=True)
    if args.tensorboard_log:
        check_output("--tensorboard-log", args.tensorboard_log, is_folder=True)
    config = resume.stored_config(args)
    if checkpoint is not None:
        resume.check_env(args, config)
    if args.track in tracking.TOOLS:
        tracking.import_package(args.track)
    environments.import_packages(args.gym_packages)
    plan, notes = make_plan(args, config)
    from sb3_dreamer.common import distributed

    if distributed.start() > 0:  # of the processes that torchrun started, only the first one speaks
        args.verbose, args.track, args.progress = 0, None, False
    if checkpoint is not None:
        plan.seed = resume.seed_of(config, args)
    plan.seed = distributed.broadcast_object(plan.seed)
    building.set_threads(args.num_threads)
    building.check_device(args.device)
    session = Session(args, plan, checkpoint)
    try:
        session.open_folder(to_command("train", words))
        session.announce(notes)
        return session.train()
    finally:
        session.close()
        distributed.stop()


def _refuse_hyperparameters(parser: OneLineParser, words: Sequence[str]) -> None:
    """Say how a hyperparameter is written that was passed as a flag (``--n-envs 8``).

    :raises UsageError: for the first one
    """
    flags = {flag for action in parser._actions for flag in action.option_strings}
    for index, word in enumerate(words):
        flag, _, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or flag in flags or name == "env":
            continue
        if name in ZOO_KEYS or any(name in constructor_arguments(algorithm_class(algo)) for algo in ALGORITHMS):
            value = value or next((other for other in words[index + 1 : index + 2] if other[:2] != "--"), "VALUE")
            raise UsageError(f"{flag} is a hyperparameter: write -params {name}:{value}")


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer train",
        description="Train an agent. Everything is written to LOG_FOLDER/ALGO/ENV_ID/; Ctrl-C saves the model.",
        epilog="""\
examples:
  train --algo dreamerv3 --env CartPole-v1
  train --env atari:pong -n 1e5 -params model_size:XS train_ratio:64
  train -i logs/dreamerv3/CartPole-v1_1            (resume this run)
  torchrun --nproc-per-node=2 zoo/train.py --env CartPole-v1
To search hyperparameters (rl_zoo3's -optimize), see: sb3-dreamer tune --help""",
    )
    _add_task_arguments(parser)
    _add_evaluation_arguments(parser)
    _add_machine_arguments(parser)
    _add_tracking_arguments(parser)
    return parser


def _add_task_arguments(parser: OneLineParser) -> None:
    add = parser.add_argument_group("what to train").add_argument
    pairs: dict[str, Any] = {"nargs": "+", "action": KeyValues, "metavar": "KEY:VALUE"}
    add("--algo", metavar="ALGO", help=f"algorithm: {', '.join(ALGORITHMS)} (default: {DEFAULT_ALGORITHM})")
    add("--env", metavar="ENV", help=f"task (Pong, dmc_vision:walker_walk) or gymnasium id (default: {DEFAULT_ENV})")
    add("-n", "--n-timesteps", type=positive, metavar="N", help="agent steps; with -i, additional steps")
    add(
        "-params", "--hyperparams", **pairs,
        help="override hyperparameters: learning_rate:1e-3 policy_kwargs:\"{'units': 64}\"",
    )  # fmt: skip
    add("-conf", "--conf-file", metavar="FILE", help="YAML file of hyperparameters by task")
    add("--config", metavar="FILE", help="config.yml of a run, to repeat it")
    add(
        "-i", "--trained-agent", default="", metavar="PATH",
        help="resume: a run folder or checkpoint folder resumes exactly, in the same folder; "
        "a model file starts a new run with the replay buffer beside it",
    )  # fmt: skip
    add(
        "--truncate-last-trajectory", nargs="?", const=True, metavar="BOOL",
        help="accepted for rl_zoo3 compatibility: with -i, unfinished episodes always count as truncated",
    )  # fmt: skip
    add("--seed", type=seed, default=-1, metavar="N", help="random seed (default: -1, drawn and stored)")
    add("--env-kwargs", **pairs, help="settings of the environment")
    add("--gym-packages", nargs="+", default=[], metavar="NAME", help="packages that register environments")


def _add_evaluation_arguments(parser: OneLineParser) -> None:
    add = parser.add_argument_group("evaluation and files").add_argument
    add(
        "--eval-freq", type=interval, metavar="N",
        help="steps between evaluations; -1: none (default: the hyperparameter file's, else a tenth of the run, at "
        f"most {LARGEST_EVAL_FREQ:,})",
    )  # fmt: skip
    add(
        "--eval-episodes", type=positive, metavar="N",
        help="episodes per evaluation (default: the hyperparameter file's, else 5, and evaluations that would take "
        "more than a fifth as many steps as training are left out)",
    )  # fmt: skip
    add(
        "--final-eval-episodes", type=natural, metavar="N",
        help="episodes of the final evaluation (default: as --eval-episodes, else the hyperparameter file's)",
    )  # fmt: skip
    add("--n-eval-envs", type=positive, metavar="N", help="environments for evaluation (default: the file's, else 1)")
    add(
        "--eval-env-kwargs", nargs="+", action=KeyValues, metavar="KEY:VALUE",
        help="settings of the environment that differ in evaluation",
    )  # fmt: skip
    add(
        "--save-freq", type=interval, metavar="N",
        help="steps between checkpoints, from which -i RUN_FOLDER resumes exactly (the newest 2 stay), and between "
        "model files (the newest 10 stay); default: checkpoints only, every tenth of the run, "
        f"{SAVE_FREQ[0]:,} to {SAVE_FREQ[1]:,} steps; -1: none",
    )  # fmt: skip
    add(
        "--video-freq", type=interval, default=-1, metavar="N",
        help="steps between videos of an episode and of open-loop predictions, for TensorBoard and --track "
        "(default: -1, none)",
    )  # fmt: skip
    add("--save-replay-buffer", action="store_true", help="save the replay buffer beside every model file")
    add("-f", "--log-folder", type=folder, default="logs", metavar="DIR", help="where to write the run folders")
    add(
        "-tb", "--tensorboard-log", default="", metavar="DIR",
        help="TensorBoard folder, in which the run folder's path names the run (default: in the run folder)",
    )  # fmt: skip
    add("-uuid", "--uuid", action="store_true", help="add a unique id to the name of the run folder")
    add(
        "--log-interval",
        type=_log_interval,
        default=-1,
        metavar="N",
        help="episodes between log rows (default: 4; -2: none)",
    )


def _log_interval(text: str) -> int:
    """Read a number of episodes, or -1 for the default, or -2 for none."""
    return -2 if whole(text) == -2 else count_or_default(text)


def _add_machine_arguments(parser: OneLineParser) -> None:
    add = parser.add_argument_group("machine and screen").add_argument
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1")
    add(
        "--num-threads",
        type=count_or_default,
        default=-1,
        metavar="N",
        help="threads of PyTorch (default: PyTorch's choice, 1 if updates are small)",
    )
    add(
        "--vec-env", choices=["dummy", "subproc"],
        help="run environments in this process or in processes of their own (default: by their speed)",
    )  # fmt: skip
    add("--verbose", type=int, choices=[0, 1, 2], default=1, help="0 prints only errors, 2 also log tables")
    add("-P", "--progress", action="store_true", help="show the progress bar even when output is not a terminal")


def _add_tracking_arguments(parser: OneLineParser) -> None:
    add = parser.add_argument_group("tracking").add_argument
    add(
        "--track", nargs="?", const="wandb", choices=[*tracking.TOOLS, "none"], metavar="TOOL",
        help="log settings, metrics, videos and models to wandb (Weights & Biases, also without TOOL) or mlflow; "
        "none: resume without it",
    )  # fmt: skip
    add("--wandb-project-name", metavar="NAME", help=f"project, or MLflow's experiment (default: {tracking.PROJECT})")
    add("--wandb-entity", metavar="NAME", help="team or user at Weights & Biases")
    add("--wandb-group", metavar="NAME", help="group of runs")
    add("-tags", "--wandb-tags", nargs="+", default=[], metavar="TAG", help="tags of the run")


class Session:
    """Run one training, from its environments to its report.

    :param args: flags
    :param plan: what to do
    :param checkpoint: the checkpoint to resume from; None: from a model file, or from the start
    :raises UsageError: if it cannot be done; nothing has been written then
    """

    def __init__(self, args: Namespace, plan: Plan, checkpoint: Path | None = None):
        from sb3_dreamer.common import distributed

        self.args, self.plan, self.checkpoint = args, plan, checkpoint
        self.rank = distributed.rank()
        self.console = tables.make_console()
        self.envs: list[Any] = []
        self.tracking: tracking.TrackedRun | None = None
        self.trained = False
        self.replay_note = ""
        self.uuid = str(uuid4()) if args.uuid else ""
        self.held = contextlib.ExitStack()
        try:
            if checkpoint is not None:
                self._lock(checkpoint.resolve().parents[1])
                remove_left_overs(checkpoint.resolve().parents[1])
            self.env = self._keep(building.make_training_env(plan, args.vec_env))
            plan.suite_preset = suite_preset(self.env)
            self.model = self._load() if plan.trained_agent else building.make_model(plan, self.env, args.device)
            if args.num_threads < 0:
                building.choose_threads(self.model)
            self.eval_env = self.video_env = None
            if self.rank == 0:
                self.eval_env = self._keep(building.make_evaluation_env(plan, args.vec_env, self.model))
                self.video_env = self._make_video_env()
            self._check_memory()
            self.updates_before, self.steps_before = self.model._n_updates, self.model.num_timesteps
        except BaseException:
            self.close()
            raise
        self.run: RunFolder
        self.evaluation: Any = None

    def _lock(self, folder: Path) -> None:
        """Keep other processes from writing to the run folder.

        :raises UsageError: if one does
        """
        from sb3_dreamer.common.resume.folder import FolderInUseError, sole_writer

        try:
            self.held.enter_context(sole_writer(folder))
        except FolderInUseError as error:
            raise UsageError(str(error)) from error

    def _keep(self, env: Any) -> Any:
        self.envs.append(env)
        return env

    def _make_video_env(self) -> Any:
        """Make the environment that ``--video-freq`` shows, None without it.

        :raises UsageError: if it renders no images
        """
        from sb3_dreamer.zoo.runs import videos

        if self.args.video_freq <= 0:
            return None
        plan = dataclasses.replace(self.plan, n_eval_envs=1)
        env = self._keep(building.make_evaluation_env(plan, self.args.vec_env, self.model, "rgb_array"))
        env.reset()
        videos.render_image(env)
        return env

    def _load(self) -> Any:
        """Load the model to resume, with its replay buffer, and set the total of steps."""
        path = Path(self.plan.trained_agent)
        if self.checkpoint is not None:
            model = resume.load_checkpoint(self.checkpoint, self.plan, self.env, self.args.device)
            rows = f"{model.replay_buffer.size():,} rows (steps, and the first states of episodes)"
            self.replay_note = f"{rows}, and all else, from {self.checkpoint}"
        else:
            given = self.args.hyperparams or {}
            changes = {name: self.plan.hyperparams[name] for name in given if name in self.plan.hyperparams}
            changes |= {"seed": self.plan.seed, "verbose": 0}
            try:
                model = building.load_model(path, self.plan.algo, self.env, self.args.device, **changes)
            except UsageError as error:
                raise resume.with_env(error, path, self.args.env) from error
            self.replay_note = resume.load_replay(model, path)
        done = model.num_timesteps
        if self.args.n_timesteps is not None:
            self.plan.n_timesteps = done + self.args.n_timesteps
        elif self.plan.n_timesteps <= done and not self._ended_before_its_model(done):
            total = self.plan.n_timesteps
            raise UsageError(f"{path} was trained for {done:,} of {total:,} steps: add -n STEPS to train it further")
        return model

    def _ended_before_its_model(self, done: int) -> bool:
        """Whether the run was killed, or its disk was full, between its last checkpoint and its model at the end.

        :param done: agent steps of the checkpoint
        """
        run = None if self.checkpoint is None else run_folder.of_model(self.checkpoint / resume.MODEL)
        return run is not None and run.model_steps < done

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
        rows = tables.plan_rows(plan, self.model, notes, self.replay_note, self.run.path)
        rows += tables.hopeless_rows(plan, self.model) + tables.too_short_rows(plan, self.model)
        tables.print_table(self.console, f"{plan.algo} on {plan.run_name}", rows)

    def open_folder(self, command: str) -> None:
        """Make the run folder and write what the run was started with."""
        from sb3_dreamer.common import distributed

        args, plan = self.args, self.plan
        folder = None if self.rank else resume.make_folder(args, plan, self.checkpoint, command, self.uuid)
        shared = distributed.broadcast_object(folder)
        assert shared is not None, "the first process has the folder"
        self.run = shared
        if self.checkpoint is None:
            self._lock(self.run.path)
        self.model.verbose = args.verbose
        if self.rank:
            from stable_baselines3.common.logger import Logger

            self.model.set_logger(Logger(None, []))
            return
        if args.track in tracking.TOOLS:
            self.tracking = tracking.start(args, self.run, plan.to_config())
        self.tensorboard = tensorboard = self.run.path / "tensorboard"
        if args.tensorboard_log:
            self.tensorboard = tensorboard = logs.shared_tensorboard(Path(args.tensorboard_log), self.run.path)
        tracked = self.tracking.formats if self.tracking is not None else ()
        self.model.set_logger(logs.make_logger(self.run.path, tensorboard, args.verbose >= 2, tracked))

    def train(self) -> int:
        """Learn, save, evaluate and report."""
        from sb3_dreamer.zoo.runs import callbacks, videos

        model, plan, args = self.model, self.plan, self.args
        stop = callbacks.StopOnSignal()
        bar = args.verbose > 0 and (self.console.is_terminal or args.progress)
        progress = callbacks.ShowProgress(bar, tables.make_console(terminal=True) if bar else self.console)
        recorded = callbacks.make_callbacks(
            plan,
            self.run.path,
            self.eval_env,
            stop,
            resumed=self.checkpoint is not None,
            save_replay_buffer=args.save_replay_buffer,
        )
        if self.video_env is not None:
            deterministic = environments.deterministic_by_default(plan.env)
            recorded += videos.make_callbacks(model, self.video_env, args.video_freq, deterministic)
        self.evaluation = next((item for item in recorded if isinstance(item, callbacks.Evaluation)), None)
        interval: Any = None if args.log_interval == -2 else max(0, args.log_interval) or 4
        start = time.monotonic()
        try:
            with stop:
                model.learn(
                    max(0, plan.n_timesteps - model.num_timesteps),
                    callback=[stop, *recorded, progress],
                    log_interval=interval,
                    reset_num_timesteps=False,
                )
        except KeyboardInterrupt:
            print("Interrupted: the model was not saved.", file=sys.stderr)
            return 130
        except Exception as error:
            raise self._failure(error) from error
        finally:
            progress.close()
        if self.rank:
            return 130 if stop.stopped else 0
        failure = self._save(with_replay=args.save_replay_buffer or (stop.stopped and not self.run.has_checkpoint))
        self.trained = not failure
        if not failure and stop.stopped:
            return self._report_stop()
        if not stop.stopped:
            self._report(time.monotonic() - start)
        if failure:
            raise RunError(failure)
        return 0

    def _failure(self, error: Exception) -> RunError:
        """Return the error in one line; write the traceback to a file of the run and save the model so far."""
        import traceback

        from sb3_dreamer.common.updates.nonfinite import NonFiniteError

        path = self.run.path / (f"error_rank_{self.rank}.txt" if self.rank else "error.txt")
        trace = f"the traceback is in {path}"
        try:
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError as problem:
            trace = f"the traceback could not be written: {one_line(problem)}"
        what = one_line(error) or type(error).__name__
        if self.rank:
            return RunError(f"rank {self.rank}: {what} ({trace})")
        if isinstance(error, NonFiniteError):  # It names the model.
            return RunError(f"{what} ({trace})")
        kept = self.run.path / f"rl_model_{self.model.num_timesteps}_steps.zip"
        try:
            self.model.save(kept)
            text = f"the model at step {self.model.num_timesteps:,} is in {kept}"
        except Exception:
            text = "the model could not be saved"
        return RunError(f"{what} ({text}; {trace})")

    def _save(self, with_replay: bool) -> str:
        """Save the model; return what went wrong and what to do, empty if all is well."""
        try:
            self.model.save(self.run.model)
            if with_replay:
                self.model.save_replay_buffer(self.run.replay)
        except OSError as error:
            failure = f"the model could not be saved: {one_line(error)}"
            if not self.run.has_checkpoint:
                return f"{failure}; there is no checkpoint to resume from"
            step = resume.newest(self.run.path).name.rpartition("_")[2]
            command = to_command("train", ["-i", str(self.run.path)])
            return f"{failure}: free space, then `{command}` resumes from step {int(step):,}"
        return ""

    def _report_stop(self) -> int:
        left = self.plan.n_timesteps - self.model.num_timesteps
        exact = self.run.has_checkpoint
        resumed = ["-i", str(self.run.path)] if exact else ["--algo", self.plan.algo, "-i", str(self.run.model)]
        words = [*resumed, *to_words(make_parser(), self.args, (*NOT_FOR_RESUMING, *(["log_folder"] if exact else [])))]
        what = "a checkpoint is" if exact else "model and replay buffer are"
        print(
            f"Stopped at step {self.model.num_timesteps:,}; {what} in {self.run.path}.\n"
            f"To resume with the remaining {left:,} steps:\n  {to_command('train', words)}",
            flush=True,
        )
        return 130

    def _report(self, seconds: float) -> None:
        """Evaluate the trained model and say where everything is."""
        from sb3_dreamer.common.report import duration

        plan, run = self.plan, self.run
        total = self.model.num_timesteps
        in_all = f" ({total:,} in all)" if self.steps_before else ""
        rows = [("training", f"{total - self.steps_before:,} steps in {duration(seconds)}{in_all}")]
        if self.model._n_updates == self.updates_before and self.model.planned_updates(total - self.steps_before) > 0:
            names = ("learning_starts", "batch_size", "batch_length")
            values = ", ".join(f"{name}={getattr(self.model, name)}" for name in names)
            rows.append(("updates", f"none: the run was too short for one ({values})"))
        if plan.final_episodes > 0:
            rows += self._evaluate()
        if self.evaluation is not None and self.evaluation.best_step:
            best, step = self.evaluation.best_mean_reward, self.evaluation.best_step
            rows.append(
                ("best evaluation", f"{best:.1f} over {plural(plan.eval_episodes, 'episode')} at step {step:,}")
            )
        if self.evaluation is not None and self.evaluation.evaluations_timesteps:
            lengths = self.evaluation.evaluations_length
            taken = f"{sum(map(sum, lengths)):,} steps, {duration(self.evaluation.seconds)}"
            rows.append(("evaluations", f"{len(lengths)} during training: {taken}"))
        inside = self.tensorboard.is_relative_to(run.path)
        logs = f"{run.path}: progress.csv, 0.monitor.csv" + (", tensorboard/" if inside else f"; {self.tensorboard}")
        rows += [("model", str(run.model) if self.trained else "not saved"), ("logs", logs)]
        if self.args.verbose >= 1:
            tables.print_table(self.console, "trained", rows)
            programs = {"watch": "enjoy"}
            if any(text.startswith(LEFT_OUT) for _, text in rows):
                programs = {"evaluate": "evaluate"} | programs
            words = ["--algo", plan.algo, "--env", plan.run_name, *self._where()]
            for verb, program in programs.items():  # below the table, which would break a long line
                print(f"To {verb} it:\n  {to_command(program, words)}", flush=True)

    def _evaluate(self) -> tables.Rows:
        """Evaluate the trained model, write every episode to a CSV file, and say the mean; Ctrl-C ends it early."""
        from sb3_dreamer.zoo.runs.callbacks import affordable_episodes, mean_and_std

        plan = self.plan
        lengths = self.evaluation.evaluations_length if self.evaluation is not None else []
        count = min(plan.final_episodes, affordable_episodes(self.model, plan.eval_share, lengths))
        if not count:
            why = f"{LEFT_OUT}: it would take more than {plan.eval_share:.0%} as many steps as training"
            return [("final evaluation", why)]
        episodes: list[Episode] = []
        stopped = ""
        deterministic = environments.deterministic_by_default(plan.env)
        try:
            for episode in play(self.model, self.eval_env, deterministic, n_episodes=int(count)):
                episodes.append(episode)
        except KeyboardInterrupt:
            stopped = ", stopped"
        rows = "".join(f"{episode.reward!r},{episode.length}\n" for episode in episodes)
        try:
            (self.run.path / "final_evaluation.csv").write_text("r,l\n" + rows, encoding="utf-8")
        except OSError as error:
            warnings.warn(f"the final evaluation was not saved: {error}", stacklevel=2)
        if not episodes:
            return [("final evaluation", f"{LEFT_OUT}: stopped in the first episode")]
        mean = mean_and_std([episode.reward for episode in episodes])
        return [("final evaluation", f"{mean} over {plural(len(episodes), 'episode')}{stopped}")]

    def _where(self) -> list[str]:
        """Write the flags with which other programs find this run."""
        logs = self.run.path.parents[1]
        folder = [] if logs == Path("logs") else ["-f", str(logs)]
        return folder + (["--gym-packages", *self.args.gym_packages] if self.args.gym_packages else [])

    def close(self) -> None:
        """Close environments, logger and tracking, and let other processes have the run folder."""
        self.held.close()
        for env in self.envs:
            env.close()
        if hasattr(self, "run") and hasattr(self.model, "_logger"):
            self.model.logger.close()
        if self.tracking is not None:
            tracking.finish(self.tracking, self.run, failed=not self.trained)
