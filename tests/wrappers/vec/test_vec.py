"""Worker processes: equality with DummyVecEnv, tracebacks, replacement of dead workers, seeds."""

import functools
import multiprocessing as mp
import subprocess
import sys
import time
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.registration import EnvSpec

from sb3_dreamer.wrappers import ActionRepeat, RestartingVecEnv, SquashReward, WorkerError, make_vec_env
from sb3_dreamer.wrappers.vec.make import is_slow
from tests.wrappers.vec.failing_envs import Failing, FailingReset, broken, deprecated
from tests.wrappers.vec.failing_envs import plain as make_plain

PLAIN = functools.partial(make_plain)  # a partial travels without SB3 and torch, whose import takes the workers seconds

stable_baselines3 = pytest.importorskip("stable_baselines3")
DummyVecEnv = stable_baselines3.common.vec_env.DummyVecEnv


@pytest.fixture
def vec(request):
    """Make vector environments that are closed after the test."""
    made = []

    def make(makers, **kwargs):
        made.append(RestartingVecEnv(makers, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def rollout(env, steps=60):
    env.action_space.seed(0)
    trace = [env.reset().copy()]
    for _ in range(steps):
        obs, rewards, dones, infos = env.step(np.array([env.action_space.sample() for _ in range(env.num_envs)]))
        ends = [info.get("terminal_observation") for info in infos]
        trace += [obs.copy(), rewards.copy(), dones.copy(), np.array([-9.0 if end is None else end[0] for end in ends])]
        trace.append(np.array([info["TimeLimit.truncated"] for info in infos]))
    return trace


def test_equals_dummy_vec_env(vec):
    ours, dummy = vec([PLAIN] * 3), DummyVecEnv([PLAIN] * 3)
    ours.seed(5)
    dummy.seed(5)
    pairs = list(zip(rollout(ours), rollout(dummy), strict=True))
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)
    assert any(dones.any() for dones, _ in pairs[3::5])


def test_seeds_are_distinct_and_reproducible(vec):
    first, second = make_vec_env("CartPole-v1", 3, seed=1), make_vec_env("CartPole-v1", 3, seed=1)
    a, b = first.reset(), second.reset()
    assert np.array_equal(a, b) and len({row.tobytes() for row in a}) == 3
    assert [space.sample() for space in first.get_attr("action_space")] == [
        space.sample() for space in second.get_attr("action_space")
    ]
    assert not np.array_equal(a, make_vec_env("CartPole-v1", 3, seed=9).reset())


def test_attributes_and_methods(vec):
    env = vec([functools.partial(Failing, "raise", 10**9), lambda: Failing("raise", 7)])
    assert env.get_attr("at") == [10**9, 7] and env.get_attr("at", 1) == [7]
    env.set_attr("at", 8, indices=[1])
    assert env.get_attr("at") == [10**9, 8] and env.has_attr("count") and not env.has_attr("nothing")
    assert env.env_is_wrapped(Failing) == [True, True] and env.env_is_wrapped(gym.wrappers.ClipReward) == [False, False]
    assert env.env_is_wrapped(gym.Wrapper) == [True, True]
    assert env.env_method("get_wrapper_attr", "how") == ["raise", "raise"]
    with pytest.raises(WorkerError, match="AttributeError"):
        env.get_attr("nothing")
    env.reset()  # an error in a call leaves the worker usable


def test_a_worker_traceback_reaches_the_parent(vec):
    env = vec([PLAIN, functools.partial(Failing, "raise")])
    env.reset()
    with pytest.raises(WorkerError) as caught:
        for _ in range(4):
            env.step(np.zeros(2, int))
    text = str(caught.value)
    assert "environment 1" in text and "RuntimeError: the pole broke" in text and "failing_envs.py" in text


def test_an_error_while_making_the_environment_is_told():
    with pytest.raises(WorkerError, match="FileNotFoundError: no such rom"):
        RestartingVecEnv([functools.partial(broken)])


def test_warnings_of_workers_have_no_colors_in_a_log():
    """Gymnasium colors its warnings wherever they go."""
    lines = ["from sb3_dreamer.wrappers import RestartingVecEnv", f"from {deprecated.__module__} import deprecated"]
    program = "; ".join([*lines, "RestartingVecEnv([deprecated]).close()"])
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "WARN: an old environment" in run.stderr and "\x1b" not in run.stderr


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_dead_worker_is_replaced_and_its_episode_truncated(vec, tmp_path, how):
    env = vec([PLAIN, functools.partial(Failing, how, 4, str(tmp_path / "died"))])
    env.seed(3)
    env.reset()
    with pytest.warns(UserWarning, match=r"worker 1 died with exit code (7|-9); replacing it \(1 of 10\)"):
        steps = [env.step(np.array([index % 2] * 2)) for index in range(6)]
    obs, rewards, dones, infos = steps[3]
    assert dones.tolist() == [False, True] and rewards.tolist() == [1.0, 0.0]
    assert infos[1]["TimeLimit.truncated"] and infos[1]["worker_restarted"]
    assert np.array_equal(infos[1]["terminal_observation"], steps[2][0][1])  # the last one that was seen
    assert not np.array_equal(obs[1], steps[2][0][1]) and np.abs(obs[1]).max() <= 0.05  # a fresh episode
    assert [step[2].tolist() for step in steps[4:]] == [[False, False]] * 2  # and it goes on
    assert "worker_restarted" not in steps[4][3][1]


def test_a_replacement_has_a_new_but_reproducible_seed(tmp_path):
    starts = []
    for run in range(2):
        env = RestartingVecEnv([functools.partial(Failing, "exit", 2, str(tmp_path / f"died{run}"))])
        env.seed(3)
        first = env.reset()[0]
        env.step([0])
        with pytest.warns(UserWarning, match="replacing"):
            starts.append(env.step([0])[0][0])
        assert not np.array_equal(first, starts[-1])
        env.close()
    assert np.array_equal(*starts)


def test_restarts_are_limited(vec):
    env = vec([PLAIN, functools.partial(Failing, "exit", 2)], max_restarts=2)
    env.reset()
    with pytest.warns(UserWarning, match="replacing"), pytest.raises(WorkerError, match=r"2 workers were replaced"):
        for _ in range(10):
            env.step(np.zeros(2, int))
    assert env.restarts == 2


def test_a_worker_that_dies_in_reset_is_replaced(vec, tmp_path):
    env = vec([functools.partial(FailingReset, str(tmp_path / "died"))])
    with pytest.warns(UserWarning, match="exit code 3"):
        assert env.reset().shape == (1, 4)


def test_a_hanging_worker_is_replaced(vec, tmp_path):
    env = vec([functools.partial(Failing, "hang", 2, str(tmp_path / "hung"))], timeout=4.0)
    env.reset()
    env.step([0])
    begin = time.monotonic()  # the environment would sleep for ten minutes
    with pytest.warns(UserWarning, match="no answer within 4.0 s"):
        assert env.step([0])[2].tolist() == [True]
    assert time.monotonic() - begin < 300


def test_errors_can_restart_too(vec, tmp_path):
    env = vec([functools.partial(Failing, "raise", 2, str(tmp_path / "raised"))], restart_on_error=True)
    env.reset()
    env.step([0])
    with pytest.warns(UserWarning, match="the pole broke"):
        assert env.step([0])[3][0]["worker_restarted"]


def test_close_ends_all_processes_even_with_a_step_under_way(vec):
    env = vec([PLAIN, PLAIN])
    env.reset()
    env.step_async(np.zeros(2, int))
    env.close()
    env.close()
    assert not any(process.is_alive() for process in env.processes)


def test_an_interrupted_step_leaves_no_answer_behind(vec, monkeypatch):
    """As after Ctrl-C in a notebook, where learning goes on."""
    env, dummy = vec([PLAIN] * 2), DummyVecEnv([PLAIN] * 2)
    for each in (env, dummy):
        each.seed(3)
        each.reset()

    def interrupted(*_):
        raise KeyboardInterrupt

    env.step_async(np.zeros(2, int))
    with monkeypatch.context() as patch:
        patch.setattr(env, "_fetch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            env.step_wait()
    dummy.step(np.zeros(2, int))
    pairs = list(zip(rollout(env), rollout(dummy), strict=True))
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_monitor_counts_truncated_restarts(tmp_path):
    from stable_baselines3.common.vec_env import VecMonitor

    env = VecMonitor(RestartingVecEnv([functools.partial(Failing, "exit", 3, str(tmp_path / "died"))]))
    env.reset()
    with pytest.warns(UserWarning, match="replacing"):
        infos = [env.step([0])[3] for _ in range(3)]
    assert (infos[2][0]["episode"]["r"], infos[2][0]["episode"]["l"]) == (2.0, 3)
    env.close()


def test_slow_environments_get_processes():
    assert is_slow("Pong", {}) and is_slow("CartPole-v1", {"pixels": True}) and is_slow("ALE/Pong-v5", {})
    assert not is_slow("CartPole-v1", {}) and not is_slow("dmc_proprio:walker_walk", {})
    env = make_vec_env("CartPole-v1", 2, pixels=True, size=16)
    assert isinstance(env.unwrapped, RestartingVecEnv) and env.reset().shape == (2, 16, 16, 3)
    env.close()
    assert isinstance(make_vec_env("CartPole-v1", 2).unwrapped, DummyVecEnv)
    with pytest.raises(ValueError, match="n_envs"):
        make_vec_env("CartPole-v1", 0)


def test_make_vec_env_takes_classes_wrappers_and_settings(tmp_path):
    env = make_vec_env(
        "CartPole-v1", 2, seed=0, vec_env_cls=RestartingVecEnv, monitor_dir=tmp_path / "logs", action_repeat=2,
        wrapper_class=gym.wrappers.TransformReward, wrapper_kwargs={"func": _double},
    )  # fmt: skip
    env.reset()
    assert env.step(np.zeros(2, int))[1].tolist() == [4.0, 4.0]
    assert env.get_attr("suite_preset")[1]["settings"]["action_repeat"] == 2
    env.close()
    assert (tmp_path / "logs" / "0.monitor.csv").exists()


@pytest.mark.parametrize("entry", ["gymnasium.envs.classic_control:CartPoleEnv", CartPoleEnv])
def test_ids_that_only_this_process_has_registered_reach_the_workers(monkeypatch, entry):
    monkeypatch.setitem(gym.registry, "OnlyHere-v0", EnvSpec("OnlyHere-v0", entry, max_episode_steps=3))
    env = make_vec_env("OnlyHere-v0", 2, seed=0, vec_env_cls=RestartingVecEnv)
    env.reset()
    dones = [env.step(np.zeros(2, int))[2].all() for _ in range(3)]
    env.close()
    assert dones == [False, False, True]


def _double(reward):
    return 2 * reward


@pytest.mark.parametrize("method", mp.get_all_start_methods())
def test_start_methods(vec, method):
    env = vec([PLAIN, PLAIN], start_method=method)
    assert env.reset().shape == (2, 4) and env.step(np.zeros(2, int))[0].shape == (2, 4)


def test_evaluation_through_sb3():
    from stable_baselines3.common.evaluation import evaluate_policy

    class Random:
        def __init__(self, space):
            self.space = space

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.array([self.space.sample() for _ in observation]), state

    env = make_vec_env("CartPole-v1", 2, seed=0, vec_env_cls=RestartingVecEnv)
    returns, lengths = evaluate_policy(Random(env.action_space), env, 4, return_episode_rewards=True)
    assert returns == lengths and len(returns) == 4
    env.close()


def test_returns_are_the_tasks_own_whatever_is_learned_from():
    def wrap(env: gym.Env) -> gym.Env:
        return ActionRepeat(SquashReward(env, None, 0.01), 4)

    env = make_vec_env("Pendulum-v1", 2, seed=0, wrapper_class=wrap)
    plain = make_vec_env("Pendulum-v1", 2, seed=0, wrapper_class=lambda inner: ActionRepeat(inner, 4))
    env.reset(), plain.reset()
    for _ in range(50):
        _, rewards, dones, infos = env.step(np.zeros((2, 1), np.float32))
        _, raw, _, raw_infos = plain.step(np.zeros((2, 1), np.float32))
        assert np.allclose(rewards, 0.01 * raw)
    assert dones.all() and [info["episode"]["l"] for info in infos] == [50, 50]
    assert [info["episode"]["r"] for info in infos] == [info["episode"]["r"] for info in raw_infos]
    still = types.SimpleNamespace(predict=lambda obs, state, **_: (np.zeros((2, 1), np.float32), state))
    assert stable_baselines3.common.evaluation.evaluate_policy(still, env, 2)[0] < -100  # not a hundredth of it


@pytest.mark.parametrize(
    "kwargs,match",
    [
        ({"env_kwargs": {"gravity": 1}}, "no argument 'env_kwargs': pass them directly"),
        ({"start_index": 3}, "no argument 'start_index': .* seed=seed "),
        ({"monitor_kwargs": {}}, "no argument 'monitor_kwargs': leave it out"),
        ({"n_env": 4}, "no argument 'n_env': did you mean 'n_envs'"),
        ({"n_env": 4, "n_envs": 2, "vec_env_cls": RestartingVecEnv}, "no argument 'n_env': did you mean 'n_envs'"),
        ({"n_envs": 1.5}, "n_envs=1.5: must be a whole number of copies, at least 1"),
        ({"n_envs": 0}, "n_envs=0: must be"),
        ({"n_envs": True}, "n_envs=True: must be"),
        ({"action_repet": 2}, "did you mean 'action_repeat'"),
    ],
)
def test_wrong_arguments_of_make_vec_env_say_what_to_write(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_vec_env("CartPole-v1", **kwargs)


@pytest.mark.parametrize("kwargs", [{"timeout": -1}, {"timeout": 0}, {"timeout": "9"}, {"max_restarts": -1}])
def test_wrong_limits_of_workers_are_refused(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))}=.*: must be"):
        RestartingVecEnv([PLAIN], **kwargs)


def test_a_function_is_not_a_name():
    with pytest.raises(TypeError, match=r"as a string, not <function .* use stable_baselines3"):
        make_vec_env(make_plain)
    with pytest.raises(TypeError, match="no_such_argument"):
        make_vec_env("CartPole-v1", no_such_argument=1)
