"""Latent states without a decoder: both objectives in NumPy, what they train, files, and what there is not."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.representation import BarlowTwins, Contrastive
from sb3_dreamer.dreamer_v3 import OpenLoopCallback
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.runs.dreams import dream
from tests.algorithms import equal, weights
from tests.common.resume.resuming import Killed, difference, everything, run_part
from tests.spaces_env import SpacesEnv, image

FAMILIES = ["debug", "debug2024"]
OBJECTIVES = ["barlow", "contrastive"]
TINY = {"batch_size": 2, "batch_length": 6, "horizon": 3, "buffer_size": 500, "learning_starts": 20, "train_ratio": 4}
both = pytest.mark.parametrize("objective", OBJECTIVES)


def make(objective: str, size: str = "debug", env: str = "CartPole-v1", **kwargs) -> DreamerV3:
    spec = {"representation": objective}
    return DreamerV3("MlpPolicy", gym.make(env), model_size=size, policy_kwargs=spec, seed=0, **(TINY | kwargs))


def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 4, 5)), 3.0 + rng.normal(size=(2, 4, 3))


def test_barlow_twins_is_that_of_the_formula() -> None:
    feat, embed = arrays()
    objective = BarlowTwins(5, 3)
    losses = objective(*(th.as_tensor(part).float() for part in (feat, embed)), {})
    ours = feat.reshape(8, 5) @ objective.projector.weight.detach().numpy().T
    theirs = embed.reshape(8, 3)
    expected = 0.0
    for i in range(3):
        for j in range(3):
            c = np.corrcoef(ours[:, i], theirs[:, j])[0, 1] * 7 / 8  # deviations over N - 1, the mean over N
            expected += (c - 1.0) ** 2 if i == j else 5e-4 * c**2
    assert losses["barlow"].shape == (2, 4)
    np.testing.assert_allclose(losses["barlow"].detach().numpy(), expected, rtol=1e-4)


def test_info_nce_is_that_of_the_formula() -> None:
    feat, embed = arrays()
    objective = Contrastive(5, 3)
    losses = objective(*(th.as_tensor(part).float() for part in (feat, embed)), {})
    logits = feat.reshape(8, 5) @ objective.projector.weight.detach().numpy().T @ embed.reshape(8, 3).T / np.sqrt(3)
    expected = -np.diag(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    np.testing.assert_allclose(losses["contrastive"].detach().numpy().ravel(), expected, rtol=1e-4)


@both
def test_the_embedding_is_a_target(objective) -> None:
    feat, embed = (th.as_tensor(part).float().requires_grad_() for part in arrays())
    loss = {"barlow": BarlowTwins, "contrastive": Contrastive}[objective](5, 3)(feat, embed, {})[objective].mean()
    grads = th.autograd.grad(loss, (feat, embed), allow_unused=True)
    assert grads[0].any() and grads[1] is None


@both
@pytest.mark.parametrize("size", FAMILIES)
def test_the_objective_trains_encoder_and_latents(objective, size) -> None:
    world_model = make(objective, size).policy.world_model
    assert world_model.decoder is None
    model = make(objective, size, train_ratio=0).learn(30)
    world_model = model.policy.world_model
    batch = model.replay_buffer.sample_sequences(2, 6)
    losses = world_model.loss(batch).losses
    assert set(losses) == {objective, "reward", "cont", "dyn", "rep"} == set(world_model.scales)
    params = dict(world_model.named_parameters())
    grads = th.autograd.grad(losses[objective].mean(), list(params.values()), allow_unused=True)
    reached = {name.split(".")[0] for name, grad in zip(params, grads, strict=True) if grad is not None and grad.any()}
    assert reached == {"encoder", "rssm", "representation"}


@pytest.mark.parametrize(("objective", "updates"), [("barlow", 40), ("contrastive", 120)])
def test_features_come_to_predict_what_is_seen(objective, updates) -> None:
    model = make(objective, learning_rate=3e-3, train_ratio=0, batch_size=8).learn(200)
    model.train(1, 8)
    before = model._metrics.take()[f"loss_{objective}"]
    model.train(updates, 8)
    model._metrics.take()
    model.train(5, 8)
    assert model._metrics.take()[f"loss_{objective}"] < 0.9 * before


@both
@pytest.mark.parametrize("size", FAMILIES)
def test_files(objective, size, tmp_path) -> None:
    model = make(objective, size).learn(40)
    model.save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model", env=gym.make("CartPole-v1"))
    assert equal(weights(model), weights(loaded)) and loaded.policy.spec.representation == objective
    obs = np.zeros((2, 4), np.float32)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    assert loaded.learn(40, reset_num_timesteps=False)._n_updates > model._n_updates


@both
def test_a_run_in_parts_is_the_run_in_one_piece(objective, tmp_path) -> None:
    settings = {"policy_kwargs": {"representation": objective}}
    straight = everything(run_part(tmp_path / "a", "DreamerV3", 1, 60, settings=settings), tmp_path / "a")
    with pytest.raises(Killed):
        run_part(tmp_path / "b", "DreamerV3", 1, 60, settings=settings, die_at=47)
    resumed = run_part(tmp_path / "b", "DreamerV3", 1, 60, settings=settings)
    assert difference(straight, everything(resumed, tmp_path / "b")) == []


@both
def test_images_and_dicts(objective) -> None:
    space = spaces.Dict({"camera": image(16, 16, 1), "mode": spaces.Discrete(3)})
    kwargs = TINY | {"model_size": "debug", "policy_kwargs": {"representation": objective}}
    model = DreamerV3("MultiInputPolicy", SpacesEnv(space, spaces.Discrete(3)), **kwargs).learn(40)
    assert model._n_updates > 0 and np.isfinite(model._metrics.take()[f"loss_{objective}"])
    with pytest.raises(UsageError, match="no decoder"):
        dream(model, model.get_env(), True, n_episodes=1, context=2, horizon=2)


def test_what_is_not_there_is_said() -> None:
    model = make("barlow").learn(40)
    states = model.world_model.observe(np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), int))
    assert model.world_model.reward(states).shape == (1, 3)
    with pytest.raises(ValueError, match=r"no decoder.*representation='decoder'"):
        model.world_model.decode(states)
    with pytest.raises(ValueError, match=r"OpenLoopCallback.*no decoder"):
        model.learn(10, callback=OpenLoopCallback(every=5))
    assert "reconstructed" not in dict(model.describe())["observation obs"]
    with pytest.raises(ValueError, match="did you mean 'contrastive'"):
        DreamerV3("MlpPolicy", "CartPole-v1", policy_kwargs={"representation": "contrastiv"})
