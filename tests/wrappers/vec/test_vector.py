"""The vector counterparts do to each element what the single wrappers do."""

import gymnasium as gym
import numpy as np
import pytest

from sb3_dreamer.wrappers import FilterKeys, NormalizeAction, OneHotAction, ResizeFrame, SquashReward, TidyObservation
from sb3_dreamer.wrappers.vec import gymnasium_vector as ours


@pytest.mark.parametrize(
    "kind,single,many,kwargs",
    [
        ("image", ResizeFrame, ours.VectorResizeFrame, {"size": (4, 6), "grey": True}),
        ("dict", TidyObservation, ours.VectorTidyObservation, {}),
        ("dict", FilterKeys, ours.VectorFilterKeys, {"include": "vector"}),
        ("vector", SquashReward, ours.VectorSquashReward, {"kind": "tanh", "scale": 0.5}),
    ],
)
@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.NEXT_STEP, gym.vector.AutoresetMode.DISABLED])
def test_observations_and_rewards(counting, kind, single, many, kwargs, mode):
    def make():
        return counting(length=4, kind=kind)

    vec = many(gym.vector.SyncVectorEnv([make, make], autoreset_mode=mode), **kwargs)
    one = single(make(), **kwargs)
    obs, _ = vec.reset(seed=0)
    expected, _ = one.reset(seed=0)
    assert vec.single_observation_space == one.observation_space
    assert vec.observation_space.contains(obs)
    assert _equal(obs, expected)
    for _ in range(3):
        obs, rewards, *_, infos = vec.step(np.zeros(2, int))
        expected, reward, *_ = one.step(0)
        assert _equal(obs, expected) and rewards[0] == reward
    if single is SquashReward:
        assert infos["raw_reward"].tolist() == [3.0, 3.0]


def _equal(batch, element):
    if isinstance(element, dict):
        return batch.keys() == element.keys() and all(np.array_equal(batch[key][0], element[key]) for key in element)
    return np.array_equal(batch[0], element)


def test_actions(counting):
    vec = ours.VectorNormalizeAction(gym.vector.SyncVectorEnv([lambda: counting(action="box")] * 2))
    single = NormalizeAction(counting(action="box"))
    vec.reset(seed=0)
    vec.step(np.array([[-1, -1], [1, 0.5]], np.float32))
    taken = [env.actions[-1].tolist() for env in vec.unwrapped.envs]
    assert taken == [[1, -2], [50, 1]] and vec.single_action_space == single.action_space
    hot = ours.VectorOneHotAction(gym.vector.SyncVectorEnv([counting] * 2))
    hot.reset(seed=0)
    hot.step(np.eye(3, dtype=np.float32)[[2, 0]])
    assert [env.actions[-1] for env in hot.unwrapped.envs] == [2, 0]
    assert hot.single_action_space == OneHotAction(counting()).action_space
