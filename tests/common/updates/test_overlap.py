"""Updates while environments step, and the line that says where the time goes."""

import time

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_dreamer import DreamerV2, DreamerV3

SMALL = {
    "model_size": "debug",
    "batch_size": 4,
    "batch_length": 8,
    "learning_starts": 24,
    "buffer_size": 500,
    "seed": 0,
}


class SlowEnv(gym.Env):
    """Takes 20 ms for a step."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        time.sleep(0.02)
        self.steps += 1
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), float(action), False, self.steps >= 10, {}


def make(cls, n_envs=1, vec_env_cls=None, env="CartPole-v1", **kwargs):
    return cls("MlpPolicy", make_vec_env(env, n_envs=n_envs, seed=0, vec_env_cls=vec_env_cls), **(SMALL | kwargs))


@pytest.mark.parametrize("cls", [DreamerV3, DreamerV2])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_same_number_of_updates_one_step_later(cls, n_envs: int) -> None:
    log: list[tuple[int, int]] = []

    def note(locals_, globals_):
        log.append((model.num_timesteps, model._n_updates))
        return True

    counts = {}
    for overlap in (False, True):
        model, log = make(cls, n_envs, overlap=overlap, train_ratio=32), []
        model.learn(44, callback=note)
        assert model._owed == 0, "no update is left out at the end"
        counts[overlap] = (model._n_updates, dict(log))
    assert counts[False][0] == counts[True][0] > 10
    # With overlap, the updates that step t earned are done before the callbacks of step t + 1, but not before step t's.
    steps = sorted(counts[False][1])
    assert [counts[True][1][step] for step in steps[1:]] == [counts[False][1][step] for step in steps[1:]]
    assert np.shape(model.predict(model.get_env().reset())[0]) == (n_envs,)


class Noting(DummyVecEnv):
    """Notes when a step begins and when its result is asked for."""

    def __init__(self):
        super().__init__([lambda: gym.make("CartPole-v1")])
        self.log = []

    def step_async(self, actions):
        self.log.append("begin")
        super().step_async(actions)

    def step_wait(self):
        self.log.append("end")
        return super().step_wait()


@pytest.mark.parametrize(("overlap", "order"), [(False, "begin end update"), (True, "begin update end")])
def test_updates_run_between_the_beginning_and_the_end_of_a_step(overlap: bool, order: str) -> None:
    env = Noting()
    model = DreamerV3("MlpPolicy", env, overlap=overlap, gradient_steps=1, **SMALL)
    update = model.update
    model.update = lambda batch: (env.log.append("update"), update(batch))[1]
    model.learn(34)
    first = env.log.index("update") - (1 if overlap else 2)
    assert env.log[first : first + 18] == 6 * order.split()
    assert env.log.count("update") == model._n_updates


@pytest.mark.slow  # measures time, which needs an idle machine; the order of events is checked above
def test_overlap_saves_time() -> None:
    """With steps of 20 ms in another process and updates of about as much, both together take less than their sum."""
    model = make(DreamerV3, 1, SubprocVecEnv, SlowEnv, overlap=True, gradient_steps=1, batch_size=8, batch_length=24)
    model.learn(60)  # fills replay
    forecast_parts: dict[str, float] = {}
    start, updates = time.perf_counter(), model._n_updates
    model.learn(40, reset_num_timesteps=False)
    elapsed = time.perf_counter() - start
    forecast_parts = model._forecast.parts | {"updates": model._forecast.update_seconds}
    model.env.close()
    assert model._n_updates - updates == 40
    waiting = forecast_parts["environments"]
    assert waiting < 0.9 * 40 * 0.02, (
        f"{waiting:.2f} s of waiting in {elapsed:.2f} s: steps of 0.8 s were not overlapped"
    )


def test_the_forecast_says_where_the_time_goes(capsys) -> None:
    model = make(DreamerV3, gradient_steps=1, verbose=1)
    model.learn(100)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("One update takes"))
    for part in ("updates", "acting", "environments", "sampling", "storing", "the rest"):
        assert f"{part} " in line.split("Time: ")[1], line
    shares = [int(word.rstrip("%.,")) for word in line.split("Time: ")[1].split() if "%" in word]
    assert 95 <= sum(shares) <= 105 and shares == sorted(shares, reverse=True)
