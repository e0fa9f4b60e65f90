"""The program behind the learning results: resumable, strict about settings, and a task that can be solved."""

import json

import gymnasium as gym
import numpy as np
import pytest

from sb3_dreamer.wrappers import make_env
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.studies.learning_check import main, make_envs, make_model


def test_pixel_catch_is_won_by_following_the_ball() -> None:
    env = make_env("sb3_dreamer.wrappers.benchmarks.pixel_catch:PixelCatch-v0")
    returns = []
    for seed in range(20):
        image, _ = env.reset(seed=seed)
        done, total = False, 0.0
        while not done:
            assert env.observation_space.contains(image)
            board = image[::2, ::2, 0]
            ball, paddle = int(np.argmax(board[:-1].max(0))), int(np.flatnonzero(board[-1] == 128)[0])
            image, reward, done, _, _ = env.step(1 + np.sign(ball - paddle))
            total += float(reward)
        returns.append(total)
    assert returns == [1.0] * 20
    env.reset(seed=0)
    lost = sum(float(env.step(0)[1]) for _ in range(7))
    assert lost in (-1.0, 1.0)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'dreamerv2'"):
        main(["--algo", "dreamer2"])


def test_a_check_is_resumed_and_refuses_other_settings(tmp_path, capsys) -> None:
    arguments = ["--algo", "DreamerV2", "--env", "CartPole-v1", "--steps", "60", "--eval-every", "30"]
    arguments += ["--eval-episodes", "1", "--final-episodes", "2", "--goal", "1000", "--name", "x"]
    arguments += ["--out", str(tmp_path), "--plot", str(tmp_path / "x.png")]
    params = ["-params", "model_size:debug", "learning_starts:20", "batch_size:2", "batch_length:8", "train_ratio:2"]
    assert main([*arguments, "--seeds", "0", *params]) == 1  # nobody reaches 1000
    first = json.loads((tmp_path / "x.json").read_text())
    run = first["runs"]["0"]
    assert (run["steps"], run["updates"], len(run["final_returns"])) == (60, 5, 2)
    assert [step for step, _, _ in run["evaluations"]] == [30, 60]
    assert sum(length for _, length in run["episodes"]) <= 60  # CartPole pays 1 a step
    assert main([*arguments, "--seeds", "0", "1", *params]) == 1
    second = json.loads((tmp_path / "x.json").read_text())
    assert list(second["runs"]) == ["0", "1"] and second["runs"]["0"] == run
    assert "--seeds 0 1" in second["command"] and (tmp_path / "x.png").stat().st_size > 5000
    with pytest.raises(UsageError, match="other steps"):
        main([*arguments[:4], "--steps", "61", *arguments[6:], "--seeds", "0", *params])
    assert "seed 1, step 30" in capsys.readouterr().out


def test_a_goal_ends_the_training(tmp_path) -> None:
    arguments = ["--algo", "DreamerV2", "--steps", "500", "--eval-every", "25", "--eval-episodes", "1", "--goal", "1"]
    arguments += ["--final-episodes", "1", "--name", "x", "--out", str(tmp_path), "--plot", str(tmp_path / "x.png")]
    assert main([*arguments, "-params", "model_size:debug", "train_ratio:0"]) == 0
    run = json.loads((tmp_path / "x.json").read_text())["runs"]["0"]
    assert (run["steps"], run["stopped"]) == (25, "goal reached")


WRAPPER = (
    "[{gymnasium.wrappers.RescaleObservation: {min_obs: [-48.0, -.inf, -6.2831855, -.inf], "
    "max_obs: [48.0, .inf, 6.2831855, .inf]}}]"
)


def test_wrappers_are_written_as_in_the_files_and_leave_returns_alone() -> None:
    plain = {"env": "CartPole-v1", "env_kwargs": {}, "env_wrapper": None}
    raw, scaled = make_envs(plain, 2, 3), make_envs(plain | {"env_wrapper": WRAPPER}, 2, 3)
    np.testing.assert_allclose(scaled.reset(), raw.reset() * [10, 1, 15, 1], rtol=1e-5)
    halved = make_envs(plain | {"env_wrapper": "tests.zoo.studies.test_learning_check.Halved"}, 1, 3)
    halved.reset()
    done = False
    total = length = 0.0
    while not done:
        _, reward, (done,), (info,) = halved.step([0])
        total, length = total + float(reward[0]), length + 1
    assert info["episode"]["r"] == length == 2 * total
    for text, message in (("[a", "not plain YAML"), ("gymnasium.Nothing", "no such class"), ("math.pi", "not a gym")):
        with pytest.raises(UsageError, match=message):
            make_envs(plain | {"env_wrapper": text}, 1, 0)


class Halved(gym.RewardWrapper):
    """Halves rewards."""

    def reward(self, reward):
        """See the class."""
        return 0.5 * reward


def test_schedules_and_wrappers_are_used_and_recorded(tmp_path) -> None:
    arguments = ["--algo", "DreamerV2", "--steps", "40", "--eval-every", "0", "--final-episodes", "1", "--name", "x"]
    arguments += ["--out", str(tmp_path), "--plot", str(tmp_path / "x.png"), "--env-wrapper", WRAPPER]
    assert main([*arguments, "-params", "model_size:debug", "train_ratio:0", "learning_rate:lin_0.002"]) == 0
    settings = json.loads((tmp_path / "x.json").read_text())["settings"]
    assert settings["env_wrapper"] == WRAPPER and settings["params"]["learning_rate"] == "lin_0.002"
    env = make_envs(settings, 1, 0)
    model = make_model(settings, env, 0)
    assert [model.learning_rate(remaining) for remaining in (1.0, 0.5, 0.0)] == pytest.approx([0.002, 0.001, 0.0])
    with pytest.raises(UsageError, match="did you mean 'train_ratio'"):
        make_model(settings | {"params": {"train_ration": 1}}, env, 0)
