"""Real environments end to end: 1,000 steps, save, load in a new process, act identically."""

import subprocess
import sys

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_dreamer import DreamerV3

ACT = """
import sys, numpy as np
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


@pytest.mark.parametrize(
    ("env_id", "package", "policy"),
    [("ALE/Pong-v5", "ale_py", "CnnPolicy"), ("dm_control/walker-walk-v0", "shimmy", "MultiInputPolicy")],
)
def test_thousand_steps(env_id, package, policy, tmp_path) -> None:
    pytest.importorskip(package)
    if package == "shimmy":
        pytest.importorskip("dm_control")
    if package == "ale_py":
        import ale_py
        import gymnasium as gym

        gym.register_envs(ale_py)
    env = make_vec_env(env_id, 1, seed=0)
    model = DreamerV3(policy, env, model_size="debug", batch_size=4, batch_length=16, train_ratio=8, seed=0)
    model.learning_starts = 200
    model.learn(1000)
    assert model.num_timesteps == 1000 and model._n_updates == 100  # 800 steps · 8 / (4 · 16)
    model.save(tmp_path / "model")

    obs, state, seen, firsts, actions = env.reset(), None, [], [], []
    first = np.ones(1, bool)
    for _ in range(20):
        seen.append(obs if isinstance(obs, dict) else {"single": obs})
        firsts.append(first)
        action, state = model.predict(obs, state, first, deterministic=True)
        actions.append(action)
        obs, _, first, _ = env.step(action)
    columns = {f"obs.{key}": np.stack([row[key] for row in seen]) for key in seen[0]}
    np.savez(tmp_path / "obs.npz", first=np.stack(firsts), **columns)
    subprocess.run([sys.executable, "-c", ACT], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), np.stack(actions))
