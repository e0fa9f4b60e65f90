"""Same seed, same run: bit for bit on a CPU, in one process or with workers, evaluated in between or not."""

import numpy as np
import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from tests.algorithms import VARIANTS, equal, tiny, weights

algorithms = pytest.mark.parametrize("algorithm", VARIANTS, ids=lambda cls: cls.__name__)


def run(algorithm, n_envs: int, seed: int, vec_env_cls=DummyVecEnv, evaluate: bool = False) -> dict[str, np.ndarray]:
    """Weights and replay after a short run."""
    workers = {"start_method": "fork"} if vec_env_cls is SubprocVecEnv else {}
    env = make_vec_env("CartPole-v1", n_envs, seed=seed, vec_env_cls=vec_env_cls, vec_env_kwargs=workers)
    callback = None
    if evaluate:
        test_env = make_vec_env("CartPole-v1", 1, seed=9)
        callback = EvalCallback(test_env, n_eval_episodes=1, eval_freq=9, verbose=0, deterministic=False)
    model = tiny(algorithm, "MlpPolicy", env, seed=seed).learn(44, callback=callback)
    env.close()
    replay = {f"replay.{name}": array[:, :50].copy() for name, array in model.replay_buffer.arrays.items()}
    return weights(model) | replay


@algorithms
@pytest.mark.parametrize("n_envs", [1, 4])
def test_same_seed_same_run(algorithm, n_envs) -> None:
    """The plain repetition is the one with evaluation: nothing else differs."""
    first = run(algorithm, n_envs, 0)
    assert equal(first, run(algorithm, n_envs, 0, evaluate=True)), "evaluating in between changes nothing"
    assert equal(first, run(algorithm, n_envs, 0, SubprocVecEnv)), "workers change nothing"
    assert not equal(first, run(algorithm, n_envs, 1)), "another seed is another run"
