"""The callbacks of a training run."""

from typing import TYPE_CHECKING, Any

from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.programs import training_ranks
from sb3_dreamer.zoo.runs import run_folder

if TYPE_CHECKING:
    from sb3_dreamer.zoo.programs.train import Session

KEPT = 2  #: resumable checkpoints that stay


def make(session: "Session", stop: Any) -> list[Any]:
    """Episode log, evaluation and checkpoints; of several ranks, all but the first only join in its checkpoints.

    :param session: the run; gets its ``evaluation``
    :param stop: the signal handler of the run
    """
    from sb3_dreamer.common.resume.callback import ResumableCheckpoint
    from sb3_dreamer.zoo.runs.callbacks import Checkpoints, EpisodeLog, Evaluation
    from sb3_dreamer.zoo.runs.stopping import StopWhenSolved

    plan, folder, args = session.plan, session.run.path, session.args
    resumable = []
    if plan.save_freq > 0:
        resumable = [ResumableCheckpoint(folder / run_folder.CHECKPOINTS, plan.save_freq, keep=KEPT)]
    if session.rank:
        return resumable
    steps = plan.n_envs * training_ranks.count()  # agent steps of one step of the environments
    frames = environments.frames_per_step(plan.suite_preset, plan.env_wrapper)
    callbacks: list[Any] = [EpisodeLog(folder, plan.env, frames, goes_on=session.checkpoint is not None)]
    if plan.eval_freq > 0:
        session.evaluation = Evaluation(
            session.eval_env,
            stop=stop,
            n_eval_episodes=plan.eval_episodes,
            eval_freq=max(1, plan.eval_freq // steps),
            best_model_save_path=str(folder),
            log_path=str(folder),
            deterministic=environments.deterministic_by_default(plan.env),
            callback_on_new_best=None if plan.stop_at_return is None else StopWhenSolved(plan.stop_at_return),
        )
        callbacks.append(session.evaluation)
    if plan.save_freq > 0:
        frequency = max(1, plan.save_freq // steps)
        callbacks.append(Checkpoints(frequency, str(folder), save_replay_buffer=args.save_replay_buffer))
    return [*callbacks, *resumable]
