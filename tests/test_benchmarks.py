"""Real environments end to end: learn, save, load in a new process, act identically."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_dreamer import DreamerV3

ACT = """
import numpy as np
from sb3_dreamer import DreamerV3
model = DreamerV3.load("model.zip")
data = np.load("obs.npz")
state, actions = None, []
for t in range(len(data["first"])):
    obs = {k.removeprefix("obs."): data[k][t] for k in data.files if k.startswith("obs.")}
    action, state = model.predict(obs.get("single", obs), state, data["first"][t], deterministic=True)
    actions.append(action)
np.save("actions.npy", np.stack(actions))
"""


def learn_and_act(env_id: str, policy: str, steps: int, folder: Path) -> np.ndarray:
    """Leave the model and what it saw in the folder; return its actions."""
    env = make_vec_env(env_id, 1, seed=0)
    model = DreamerV3(policy, env, model_size="debug", batch_size=4, batch_length=16, train_ratio=8, seed=0)
    model.learning_starts = 200
    model.learn(steps)
    assert model.num_timesteps == steps and model._n_updates == (steps - 200) * 8 // (4 * 16)
    model.save(folder / "model")

    obs, state, seen, firsts, actions = env.reset(), None, [], [], []
    first = np.ones(1, bool)
    for _ in range(20):
        seen.append(obs if isinstance(obs, dict) else {"single": obs})
        firsts.append(first)
        action, state = model.predict(obs, state, first, deterministic=True)
        actions.append(action)
        obs, _, first, _ = env.step(action)
    columns = {f"obs.{key}": np.stack([row[key] for row in seen]) for key in seen[0]}
    np.savez(folder / "obs.npz", first=np.stack(firsts), **columns)
    return np.stack(actions)


@pytest.mark.parametrize("steps", [240, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("env_id", "packages", "policy"),
    [
        ("ALE/Pong-v5", ("ale_py",), "CnnPolicy"),
        ("dm_control/walker-walk-v0", ("dm_control", "shimmy"), "MultiInputPolicy"),
    ],
)
def test_acts_the_same_in_a_new_process(env_id, packages, policy, steps, tmp_path) -> None:
    for package in packages:
        pytest.importorskip(package)  # importing the last one registers the environments
    actions = learn_and_act(env_id, policy, steps, tmp_path)
    subprocess.run([sys.executable, "-c", ACT], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), actions)
