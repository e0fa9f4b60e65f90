"""Callbacks of a run: when it is solved, what evaluation may cost, which files stay, what a full disk does."""

import contextlib
import errno
import os
import shutil
import signal
import time
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.resume.parts import seed_evaluations
from sb3_dreamer.zoo.runs import callbacks, logs, videos
from sb3_dreamer.zoo.runs.callbacks import StopWhenSolved


class Scripted(gym.Env):
    """Episodes of one step, whose returns are given."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, returns: list[float]):
        self.returns = iter([*returns, *[0.0] * 9])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), next(self.returns), True, False, {}


@pytest.mark.parametrize(
    ("returns", "ends_after", "best"),
    [
        ([9.0, 9.5], 1, 9.0),  # confirmed at once
        ([9.0, 5.0, 8.0, 9.0, 9.0], 3, 9.0),  # a lucky one is averaged with the next; 8 is a new best, but no solution
        ([9.0, 5.0, 6.9, 1.0], None, 7.0),  # never again
        ([3.0, 4.0, 5.0], None, 5.0),  # no second evaluation below the mark
    ],
)
def test_two_evaluations_have_to_agree(returns, ends_after, best) -> None:
    env = VecMonitor(DummyVecEnv([lambda: Scripted(returns)]))
    model = DreamerV3("MlpPolicy", env, model_size="debug", verbose=0, seed=0)
    evaluation = EvalCallback(
        env, callback_on_new_best=StopWhenSolved(9.0), n_eval_episodes=1, eval_freq=1, verbose=0, warn=False
    )
    model._setup_learn(10)
    evaluation.init_callback(model)
    goes_on = [evaluation.on_step() for _ in range(3)]
    if ends_after is None:
        assert all(goes_on)
    else:
        assert goes_on[: ends_after - 1] == [True] * (ends_after - 1) and not goes_on[ends_after - 1]
    assert evaluation.best_mean_reward == pytest.approx(best)


def full(*args, **kwargs) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_warning(tmp_path: Path) -> None:
    """Model files, evaluations, episodes and logs: none of them ends a training."""
    env = VecMonitor(DummyVecEnv([lambda: Scripted([1.0] * 50)]))
    model = DreamerV3("MlpPolicy", env, model_size="debug", verbose=0, seed=0)
    model.save = full
    log = callbacks.EpisodeLog(tmp_path, "Scripted", 1)
    log.writer.write_row = full
    models = callbacks.Checkpoints(2, str(tmp_path))
    stop = callbacks.StopOnSignal()
    evaluation = callbacks.Evaluation(
        env, stop=stop, n_eval_episodes=1, eval_freq=3, best_model_save_path=str(tmp_path), log_path=str(tmp_path)
    )
    model.set_logger(logs.make_logger(tmp_path, tmp_path, False))
    model.logger.output_formats[0].file = types.SimpleNamespace(tell=full, seek=full, write=full, close=lambda: None)
    with pytest.warns(UserWarning, match="training continues") as caught:
        model.learn(8, callback=[log, models, evaluation], log_interval=1)
    assert model.num_timesteps == 8
    text = " ".join(str(warning.message) for warning in caught)
    for part in (
        "episode was not logged",
        "no model file at step 2",
        "evaluation was not saved",
        "log was not written",
    ):
        assert part in text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_logs_of_a_folder_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """TensorBoard's thread ends with the error, which a full disk raises as well: the next row begins a new file."""
    logger = logs.make_logger(tmp_path, tmp_path / "tb", False)
    shutil.rmtree(tmp_path / "tb")
    for step in (1, 2):
        logger.record("loss", 0.5)
        with pytest.warns(UserWarning, match="log was not written") if step == 1 else contextlib.nullcontext():
            logger.dump(step)
    assert len(list((tmp_path / "tb").glob("events*"))) == 1
    shutil.rmtree(tmp_path / "tb")
    logger.record("loss", 0.5)
    with pytest.warns(UserWarning, match="log was not written"):
        logger.output_formats[1].writer.add_scalar("loss", 0.5)
        logger.close()


def test_a_checkpoint_needs_no_episode_log(tmp_path: Path) -> None:
    log = callbacks.EpisodeLog(tmp_path, "Scripted", 1)
    assert log.state_dict()["bytes"] > 0
    log.writer.file_handler.close()
    log.path.unlink()
    with open("/dev/full", "w") as log.writer.file_handler:
        log.writer.file_handler.write("a row")
        assert log.state_dict()["bytes"] == 0
        log.on_training_end()
    assert log.writer.file_handler.closed


def test_videos_begin_anew_at_checkpoints() -> None:
    """Else later evaluations, which draw actions from the same stream, would differ after a resume."""
    env = DummyVecEnv([lambda: Scripted([])])
    seed_evaluations(videos.AgentVideo(env, 10, True), 5)
    assert env._seeds == [5]


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    for step in range(100, 1300, 100):
        (tmp_path / f"rl_model_{step}_steps.zip").touch()
    (tmp_path / "best_model.zip").touch()
    callbacks.prune(tmp_path, r"rl_model_(\d+)_steps\.zip", 3)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"best_model.zip", *(f"rl_model_{step}_steps.zip" for step in (1000, 1100, 1200))}


def test_evaluations_that_fit_into_a_fifth() -> None:
    model = types.SimpleNamespace(ep_info_buffer=[], num_timesteps=1000)
    assert callbacks.affordable_episodes(model, None, []) == float("inf")
    assert callbacks.affordable_episodes(model, 0.2, []) == 0  # no episode has ended: it may be longer than all
    model.ep_info_buffer = [{"l": 10}, {"l": 30}]
    assert callbacks.affordable_episodes(model, 0.2, []) == 10
    assert callbacks.affordable_episodes(model, 0.2, [[50, 50]]) == 2  # the agent lives longer now, and 100 are spent
    assert callbacks.affordable_episodes(model, 0.2, [[150, 150]]) == 0


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_progress_bar_fits_the_terminal(width: int) -> None:
    """A line that is too long would be printed again and again."""
    console = Console(width=width, force_terminal=True)
    progress = callbacks.ShowProgress(True, console).progress
    assert progress is not None
    progress.add_task("return 123.4", total=50_000, completed=49_000)
    lines = console.render_lines(progress.get_renderable(), pad=False)
    text = "".join(segment.text for segment in lines[0])
    assert len(lines) == 1 and len(text) <= width and "49,000/50,000" in text and "left -:--:--" in text


def test_progress_in_words(capsys, monkeypatch) -> None:
    """Days are days, and no time is forecast from random steps, which make no updates."""
    progress = callbacks.ShowProgress(False, Console())
    progress.model = types.SimpleNamespace(_total_timesteps=50_000_000, verbose=1, learning_starts=1500)
    progress.locals = {"infos": []}
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress.num_timesteps = 0
    progress._on_training_start()
    lines = []
    for step in (1000, 2000, 2420):
        clock[0] += 31.0
        progress.num_timesteps = step
        assert progress._on_step()
        lines.append(capsys.readouterr().out.strip())
    assert lines[0] == "Step 1,000 of 50,000,000: no finished episode yet, 32.3 steps/s, before the first updates"
    assert lines[1] == "Step 2,000 of 50,000,000: no finished episode yet, 32.3 steps/s", "some without updates"
    assert lines[2] == "Step 2,420 of 50,000,000: no finished episode yet, 13.5 steps/s, 42.7 days left"


@pytest.mark.parametrize(
    ("board", "run", "own"),
    [
        ("tb", "logs/dreamerv3/CartPole-v1_1", "tb/logs/dreamerv3/CartPole-v1_1"),
        ("tb", "S 2/CartPole-v1-seed1/dreamerv3/CartPole-v1_1", "tb/S 2/CartPole-v1-seed1/dreamerv3/CartPole-v1_1"),
        ("S 2/tb", "S 2/CartPole-v1-seed1/dreamerv3/CartPole-v1_1", "S 2/tb/CartPole-v1-seed1/dreamerv3/CartPole-v1_1"),
        ("tb", "/else/logs/dreamerv3/CartPole-v1_1", "tb/else/logs/dreamerv3/CartPole-v1_1"),
    ],
)
def test_runs_of_all_log_folders_have_their_own_place_in_a_tensorboard_folder(
    board: str, run: str, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In which folder a run was resumed, and how that is written, makes no difference."""
    (tmp_path / "elsewhere").mkdir()
    for here, up in ((tmp_path, ""), (tmp_path / "elsewhere", "../")):
        monkeypatch.chdir(here)
        there = logs.shared_tensorboard(Path(up, board), Path(up, run))
        assert there.resolve() == tmp_path / own == logs.shared_tensorboard(tmp_path / board, Path(up, run))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on Windows")
def test_a_closed_terminal_stops_the_run_unless_it_is_ignored() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with callbacks.StopOnSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.stopped
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with callbacks.StopOnSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.stopped
    finally:
        signal.signal(signal.SIGHUP, before)
