"""``DreamVecEnv`` and ``DreamPolicy``: SB3's contract, what is dreamed, and agents that learn and play."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from sb3_dreamer import DreamerV2, DreamerV3, DreamPolicy, DreamVecEnv, PlaNet
from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.core.state_space import Observed
from sb3_dreamer.core.types import LatentState
from tests.algorithms import VARIANTS, DreamerV3In2024, equal, tiny, weights
from tests.spaces_env import SpacesEnv, image

KEYS = spaces.Dict(
    {
        "camera": image(3, 36, 36),
        "speed": spaces.Box(-0.1, 0.1, (2,), np.float32),
        "mode": spaces.Discrete(3),
        "buttons": spaces.MultiBinary(2),
        "unseen": spaces.Box(-1, 1, (2,)),
    }
)
BOX = spaces.Box(np.float32([-2, 0]), np.float32([1, 5]))


def trained(algorithm: type[WorldModelAlgorithm] = DreamerV3, env: Any = "CartPole-v1", **kwargs: Any) -> Any:
    return tiny(algorithm, "MlpPolicy", env, **kwargs).learn(60)


@pytest.fixture(scope="module")
def model() -> Any:
    return trained()


def set_ends(model: Any, probability: float) -> None:
    """Make the continue head predict this probability to continue, whatever it sees."""
    with th.no_grad():
        model.policy.world_model.cont_head.out.weight.zero_()
        model.policy.world_model.cont_head.out.bias.fill_(float(np.log(probability / (1 - probability))))


def actions(env: DreamVecEnv) -> np.ndarray:
    return np.stack([env.action_space.sample() for _ in range(env.num_envs)])


def test_a_step_needs_a_reset(model: Any) -> None:
    env = DreamVecEnv(model, 2)
    with pytest.raises(RuntimeError, match=r"step\(\) before reset\(\): call reset\(\) first"):
        env.step(actions(env))


# ---- SB3's contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", VARIANTS)
def test_every_algorithm_dreams(algorithm: type[WorldModelAlgorithm]) -> None:
    model = trained(algorithm)
    env = DreamVecEnv(model, 5, horizon=4)
    obs = env.reset()
    assert obs.shape == (5, model.policy.world_model.rssm.feat_size) and obs.dtype == np.float32
    for _ in range(6):
        obs, reward, dones, infos = env.step(actions(env))
        assert obs.shape == (5, *env.observation_space.shape) and env.observation_space.contains(obs[0])
        assert reward.shape == dones.shape == (5,) and reward.dtype == np.float32 and dones.dtype == bool
        assert len(infos) == 5 and np.isfinite(obs).all() and np.isfinite(reward).all()
        assert [("terminal_observation" in info) for info in infos] == dones.tolist()


def test_a_dream_lasts_its_horizon_and_counts_as_truncated() -> None:
    model = trained()
    model.policy.world_model.cont_head.hard = False
    set_ends(model, 1 - 1e-7)
    env = DreamVecEnv(model, 3, horizon=4, seed=0)
    first = env.reset()
    for step in range(1, 9):
        obs, reward, dones, infos = env.step(actions(env))
        assert dones.all() == dones.any() == (step % 4 == 0)
        assert [info["TimeLimit.truncated"] for info in infos] == dones.tolist()
        final = np.stack([info["terminal_observation"] for info in infos]) if dones.all() else obs
        expected = model.policy.world_model.reward(th.as_tensor(final)).detach().numpy()
        np.testing.assert_allclose(reward, expected, atol=1e-5)
        assert not np.array_equal(final, obs) if dones.all() else True
    assert not np.array_equal(first, obs)


@pytest.mark.parametrize("algorithm", [DreamerV3, DreamerV3In2024, DreamerV2])
def test_ends_follow_the_continue_head(algorithm: type[WorldModelAlgorithm]) -> None:
    model = trained(algorithm)
    model.policy.world_model.cont_head.hard = False
    gamma = {DreamerV3: 1.0}.get(algorithm, model.gamma)  # the heads of the others learned it, too
    set_ends(model, 0.75 * gamma)

    def ended(**kwargs: Any) -> float:
        env = DreamVecEnv(model, 4000, seed=0, **kwargs)
        env.reset()
        _, _, dones, infos = env.step(np.zeros(4000, np.int64))
        assert not any(info["TimeLimit.truncated"] for info in infos)
        return float(dones.mean())

    assert ended() == pytest.approx(0.25, abs=0.03)
    assert ended(threshold=0.76) == 1.0 and ended(threshold=0.74) == 0.0


def test_planet_never_ends() -> None:
    env = DreamVecEnv(trained(PlaNet), 50, horizon=100)
    env.reset()
    assert not any(env.step(actions(env))[2].any() for _ in range(20))


def test_the_rest_of_the_interface(model: Any) -> None:
    env = DreamVecEnv(model, 3)
    assert env.get_attr("horizon") == [15] * 3 and env.get_attr("horizon", [0]) == [15]
    assert not env.has_attr("action_masks") and env.render_mode is None
    env.set_attr("horizon", 7)
    assert env.env_method("get_attr", "horizon", indices=[1]) == [[7, 7, 7]]
    with pytest.raises(ValueError, match="horizon is one for all dreams"):
        env.set_attr("horizon", 7, indices=[0])
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"n_envs": 0}, "n_envs=0"),
        ({"horizon": 0}, "horizon=0"),
        ({"context": 8}, "context=8"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"observations": "pixels"}, "observations='pixels' is unknown: use 'latent' or 'decoded'"),
    ],
)
def test_wrong_arguments(model: Any, kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DreamVecEnv(model, **kwargs)


def test_without_replay_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"replay holds no .*batch_length=8.*load_replay_buffer"):
        DreamVecEnv(tiny(DreamerV3, "MlpPolicy", "CartPole-v1"))


# ---- random numbers ------------------------------------------------------------------------------------------------


def dreamed(env: DreamVecEnv, steps: int = 6) -> np.ndarray:
    return np.stack([env.reset(), *(env.step(np.zeros(env.num_envs, np.int64))[0] for _ in range(steps))])


def test_a_seed_repeats_the_dreams(model: Any) -> None:
    one, same, other = (dreamed(DreamVecEnv(model, 4, seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    env = DreamVecEnv(model, 4)
    env.seed(3)
    assert np.array_equal(dreamed(env), one)
    assert not np.array_equal(dreamed(env), one), "a second reset goes on in the stream"


@pytest.mark.parametrize("algorithm", [DreamerV3, DreamerV3In2024])
def test_dreaming_changes_no_training(algorithm: type[WorldModelAlgorithm]) -> None:
    ends = []
    for dreams in (False, True):
        model = trained(algorithm)
        for _ in range(2):
            if dreams:
                dreamed(DreamVecEnv(model, 40, horizon=2))
            model.learn(20, reset_num_timesteps=False)
        ends.append((weights(model), model.predict(np.zeros(4, np.float32))[1]))
    assert equal(ends[0][0], ends[1][0])
    assert all(np.array_equal(a, b) for a, b in zip(ends[0][1], ends[1][1], strict=True))


# ---- what is dreamed -----------------------------------------------------------------------------------------------


def test_dreams_start_from_replayed_rows_with_context_that_do_not_end_an_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trained(env=SpacesEnv(spaces.Box(-1, 1, (4,)), spaces.Discrete(2), length=3))

    def observe(batch: Any, state: Any) -> Observed:
        """Latent states that tell which row they come from."""
        size, length = batch.reward.shape
        deter = th.zeros(size, length, model.policy.world_model.rssm.cell.deter_size)
        deter[..., 0], deter[..., 1] = batch.is_terminal.float(), th.arange(length)
        stoch = th.zeros(size, length, *model.policy.world_model.rssm.latent.shape)
        return Observed(LatentState(deter, stoch), None, None)

    monkeypatch.setattr(model.policy.world_model, "observe", observe)
    starts = DreamVecEnv(model, 200, context=3, seed=0).reset()
    assert (starts[:, 0] == 0).all() and set(starts[:, 1]) == {3, 4, 5, 6, 7}
    assert set(DreamVecEnv(model, 200, context=0, seed=0).reset()[:, 1]) == set(range(8))


def test_the_executed_action_moves_the_dream() -> None:
    model = trained(env=SpacesEnv(spaces.Box(-1, 1, (4,)), BOX))
    taken = []
    step = model.policy.world_model.rssm.img_step
    model.policy.world_model.rssm.img_step = lambda state, action, **_: (taken.append(action), step(state, action))[1]
    env = DreamVecEnv(model, 3)
    env.reset()
    env.step(np.float32([[-2, 5], [1, 0], [9, 2.5]]))
    np.testing.assert_allclose(taken[0], [[-1, 1], [1, -1], [1, 0]], atol=1e-6)


def test_decoded_observations_are_those_of_the_task() -> None:
    env = SpacesEnv(KEYS, spaces.MultiDiscrete([2, 3]))
    model = tiny(DreamerV3, "MultiInputPolicy", env, policy_kwargs={"ignore_keys": ("unseen",)}).learn(60)
    with th.no_grad():
        for out in model.policy.world_model.decoder.outs:
            out.bias += 3.0  # beyond the bounds
    dreams = DreamVecEnv(model, 4, horizon=3, observations="decoded")
    assert set(dreams.observation_space.spaces) == {"camera", "speed", "mode", "buttons"}
    obs = dreams.reset()
    for _ in range(4):
        assert all(dreams.observation_space.contains({k: v[i] for k, v in obs.items()}) for i in range(4))
        obs, _, dones, _ = dreams.step(actions(dreams))
    assert dones.dtype == bool and obs["camera"].dtype == np.uint8
    PPO("MultiInputPolicy", dreams, n_steps=4, batch_size=8, n_epochs=1).learn(16)


# ---- agents --------------------------------------------------------------------------------------------------------


def test_decoded_observations_are_normalized_where_the_agent_sees_them_so() -> None:
    env = VecNormalize(make_vec_env("CartPole-v1"), clip_obs=3.0)
    dream = DreamVecEnv(trained(env=env), 50, observations="decoded", seed=0)
    assert dream.observation_space == spaces.Box(-3.0, 3.0, (4,), np.float32)
    obs = dream.reset()
    assert dream.observation_space.contains(obs[0])
    assert np.abs(obs[:, 2]).max() != pytest.approx(0.41887903)  # the bound of the angle itself
    with pytest.raises(ValueError, match="action 0 is 7, which is outside Discrete"):
        dream.step(np.full(50, 7))


def test_ppo_learns_in_the_dream_and_plays_the_task(model: Any) -> None:
    dreams = VecMonitor(DreamVecEnv(model, 8, horizon=3, seed=0))
    agent = PPO("MlpPolicy", dreams, n_steps=8, batch_size=32, n_epochs=1, seed=0).learn(128)
    assert [info["l"] <= 3 for info in agent.ep_info_buffer] and len(agent.ep_info_buffer) > 10
    player = DreamPolicy(model, agent)
    mean, _ = evaluate_policy(player, model.get_env(), n_eval_episodes=2, warn=False)
    assert mean >= 8


def test_the_agent_sees_the_filtered_state_and_its_action_is_remembered() -> None:
    model = trained(env=SpacesEnv(spaces.Box(-1, 1, (4,)), BOX))
    agent = SAC("MlpPolicy", DreamVecEnv(model, 2), buffer_size=100)
    seen = []
    agent.predict = lambda obs, deterministic: (seen.append(obs), (np.float32([[-2, 2.5]]), None))[1]
    player = DreamPolicy(model, agent)
    action, state = player.predict(np.zeros(4, np.float32), deterministic=True)
    assert np.allclose(action, [-2, 2.5]) and np.allclose(state[2], [[-1, 0]])
    assert np.array_equal(seen[0], np.concatenate([state[0], state[1].reshape(1, -1)], 1))
    _, own = model.predict(np.zeros(4, np.float32), deterministic=True)
    assert np.array_equal(state[0], own[0]) and np.array_equal(state[1], own[1])


def test_an_agent_of_another_task_is_refused(model: Any) -> None:
    other = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match=r"Box.*train it in DreamVecEnv\(model\)"):
        DreamPolicy(model, other)


def test_what_a_dream_cannot_take_is_refused(model: Any) -> None:
    dream = DreamVecEnv(model, 3)
    dream.reset()
    with pytest.raises(ValueError, match="2 actions for 3 dreams"):
        dream.step(np.zeros(2, int))
    for wrong in (np.zeros((3, 2), int), np.int64(1), np.array(["a"] * 3)):
        with pytest.raises(ValueError, match=r"pass numbers of shape \(n,\) for Discrete\(2\)"):
            dream.step(wrong)
    with pytest.raises(ValueError, match=r"^seed='a' must be an integer from 0"):
        DreamVecEnv(model, 3, seed="a")
