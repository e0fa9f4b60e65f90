"""The programs around training, run as from the command line."""

import csv
import importlib
import json
import re
import shlex
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_dreamer.zoo.programs.cli import PROGRAMS, main
from sb3_dreamer.zoo.programs.evaluate import summary
from sb3_dreamer.zoo.runs import curves, run_folder
from sb3_dreamer.zoo.runs.episodes import play
from tests.counting_env import CountingEnv

ROOT = Path(__file__).resolve().parents[3]


def test_every_program_has_a_script_and_help(capsys) -> None:
    for program in PROGRAMS:
        assert (ROOT / "zoo" / f"{program}.py").exists()
        with pytest.raises(SystemExit) as stopped:
            main([program, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: sb3-dreamer {program}") and max(map(len, out.splitlines())) <= 120
        assert "(default: [" not in out and "(default: {" not in out and "(default: all; " not in out
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(program in out for program in PROGRAMS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["record_video", "--fpss", "3"], "did you mean '--fps'"),
        (["evaluate", "-o", "nowhere/x.json"], "there is no folder nowhere"),
        (["evaluate", "--n-episode", "3"], "did you mean '--n-episodes'"),
        (["plot", "-o", "x.jpg"], "must end in .png"),
        (["plot", "-o", "x.png/x.png"], "there is no folder x.png"),
        (["plot", "-max", "nan"], "'nan' is not a number above 0"),
        (["plot", "-max", "0"], "'0' is not a number above 0"),
        (["evaluate", "-o", "."], "'.' is a folder: name a file in it"),
        (["enjoy", "--reward-log", __file__], "is a file"),
        (["record_video", "-o", __file__], "is a file"),
        (["record_video", "--env-kwargs", "render_mode:human"], "the programs choose it; leave it out"),
        (["tune", "-f", __file__], "is a file"),
        (["suite", "classic", "-f", __file__], "is a file"),
        (
            ["suite", "classic", "--seeds", "-1"],
            "'-1' would draw other seeds every time",
        ),
        (["suite", "classic", "--seeds", "0", "1e10"], "'1e10' must be from 0 to 4294967295"),
        (["suite", "classic", "--", "-i", "x"], "every job starts a run of its own"),
        (["suite", "classic", "--", "-f", "logs"], "use -f before --"),
        (["suite", "classic", "--", "-params", "lr:1"], "write learning_rate"),
        (["train", "--env-kwargs", "render_mode:human"], "the programs choose it; leave it out"),
        (["bench", "rivals"], "needs a program to compare with"),
        (["plot", "-x", "hours"], "'hours' is unknown"),
        (["plot", "-f", "nowhere"], "there is no run in nowhere"),
        (["tune", "--pruner", "medium"], "did you mean 'median'"),
        (["tune", "--space", "nowhere.yml"], "there is no file nowhere.yml"),
        (["suite", "atari1000k"], "did you mean 'atari100k'"),
        (["suite", "classic", "--tasks", "CartPol-v1"], "did you mean 'CartPole-v1'"),
        (["suite", "classic", "--", "--evn"], "did you mean '--env'"),
        (["list", "atri"], "did you mean 'atari'"),
        (["list", "--runs", "-f", "nowhere"], "there is no run"),
        (["list", "atari", "--runs"], "'atari' names a suite to list the tasks of: leave it out"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("program", ["enjoy", "evaluate", "record_video", "tune", "bench"])
def test_a_seed_of_minus_one_is_drawn(program: str) -> None:
    """As in train, and in rl_zoo3."""
    parser = importlib.import_module(f"sb3_dreamer.zoo.programs.{program}").make_parser()
    words = {"bench": ["updates"]}.get(program, [])
    drawn = {parser.parse_args([*words, "--seed", "-1"]).seed for _ in range(3)}
    assert len(drawn) == 3 and min(drawn) >= 0


def test_list(logs: Path, capsys) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "atari100k" in out and "classic" in out
    assert main(["list", "crafter"]) == 0
    assert capsys.readouterr().out.split() == ["crafter:reward", "crafter:noreward"]
    assert main(["list", "--runs", "-f", str(logs)]) == 0
    out = capsys.readouterr().out
    assert "dreamerv3/CartPole-v1_1" in out and "200 of 200" in out


def test_evaluate_writes_every_episode(logs: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "scores.json"
    assert main(["evaluate", "-f", str(logs), "-n", "4", "--n-envs", "2", "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    run = result["runs"][0]
    assert len(run["returns"]) == 4 and run["returns"] == [float(length) for length in run["lengths"]]
    assert run["mean"] == pytest.approx(np.mean(run["returns"])) and run["trained_steps"] == 200
    assert run["interval"][0] <= run["mean"] <= run["interval"][1]
    assert f"{run['mean']:.1f}" in capsys.readouterr().out


def test_interval_covers_the_mean_of_a_sample() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(40):
        low, high = summary(rng.normal(3.0, 2.0, 30))["interval"]
        inside += low <= 3.0 <= high
    assert 34 <= inside < 40
    assert summary([1.0])["interval"] is None


def test_videos_end_before_the_reset() -> None:
    env = VecMonitor(DummyVecEnv([lambda: CountingEnv(lengths=(3,))]))
    still = types.SimpleNamespace(predict=lambda obs, state, **_: (np.zeros(1, int), state))
    seen: list[int] = []
    assert len(list(play(still, env, True, n_episodes=2, on_state=lambda: seen.append(env.get_attr("t")[0])))) == 2
    assert seen == [0, 1, 2, 0, 1, 2]


def test_record_video_writes_a_video(logs: Path, tmp_path: Path) -> None:
    assert main(["record_video", "-f", str(logs), "-n", "12", "-o", str(tmp_path), "--gif"]) == 0
    from PIL import Image

    (video,) = tmp_path.glob("*.gif")
    image = Image.open(video)
    assert image.n_frames >= 2 and min(image.size) >= 256


def test_record_video_shows_the_episode_of_enjoy(logs: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """The start that the seed gives, and as many images as the episode that is reported has steps."""
    import gymnasium as gym

    from sb3_dreamer.video import VideoWriter

    images: list[np.ndarray] = []
    monkeypatch.setattr(VideoWriter, "add", lambda self, image: images.append(image))
    where = ["-f", str(logs), "--seed", "4", "--n-episodes", "1"]
    assert main(["record_video", *where, "-o", str(tmp_path), "--n-envs", "2"]) == 0
    recorded = capsys.readouterr().out
    assert "--n-envs 2 is not used: a video shows one environment" in recorded
    assert main(["enjoy", *where, "--no-render"]) == 0
    mean = capsys.readouterr().out.splitlines()[-1]
    assert mean in recorded and f"mean length {len(images)}.00 " in mean
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=4)
    assert np.array_equal(images[0], env.render())


def test_record_video_records_dreams(tmp_path: Path, small: list[str], capsys) -> None:
    from PIL import Image

    catch = "sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0"
    for algo in ("dreamerv3", "planet"):
        words = ["--algo", algo, "--env", catch, "-f", str(tmp_path / "logs")]
        tiny = ["--hyperparams", "model_size:debug", "batch_size:2", "batch_length:8", "learning_starts:40"]
        assert main(["train", *words, "-n", "40", "--seed", "3", *tiny, *small[-4:], "--eval-freq", "-1"]) == 0
        capsys.readouterr()
        out = tmp_path / algo
        assert main(["record_video", *words, "--dream", "2", "--n-episodes", "2", "-o", str(out), "--gif"]) == 0
        text = capsys.readouterr().out
        (video,) = out.glob("*-dream-obs.gif")
        assert str(video) in text and "image_error_copy" in text and "steps ahead" in text
        image = Image.open(video)
        assert image.n_frames == 5 + 2 and image.width >= 3 * 192 and image.height >= 2 * 192 + 24


def test_dreams_are_refused_without_images(logs: Path, tmp_path: Path, capsys) -> None:
    assert main(["record_video", "-f", str(logs), "--dream", "-o", str(tmp_path / "videos")]) == 2
    assert "--dream shows images" in capsys.readouterr().err
    assert main(["record_video", "-f", str(logs), "--dream", "-n", "9"]) == 2
    assert "--dream STEPS takes the place of -n" in capsys.readouterr().err
    assert not (tmp_path / "videos").exists()


def test_plot(logs: Path, tmp_path: Path) -> None:
    files = [tmp_path / "curves.png", tmp_path / "curves.svg"]
    assert main(["plot", "-f", str(logs), "-e", "CartPole-v1", "-o", *map(str, files)]) == 0
    assert files[0].read_bytes().startswith(b"\x89PNG") and "<svg" in files[1].read_text()
    for flags in (["-x", "frames"], ["-x", "time"], ["-y", "length"], ["--source", "eval"]):
        assert main(["plot", "-f", str(logs), "-o", str(files[0]), *flags]) == 0


def test_plot_says_what_is_missing(tmp_path: Path, capsys) -> None:
    """A run is found by the name that trained it; one without a score is not one without a scale."""
    run = run_folder.RunFolder(tmp_path / "dreamerv2/atari-pong_1", "atari-pong")
    run.write_config({"env": "atari:pong", "hyperparams": {}})
    output = str(tmp_path / "x.png")
    assert main(["plot", "-f", str(tmp_path), "-e", "Pong", "-o", output]) == 2
    out, err = capsys.readouterr()
    assert out == f"Left out: {run.path} (no finished episode yet)\n"
    assert err == "sb3-dreamer plot: error: nothing is left to plot: there is no finished episode that can be read\n"
    assert main(["plot", "-f", str(tmp_path), "--aggregate", "-o", output]) == 2
    assert "no scores of atari:pong (no score yet: train longer, or try --source eval)" in capsys.readouterr().err
    run.write_config({"env": "CartPole-v1", "hyperparams": {}})
    assert main(["plot", "-f", str(tmp_path), "--aggregate", "-o", output]) == 2
    assert "CartPole-v1 (scores are normalized for Atari and control tasks only)" in capsys.readouterr().err


def test_curves_are_those_of_the_files(logs: Path) -> None:
    run = run_folder.find(logs, "dreamerv3", "CartPole-v1")
    lines = (run.path / "0.monitor.csv").read_text().splitlines()[1:]
    rows = list(csv.DictReader(lines))
    curve = curves.training_curve(run, "frames", "reward", 1)
    assert curve is not None and curve.y.tolist() == [float(row["r"]) for row in rows] and curve.seed == 3
    assert curve.x.tolist() == [float(row["timesteps"]) for row in rows]  # CartPole: one frame per step
    evaluations = curves.evaluation_curve(run, "steps", "reward")
    assert evaluations is not None and evaluations.x.tolist() == [100, 200]
    assert curves.moving_average(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_the_mean_does_not_change_where_a_run_ends() -> None:
    """A run that solved its task early keeps its return; the mean is over all runs at every place."""
    solved = curves.Curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 100.0, 500.0]), 0)
    slow = curves.Curve(np.array([10.0, 20.0, 50.0]), np.array([60.0, 100.0, 100.0]), 1)
    grid, values = curves.on_grid([solved, slow], 5)
    assert grid.tolist() == [10, 20, 30, 40, 50] and values.mean(0).tolist() == [80, 300, 300, 300, 300]


def test_published_curves() -> None:
    curve = curves.published_curve("dreamerv3", "dmc_vision:walker_walk")
    assert curve is not None and curve["frames"][-1] == pytest.approx(1e6, rel=0.02) and curve["mean"][-1] > 900
    assert all(low <= mean <= high for low, mean, high in zip(curve["low"], curve["mean"], curve["high"], strict=True))
    assert curves.published_curve("dreamerv3", "CartPole-v1") is None


def test_tune_resumes_its_study(tmp_path: Path, capsys) -> None:
    pytest.importorskip("optuna")
    space = tmp_path / "space.yml"
    space.write_text("learning_rate: {low: 1e-4, high: 1e-2, log: true}\nhorizon: [5, 15]\n")
    fixed = ["model_size:debug", "batch_size:2", "batch_length:8", "train_ratio:1", "learning_starts:40"]
    words = ["tune", "-f", str(tmp_path), "-n", "60", "--space", str(space), "--n-evaluations", "1", "--device", "cpu"]
    words += ["--eval-episodes", "1", "-params", *fixed, "--n-trials"]
    assert main([*words, "1"]) == 0
    assert main([*words, "1"]) == 0
    out = capsys.readouterr().out
    assert "1 trial so far" in out and "2 complete" in out
    rows = list(csv.DictReader((tmp_path / "dreamerv3/dreamerv3-CartPole-v1-trials.csv").read_text().splitlines()))
    assert len(rows) == 2 and all(1e-4 <= float(row["learning_rate"]) <= 1e-2 for row in rows)
    best = max(rows, key=lambda row: float(row["value"]))
    command = shlex.split(out.strip().splitlines()[-1])
    assert f"horizon:{best['horizon']}" in command and "model_size:debug" in command


def test_suite_can_be_asked_and_resumed(tmp_path: Path, monkeypatch, capsys) -> None:
    """The state of a job is that of its files; the command that continues it has its model."""
    from sb3_dreamer.zoo.runs.jobs import Job, mark_done

    words = ["suite", "classic", "--tasks", "CartPole-v1", "--seeds", "0", "1", "-f", str(tmp_path)]
    assert main([*words, "--status"]) == 0
    assert capsys.readouterr().out.strip() == "2 new"
    job = Job("dreamerv3", "CartPole-v1", "CartPole-v1", 0, str(tmp_path / "CartPole-v1-seed0"))
    run = run_folder.create(job.folder, "dreamerv3", "CartPole-v1")
    assert job.state() == "failed" and "--env" in job.words()
    run.model.touch()
    run.replay.touch()
    assert job.state() == "stopped" and job.words()[-2:] == ["-i", str(run.model)]
    (run.path / "checkpoints/checkpoint_000001_step_9").mkdir(parents=True)
    assert job.state() == "stopped" and job.words()[-2:] == ["-i", str(run.path)]
    mark_done(job)
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"1 done, 1 new", out) and "--seed 1" in out and "--seed 0" not in out


def test_suite_prints_commands_to_copy_and_each_job_once(tmp_path: Path, capsys) -> None:
    folder, value = tmp_path / "S s", "policy_kwargs:{'units': 32}"
    words = ["suite", "classic", "--tasks", "CartPole-v1", "CartPole-v1", "--seeds", "0", "1", "0", "-f", str(folder)]
    assert main([*words, "--dry-run", "--", "--hyperparams", value]) == 0
    *commands, states = capsys.readouterr().out.splitlines()
    assert states == "# 2 new" and len(commands) == 2
    for seed, command in enumerate(commands):
        start = ["sb3-dreamer", "train", "--algo", "dreamerv3", "-f", str(folder / f"CartPole-v1-seed{seed}")]
        rest = ["--hyperparams", value, "--env", "CartPole-v1", "--seed", str(seed)]
        assert shlex.split(command) == [*start, *rest]


def test_suite_runs_its_jobs(tmp_path: Path, small: list[str], capsys) -> None:
    words = ["suite", "classic", "--tasks", "CartPole-v1", "--seeds", "5", "-f", str(tmp_path)]
    assert main([*words, "--", "-n", "60", "--eval-freq", "-1", *small]) == 0
    assert "finished CartPole-v1-seed5" in capsys.readouterr().out
    assert main(words) == 0
    assert "1 job, 1 already done" in capsys.readouterr().out


def test_suite_says_why_a_job_failed(tmp_path: Path, capsys) -> None:
    """The error of a training is quoted, and the job is failed, not new."""
    words = ["suite", "classic", "--tasks", "CartPole-v1", "-f", str(tmp_path)]
    assert main([*words, "--", "--hyperparams", "model_size:debgu"]) == 1
    out, err = capsys.readouterr()
    assert "model_size='debgu' is unknown (did you mean 'debug'?)" in out and out.strip().endswith("1 failed")
    assert "1 of 1 job did not finish" in err


def test_images_in_a_dict_are_those_that_were_trained_on(tmp_path: Path) -> None:
    from gymnasium import spaces

    from sb3_dreamer.zoo.config.errors import UsageError
    from sb3_dreamer.zoo.runs.agents import check_spaces

    last, first = (spaces.Box(0, 255, shape, np.uint8) for shape in ((16, 24, 3), (3, 16, 24)))
    box, act = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)
    model = types.SimpleNamespace(observation_space=spaces.Dict(image=first, state=box), action_space=act)
    check_spaces(
        model, types.SimpleNamespace(observation_space=spaces.Dict(image=last, state=box), action_space=act), tmp_path
    )
    check_spaces(model, model, tmp_path)
    with pytest.raises(UsageError, match="was trained with observation_space"):
        other = spaces.Dict(image=last, state=spaces.Box(-1, 1, (3,)))
        check_spaces(model, types.SimpleNamespace(observation_space=other, action_space=act), tmp_path)


def test_the_width_of_help_is_that_of_the_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["plot", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60


def test_runs_of_a_suite_are_found_together(tmp_path: Path, small: list[str], capsys) -> None:
    """The latest run of each job, and what was trained with other flags than those of the last command."""
    words, board = ["suite", "classic", "--tasks", "CartPole-v1", "-f", str(tmp_path)], tmp_path / "board"
    flags = ["-n", "60", "--eval-freq", "-1", "-tb", str(board), *small]
    assert main([*words, "--seeds", "5", "10", "--", *flags]) == 0
    assert sorted(path.parent for path in board.rglob("events*")) == [
        board / f"CartPole-v1-seed{seed}/dreamerv3/CartPole-v1_1" for seed in (10, 5)
    ]
    folders = [tmp_path / f"CartPole-v1-seed{seed}/dreamerv3/CartPole-v1_1" for seed in (5, 10)]
    assert run_folder.find_all(tmp_path, "dreamerv3", "CartPole-v1") == [
        run_folder.RunFolder(path, "CartPole-v1") for path in folders
    ]
    capsys.readouterr()
    assert main([*words, "--seeds", "5", "--", "-n", "80"]) == 0
    out = capsys.readouterr().out
    assert "1 job began with other flags after --" in out and "-n 60" in out and "1 job, 1 already done" in out
    assert main(["list", "--runs", "-f", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("-seed") == 2
    assert main(["plot", "-f", str(tmp_path), "-o", str(tmp_path / "x.png")]) == 0
    assert main(["evaluate", "-f", str(tmp_path), "--all-runs", "-n", "1", "-o", str(tmp_path / "x.json")]) == 0
    out = capsys.readouterr().out
    assert "CartPole-v1-seed5/" in out and "over 1 episode " in out
    assert len(json.loads((tmp_path / "x.json").read_text())["runs"]) == 2


def test_evaluate_takes_each_run_once(logs: Path, capsys) -> None:
    shutil.copytree(logs / "dreamerv3/CartPole-v1_1", logs / "dreamerv3/CartPole-v1_2")
    (logs / "dreamerv3/CartPole-v1_2/best_model.zip").unlink()
    words = ["evaluate", "-f", str(logs), "-n", "1"]
    assert main([*words, "--exp-ids", "1", "1", "2"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert main([*words, "--all-runs", "--load-best"]) == 0
    out = capsys.readouterr().out
    assert "Left out" in out and "CartPole-v1_2 has no best_model.zip" in out and "2 runs" not in out
    (logs / "dreamerv3/CartPole-v1_2/CartPole-v1.zip").unlink()
    assert main(words) == 2
    assert "--load-last-checkpoint takes its newest checkpoint" in capsys.readouterr().err


def test_the_reward_log_has_times(logs: Path, tmp_path: Path) -> None:
    words = ["enjoy", "-f", str(logs), "--no-render", "--n-episodes", "3", "--reward-log", str(tmp_path / "log")]
    assert main(words) == 0
    rows = list(csv.DictReader((tmp_path / "log/0.monitor.csv").read_text().splitlines()[1:]))
    times = [float(row["t"]) for row in rows]
    assert len(times) == 3 and 0 < times[0] < times[1] < times[2]


def test_a_curve_of_one_point_is_seen_and_one_without_is_named(logs: Path, tmp_path: Path, capsys) -> None:
    import matplotlib.pyplot as plt

    from sb3_dreamer.zoo.programs import plot

    _, axis = plt.subplots()
    point = curves.Curve(np.array([5.0]), np.array([1.0]), 0)
    assert plot.draw_runs(axis, [point], "x", "C0") == 1 and plot.draw_runs(axis, [point, point], "x", "C0") == 2
    assert [line.get_marker() for line in axis.lines] == ["o", "o"]
    run_folder.RunFolder(logs / "dreamerv3/CartPole-v1_2", "CartPole-v1").write_config({"hyperparams": {}})
    assert main(["plot", "-f", str(logs), "-o", str(tmp_path / "x.png")]) == 0
    out = capsys.readouterr().out
    assert f"Left out: {logs}/dreamerv3/CartPole-v1_2 (no finished episode yet)" in out


def test_a_plot_that_ends_before_its_curves_is_refused(logs: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "x.png"
    for more in ([], ["--source", "eval"]):
        assert main(["plot", "-f", str(logs), "-o", str(output), "-max", "5", *more]) == 2
        out, err = capsys.readouterr()
        assert re.search(r"Left out: \S*CartPole-v1_1 \(begins at \d+, after -max 5\)", out)
        assert "nothing is left to plot" in err and "before -max 5" in err and not output.exists()
    assert main(["plot", "-f", str(logs), "-o", str(output), "-max", "150"]) == 0 and output.exists()


BROKEN = {  # file of a run: what is left of it
    "evaluations.npz": [b"", b"PK", b"\x93NUMPY"],
    "0.monitor.csv": [b"\xff", b"{}\nr,l,t\n1,x,2\n", b"{}\nr,l,t\n1,\0,2\n"],
    "CartPole-v1/config.yml": [b"env: [", b"hyperparams: 3", b"hyperparams: {}\nn_timesteps: many"],
    "CartPole-v1.zip": [b"", b"PK"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_leaves_out_its_run_alone(name: str, logs: Path, tmp_path: Path, capsys) -> None:
    """Programs over all runs name it and do the rest; without another run, that is an error of one line."""
    import matplotlib.pyplot as plt

    good, bad = (logs / "dreamerv3" / f"CartPole-v1_{number}" for number in (2, 1))
    shutil.copytree(bad, good)
    programs = {
        "evaluations.npz": [["list", "--runs"], ["plot", "--source", "eval"]],
        "0.monitor.csv": [["plot"]],
        "CartPole-v1/config.yml": [["list", "--runs"], ["plot"], ["evaluate", "--all-runs", "-n", "1"]],
        "CartPole-v1.zip": [["evaluate", "--exp-ids", "1", "2", "-n", "1"]],
    }[name]
    whole = (bad / name).read_bytes()
    for content in [*BROKEN[name], whole[: len(whole) // 2]]:
        (bad / name).write_bytes(content)
        for program, *more in programs:
            output = ["-o", str(tmp_path / "x.png")] if program == "plot" else []
            assert main([program, "-f", str(logs), *more, *output]) == 0
            out, err = capsys.readouterr()
            if content not in whole or name.endswith((".npz", ".zip")):  # else what is left is a whole file
                assert out.count("Left out: ") == 1 and str(bad / name) in out and err == "", content
            assert program == "plot" or "CartPole-v1_2" in out
        assert main(["list", "--runs", "-f", str(logs)]) == 0  # whichever file it is
        capsys.readouterr()
        plt.close("all")
    (bad / name).write_bytes(BROKEN[name][0])
    shutil.rmtree(good)
    for program, *more in programs:
        flags = {"plot": [*more, "-o", str(tmp_path / "y.png")], "evaluate": []}.get(program, more)
        assert main([program, "-f", str(logs), *flags]) == 2
        assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "y.png").exists()


def test_a_job_with_damaged_settings_does_not_stop_its_suite(logs: Path, tmp_path: Path, capsys) -> None:
    job = tmp_path / "S/CartPole-v1-seed0"
    shutil.copytree(logs, job)
    (job / "dreamerv3/CartPole-v1_1/CartPole-v1/config.yml").write_text("env: [")
    assert main(["suite", "classic", "--tasks", "CartPole-v1", "-f", str(job.parent), "--status"]) == 0
    assert capsys.readouterr().out == "1 stopped\n"


def test_record_video_of_some_steps_gives_no_advice(logs: Path, tmp_path: Path, capsys) -> None:
    assert main(["record_video", "-f", str(logs), "-n", "2", "-o", str(tmp_path), "--gif"]) == 0
    assert "No episode" not in capsys.readouterr().out
