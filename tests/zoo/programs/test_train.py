"""``train`` and ``enjoy`` from the command line to the files."""

import csv
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

from sb3_dreamer import DreamerV3
from sb3_dreamer.zoo.config import building
from sb3_dreamer.zoo.config.plan import Plan
from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.programs.tables import evaluation_in_words
from sb3_dreamer.zoo.runs import curves, run_folder
from tests.algorithms import equal, weights

ROOT = Path(__file__).resolve().parents[3]


def run_of(logs: Path, number: int = 1) -> run_folder.RunFolder:
    return run_folder.find(logs, "dreamerv3", "CartPole-v1", number)


def test_all_files_of_a_run_are_written(logs: Path) -> None:
    run = run_of(logs)
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    expected = {
        "CartPole-v1.zip", "best_model.zip", "rl_model_100_steps.zip", "rl_model_replay_buffer_100_steps.safetensors",
        "rl_model_200_steps.zip", "rl_model_replay_buffer_200_steps.safetensors", "replay_buffer.safetensors",
        "evaluations.npz", "0.monitor.csv", "progress.csv", "final_evaluation.csv",
        "CartPole-v1/config.yml", "CartPole-v1/args.yml", "CartPole-v1/command.txt", "CartPole-v1/system.yml",
    }  # fmt: skip
    assert expected <= names
    assert any(name.startswith("tensorboard/events") for name in names)


def test_what_the_files_say(logs: Path) -> None:
    run = run_of(logs)
    config = yaml.safe_load(run.config.read_text())
    assert config["n_timesteps"] == 200 and config["seed"] == 3 and config["env"] == "CartPole-v1"
    assert config["hyperparams"]["model_size"] == "debug" and config["hyperparams"]["train_ratio"] == 1
    system = yaml.safe_load((run.settings / "system.yml").read_text())
    assert system["packages"]["sb3-dreamer"]
    evaluations = np.load(run.path / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [100, 200] and evaluations["results"].shape == (2, 2)
    lines = (run.path / "0.monitor.csv").read_text().splitlines()
    episodes = list(csv.DictReader(lines[1:]))
    steps = [int(row["timesteps"]) for row in episodes]
    assert steps == list(np.cumsum([int(row["l"]) for row in episodes])) and steps[-1] <= 200
    assert [float(row["r"]) for row in episodes] == [float(row["l"]) for row in episodes]  # CartPole: 1 per step
    assert len((run.path / "final_evaluation.csv").read_text().splitlines()) == 3
    log = list(csv.DictReader((run.path / "progress.csv").read_text().splitlines()))
    assert {"train/n_updates", "rollout/ep_rew_mean", "eval/mean_reward"} <= set(log[0])


def test_table_names_everything_before_training(tmp_path: Path, small: list[str], capsys) -> None:
    assert main(["train", "-n", "60", "-f", str(tmp_path / "logs"), "--eval-freq", "-1", *small]) == 0
    out = capsys.readouterr().out
    table = out[: out.index("trained")]
    for part in ("CartPole-v1", "observation", "MLP", "parameters", "updates", "GiB", "seed", "60 agent steps"):
        assert part in table
    assert re.search(r"train_ratio \d+ -> 1 ", table) and "fewer updates" in table
    assert re.search(r"final evaluation .* over 2 episodes", out) and "sb3-dreamer enjoy" in out
    assert not (tmp_path / "logs/dreamerv3/CartPole-v1_1/best_model.zip").exists()


def test_what_the_table_says_of_evaluations() -> None:
    plan = Plan("planet", "CartPole-v1", "CartPole-v1", "", 100, 0, {}, eval_freq=50, eval_episodes=3)
    words = lambda limited=True, **changes: evaluation_in_words(replace(plan, **changes), limited)  # noqa: E731
    solved = "; a return of 485, twice in a row, ends the training"
    assert words(stop_at_return=485.0) == f"3 episodes every 50 steps, 3 at the end{solved}"
    assert words(eval_freq=-1, stop_at_return=485.0) == "not during training, 3 at the end", "nothing ends it early"
    assert words(eval_freq=-1, final_eval_episodes=0, eval_share=0.2) == "none"
    assert words(final_eval_episodes=0, eval_share=0.2).endswith(
        "none at the end; at most 20% as many steps as training"
    )
    assert words(False).endswith("episodes end after 10,000 steps, as the task has no time limit")


def test_evaluation_ends_where_the_policy_never_does(tmp_path: Path, small: list[str], capsys, monkeypatch) -> None:
    class Stays(gym.Env):
        """Ends by action 0 alone, which a policy may never take."""

        observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

        def __init__(self, render_mode=None):
            self.render_mode = render_mode

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 1.0, bool(action == 0) and self.np_random.random() < 0.3, False, {}

    monkeypatch.setattr(building, "EVAL_LIMIT", 7)
    gym.register("Stays-v0", Stays)
    try:
        words = ["--env", "Stays-v0", "--eval-freq", "30", "--eval-episodes", "2"]
        assert main(["train", "-n", "60", "-f", str(tmp_path), *small, *words]) == 0
    finally:
        gym.registry.pop("Stays-v0")
    assert "no time limit" in words_of(capsys.readouterr().out)
    lengths = [row.split(",")[1] for row in next(tmp_path.rglob("final_evaluation.csv")).read_text().split()[1:]]
    assert len(lengths) == 2 and all(int(length) <= 7 for length in lengths)


def test_files_of_settings_that_would_not_be_read(logs: Path, tmp_path: Path, capsys) -> None:
    run = run_of(logs)
    own = tmp_path / "own.yml"
    own.write_text("CartPole-v1: {train_ratio: 1}\n")
    for words, message in (
        (["--config", str(run.config), "--env", "Acrobot-v1"], "--env Acrobot-v1: --config"),
        (["-i", str(run.model), "--conf-file", str(own), "-n", "5"], "--conf-file and -i"),
        (["-i", str(run.model), "--config", str(own), "-n", "5"], "--config and -i"),
    ):
        assert main(["train", "-f", str(tmp_path / "new"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_progress_bar_in_a_file(tmp_path: Path, small: list[str]) -> None:
    words = [sys.executable, "-m", "sb3_dreamer.zoo", "train", "-n", "80", "-f", str(tmp_path), "-P", *small]
    out = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300).stdout
    assert "\x1b[" in out and "80/80" in out, "drawn as on a terminal"


def test_frames_count_the_repeats_of_wrappers(tmp_path: Path, small: list[str], capsys) -> None:
    wrapper = "env_wrapper:[{'sb3_dreamer.wrappers.ActionRepeat': {'amount': 3}}]"
    words = [small[0], wrapper, *small[1:], "--eval-freq", "30"]
    assert main(["train", "-n", "60", "-f", str(tmp_path / "logs"), *words]) == 0
    assert "60 agent steps = 180 environment frames (action repeat 3)" in " ".join(capsys.readouterr().out.split())
    run = run_of(tmp_path / "logs")
    episodes = list(csv.DictReader((run.path / "0.monitor.csv").read_text().splitlines()[1:]))
    assert all(int(row["frames"]) == 3 * int(row["timesteps"]) for row in episodes) and episodes
    curve = curves.evaluation_curve(run, "frames", "reward")
    assert curve is not None and curve.x.tolist() == [90, 180]


def test_continue_goes_on_counting_with_the_replay(logs: Path, small: list[str], capsys) -> None:
    model = str(run_of(logs).model)
    words = ["train", "-f", str(logs), "--eval-freq", "-1", "--final-eval-episodes", "1", "-i", model]
    assert main(words) == 2  # all of its steps are done
    assert "add -n STEPS" in capsys.readouterr().err
    assert main([*words, "-n", "100"]) == 0
    out = capsys.readouterr().out
    assert "200 of them done" in out and "replay_buffer.safetensors" in out
    assert re.search(r"training +│ 100 steps in .* \(300 in all\)", out)
    continued = DreamerV3.load(run_of(logs, 2).model)
    before = DreamerV3.load(model)
    assert continued.num_timesteps == 300 and continued._n_updates == before._n_updates + 6
    assert continued.train_ratio == 1  # kept, without repeating the flags


def test_best_model_has_no_replay_and_says_so(logs: Path, capsys) -> None:
    words = ["-n", "80", "-f", str(logs), "--eval-freq", "-1", "--final-eval-episodes", "0"]
    before = DreamerV3.load(run_of(logs).best_model)
    assert main(["train", "-i", str(run_of(logs).best_model), *words]) == 0
    out = " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())
    assert "starts empty, with 40 steps before the next update" in out
    last = max(
        logs.glob("dreamerv3/CartPole-v1_*/CartPole-v1.zip"), key=lambda path: int(path.parent.name.split("_")[1])
    )
    after = DreamerV3.load(last)
    assert after.learning_starts == before.learning_starts and after._n_updates > before._n_updates


def test_config_repeats_a_run(logs: Path, tmp_path: Path) -> None:
    first = run_of(logs)
    words = ["--save-freq", "100", "--save-replay-buffer"]
    assert main(["train", "--config", str(first.config), "-f", str(tmp_path / "again"), *words]) == 0
    second = run_of(tmp_path / "again")
    configs = [yaml.safe_load(run.config.read_text()) for run in (first, second)]
    assert configs[0] == configs[1]
    for name in ("final_evaluation.csv", "evaluations.npz"):
        if name.endswith("npz"):
            results = [np.load(run.path / name)["results"].tolist() for run in (first, second)]
        else:
            results = [(run.path / name).read_text() for run in (first, second)]
        assert results[0] == results[1]


def test_enjoy(logs: Path, tmp_path: Path, capsys) -> None:
    words = ["enjoy", "-f", str(logs), "--no-render"]
    assert main([*words, "--n-episodes", "3", "--n-envs", "2", "--reward-log", str(tmp_path / "rewards")]) == 0
    out = capsys.readouterr().out
    found = [(float(r), int(length)) for r, length in re.findall(r"Episode \d+: return ([\d.]+), length (\d+)", out)]
    assert len(found) == 3 and all(r == length for r, length in found)
    mean = float(re.search(r"Mean return ([\d.]+)", out)[1])
    assert mean == pytest.approx(np.mean([r for r, _ in found]), abs=0.01)
    assert (tmp_path / "rewards/0.monitor.csv").exists()
    for flags in (["--load-best"], ["--load-checkpoint", "100"], ["--load-last-checkpoint"], ["--stochastic"]):
        assert main([*words, "-n", "50", *flags]) == 0


def test_enjoy_repeats_itself_with_a_seed(logs: Path, capsys) -> None:
    outputs = []
    for _ in range(2):
        assert main(["enjoy", "-f", str(logs), "--no-render", "-n", "60", "--seed", "5", "--stochastic"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "Episode 2" in outputs[0]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to another process on Windows")
def test_ctrl_c_saves_and_the_printed_command_continues(tmp_path: Path, small: list[str]) -> None:
    flags = ["--eval-freq", "-1", "--save-freq", "-1"]
    words = [sys.executable, "zoo/train.py", "-n", "100000", "-f", str(tmp_path), *small, *flags]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    monitor = tmp_path / "dreamerv3/CartPole-v1_1/0.monitor.csv"
    deadline = time.monotonic() + 120
    while not (monitor.exists() and len(monitor.read_text().splitlines()) > 6) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    folder = monitor.parent
    assert (folder / "CartPole-v1.zip").exists() and (folder / "replay_buffer.safetensors").exists()
    steps = DreamerV3.load(folder / "CartPole-v1.zip").num_timesteps
    assert 40 < steps < 100_000 and f"Stopped at step {steps:,}" in out
    command = shlex.split(out.strip().splitlines()[-1])
    assert command[:2] == ["python", "zoo/train.py"]
    assert main(["train", *command[2:], "-n", "20", "--final-eval-episodes", "0"]) == 0
    assert DreamerV3.load(tmp_path / "dreamerv3/CartPole-v1_2/CartPole-v1.zip").num_timesteps == steps + 20


def test_evaluation_takes_at_most_a_fifth_of_the_steps(tmp_path: Path, small: list[str], capsys) -> None:
    """Short episodes are evaluated as often as that allows; where one is too long, the command says how to do it."""
    words = ["train", "-n", "300", "-f", str(tmp_path), *small[:-2]]
    assert main([*words, "--env", "FrozenLake-v1", "--env-kwargs", "max_episode_steps:8"]) == 0
    folder = tmp_path / "dreamerv3/FrozenLake-v1_1"
    lengths = [int(line.split(",")[1]) for line in (folder / "final_evaluation.csv").read_text().splitlines()[1:]]
    during = np.load(folder / "evaluations.npz")["ep_lengths"].sum() if (folder / "evaluations.npz").exists() else 0
    assert lengths and during + sum(lengths) <= 60 * 1.5  # the mean length is an estimate
    (tmp_path / "own.yml").write_text("Acrobot-v1: {policy: auto}")
    assert main([*words, "--env", "Acrobot-v1", "--conf-file", str(tmp_path / "own.yml")]) == 0
    out = " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())
    assert "left out: it would take more than 20% as many steps as training" in out and "sb3-dreamer evaluate" in out
    assert not (tmp_path / "dreamerv3/Acrobot-v1_1/final_evaluation.csv").exists()


def test_ctrl_c_ends_the_last_evaluation_only(tmp_path: Path, small: list[str], capsys, monkeypatch) -> None:
    from sb3_dreamer.zoo.programs import train

    def stopped(*args, **kwargs):
        yield train.Episode(0, 7.0, 7)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "play", stopped)
    assert main(["train", "-n", "60", "-f", str(tmp_path), "--eval-freq", "-1", *small]) == 0
    assert "7.0 +- 0.0 over 1 episode, stopped" in capsys.readouterr().out
    assert (tmp_path / "dreamerv3/CartPole-v1_1/final_evaluation.csv").read_text() == "r,l\n7.0,7\n"


def test_a_run_can_be_resumed_without_asking_for_it(tmp_path: Path, small: list[str], capsys) -> None:
    """Checkpoints are on by default; model files at every checkpoint are not."""
    assert main(["train", "-n", "60", "-f", str(tmp_path), "--eval-freq", "-1", *small]) == 0
    run = run_of(tmp_path)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] and not list(run.path.glob("rl_model*"))
    assert "checkpoints at the end; the newest 2 stay" in " ".join(
        re.sub(r"[│\n]", " ", capsys.readouterr().out).split()
    )
    assert main(["train", "-i", str(run.path), "-n", "20", "--final-eval-episodes", "0"]) == 0
    assert DreamerV3.load(run.model).num_timesteps == 80
    assert main(["enjoy", "-f", str(tmp_path), "--no-render", "-n", "20", "--load-last-checkpoint"]) == 0
    assert "step_80/model.zip: trained for 80 steps" in capsys.readouterr().out
    assert main(["enjoy", "-f", str(tmp_path), "--no-render", "--load-checkpoint", "5"]) == 2
    assert "has no checkpoint after 5 steps: it has those after 60, 80 steps" in capsys.readouterr().err


def test_model_files_are_pruned(tmp_path: Path, small: list[str]) -> None:
    words = ["-n", "140", "--save-freq", "10", "--save-replay-buffer", "--eval-freq", "-1"]
    assert main(["train", "-f", str(tmp_path), *words, *small]) == 0
    run = run_of(tmp_path)
    steps = sorted(int(path.stem.split("_")[2]) for path in run.path.glob("rl_model_*_steps.zip"))
    assert steps == list(range(50, 150, 10)) and len(list(run.path.glob("rl_model_replay_buffer_*"))) == 2


def test_the_printed_command_has_what_it_needs(tmp_path: Path, small: list[str], capsys) -> None:
    words = ["train", "-n", "60", "-f", str(tmp_path), "--eval-freq", "-1", "--gym-packages", "json", *small]
    assert main([*words, "--log-interval", "-2", "--truncate-last-trajectory", "False"]) == 0
    out = " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())
    assert f"--env CartPole-v1 -f {tmp_path} --gym-packages json" in out.replace(" /", "/").replace("-f/", "-f /")
    assert not (run_of(tmp_path).path / "progress.csv").read_text()


def test_a_folder_of_rl_zoo3(logs: Path, tmp_path: Path, capsys) -> None:
    """As rl_zoo3 writes it: ordered mappings, its name for the replay, and plain monitor files."""
    run = run_of(logs)
    tag = "!!python/object/apply:collections.OrderedDict\n"
    config = yaml.safe_load(run.config.read_text())
    values = config["hyperparams"] | {"n_timesteps": 2e4, "policy": "auto", "env_wrapper": config["env_wrapper"]}
    run.config.write_text(tag + yaml.safe_dump([[list(pair) for pair in values.items()]]))
    flags = [["algo", "dreamerv3"], ["env", "CartPole-v1"], ["env_kwargs", config["env_kwargs"]], ["seed", 3]]
    (run.settings / "args.yml").write_text(tag + yaml.safe_dump([flags]))
    run.replay.rename(run.replay.with_suffix(".pkl"))
    rows = [line.split(",")[:3] for line in (run.path / "0.monitor.csv").read_text().splitlines()[1:]]
    (run.path / "0.monitor.csv").write_text("#{}\n" + "\n".join(map(",".join, rows)) + "\n")
    assert main(["enjoy", "-f", str(logs), "--no-render", "-n", "30"]) == 0
    assert main(["plot", "-f", str(logs), "-o", str(tmp_path / "x.png")]) == 0
    assert main(["list", "--runs", "-f", str(logs)]) == 0
    assert "200 of 20,000" in capsys.readouterr().out
    words = ["train", "-n", "20", "-f", str(tmp_path), "--final-eval-episodes", "0", "-i", str(run.model)]
    assert main(words) == 0
    assert "replay_buffer.pkl" in "".join(re.sub(r"[│\n ]", "", capsys.readouterr().out))
    run.config.write_text("!!python/object/apply:os.getcwd []")
    with pytest.warns(UserWarning, match="the settings beside .* are not used"):
        assert main(words) == 0


def test_a_run_without_an_update_says_so(tmp_path: Path, small: list[str], capsys) -> None:
    words = ["train", "-n", "60", "-f", str(tmp_path), "--eval-freq", "-1", *small, "--final-eval-episodes", "0"]
    assert main([*words, "--hyperparams", "batch_length:500"]) == 0
    out = capsys.readouterr().out
    assert "none: the run was too short for one (learning_starts=40," in out
    assert "60 steps without any update (learning_starts=40, batch_length=500)" in out.split("trained")[0]


def test_a_resumed_run_without_an_update_says_so(logs: Path, capsys) -> None:
    """Whatever updates the model had before."""
    words = ["-n", "30", "-f", str(logs), "--eval-freq", "-1", "--final-eval-episodes", "0"]
    assert main(["train", "-i", str(run_of(logs).best_model), *words]) == 0
    out = words_of(capsys.readouterr().out)
    assert "30 steps without any update" in out and "none: the run was too short for one" in out


def words_of(out: str) -> str:
    """What was printed, without the table's lines and line breaks."""
    return " ".join(re.sub(r"[│\n]", " ", out).split())


def test_the_folders_named_are_those_made(tmp_path: Path, small: list[str], capsys) -> None:
    words = ["train", "-n", "60", "--eval-freq", "-1", *small, "--final-eval-episodes", "0", "-f", str(tmp_path)]
    assert main([*words, "-uuid", "-tb", str(tmp_path / "board")]) == 0
    out = re.sub(r"[│\n ]", "", capsys.readouterr().out)
    [run] = (tmp_path / "dreamerv3").iterdir()
    assert out.count(f"folder{run}") == 1 and f"0.monitor.csv;{tmp_path}/board/dreamerv3/{run.name}" in out
    assert "tensorboard/" not in out and list((tmp_path / "board/dreamerv3" / run.name).iterdir())
    assert main([*words[:-1], str(tmp_path / "other"), "-tb", __file__]) == 2
    assert "--tensorboard-log" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_a_run_resumes_in_its_folder_and_environment(logs: Path, tmp_path: Path, capsys) -> None:
    run = str(run_of(logs).path)
    assert main(["train", "-i", run, "-n", "10", "-f", str(tmp_path / "other")]) == 2
    assert f"a run resumes in its own folder, {run}; leave it out" in capsys.readouterr().err
    assert main(["train", "-i", run, "-n", "10", "--env", "Acrobot-v1"]) == 2
    assert "a run resumes in its own environment, CartPole-v1; leave --env out" in capsys.readouterr().err
    assert main(["train", "-i", f"{run}/CartPole-v1.zip", "-n", "10", "--env", "Acrobot-v1", "-f", str(tmp_path)]) == 2
    assert "its spaces are not those of" in capsys.readouterr().err


def test_a_full_disk_at_the_end_says_how_to_go_on(tmp_path: Path, small: list[str], monkeypatch, capsys) -> None:
    """The agent is evaluated all the same, and the command that is named ends the run, whose steps are all done."""

    save = DreamerV3.save

    def full(self, path, *args, **kwargs) -> None:
        if Path(path).name == "CartPole-v1.zip":
            raise OSError(28, "No space left on device")
        save(self, path, *args, **kwargs)

    words = ["train", "-n", "60", "--eval-freq", "-1", "-f", str(tmp_path), *small]
    with monkeypatch.context() as patch:
        patch.setattr(DreamerV3, "save", full)
        assert main(words) == 1
    captured = capsys.readouterr()
    assert "over 2 episodes" in captured.out and "not saved" in words_of(captured.out)
    command = f"train -i {tmp_path / 'dreamerv3/CartPole-v1_1'}"
    error = captured.err.strip().splitlines()[-1]
    assert "No space left" in error and "free space, then" in error and f"{command}` resumes from step 60" in error
    run = tmp_path / "dreamerv3/CartPole-v1_1"
    assert main(["train", "-i", str(run)]) == 0
    out = words_of(capsys.readouterr().out)
    assert "60 agent steps, 60 of them done" in out and "over 2 episodes" in out and "too short" not in out
    models = [DreamerV3.load(path) for path in (run / "CartPole-v1.zip", *run.glob("checkpoints/*/model.zip"))]
    assert len(models) == 2 and equal(*map(weights, models))


def test_values_for_the_other_version_are_left_out(tmp_path: Path, small: list[str], recwarn) -> None:
    """classic.yml has warmup_updates, which the 2023 sizes do not use; one that is passed is a warning."""
    words = ["train", "-n", "60", "--eval-freq", "-1", "-f", str(tmp_path), *small, "--final-eval-episodes", "0"]
    assert main(words) == 0
    assert not [warning for warning in recwarn if "no effect" in str(warning.message)]
    assert "warmup_updates" not in yaml.safe_load(run_of(tmp_path).config.read_text())["hyperparams"]
    with pytest.warns(UserWarning, match="no effect: warmup_updates=9"):
        assert main([*words, "--hyperparams", "warmup_updates:9"]) == 0
