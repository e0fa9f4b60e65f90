"""Action masks: obeyed in the environment, stored with their rows, learned, and obeyed in dreams."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.action_masks import MASK_KEY, MaskedOneHotHead, MaskHead
from sb3_dreamer.core.layers import NormStyle

STYLE = NormStyle(norm="layer", act="silu")


class MaskedEnv(gym.Env):
    """The observation names the one forbidden choice of each part; a forbidden action raises."""

    def __init__(self, parts: tuple[int, ...] = (3, 2)):
        self.parts = parts
        self.action_space = spaces.MultiDiscrete(parts)
        self.observation_space = spaces.Box(0.0, 9.0, (2,), np.float32)

    def _observe(self) -> np.ndarray:
        self.forbidden = [int(self.np_random.integers(n)) for n in self.parts]
        return np.array(self.forbidden, np.float32)

    def action_masks(self) -> np.ndarray:
        return np.concatenate([np.arange(n) != bad for n, bad in zip(self.parts, self.forbidden, strict=True)])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        assert all(a != bad for a, bad in zip(action, self.forbidden, strict=True)), "forbidden"
        self.t += 1
        return self._observe(), 1.0, self.t >= 6, False, {}


def make(size: str = "debug", **kwargs) -> DreamerV3:
    env = make_vec_env(MaskedEnv, 2, seed=0)
    tiny = {"batch_size": 4, "batch_length": 6, "horizon": 3, "buffer_size": 400, "learning_starts": 30}
    tiny |= {"train_ratio": 2, "seed": 0, "device": "cpu", "policy_kwargs": {"action_masks": True}}
    return DreamerV3("MlpPolicy", env, model_size=size, **(tiny | kwargs))


@pytest.mark.parametrize("size", ["debug", "debug2024"])
def test_no_forbidden_action_is_taken(size) -> None:
    model = make(size).learn(100)  # the environment raises at once
    assert model._n_updates > 0
    rows = model.replay_buffer
    for env in range(2):
        for row in range(int(rows.filled[env]) - 1):
            mask = rows.arrays["action_mask"][env, row]
            if rows.arrays["is_last"][env, row]:
                assert not mask.any(), "the mask of a last row is not known"
                continue
            forbidden = rows.arrays["obs.obs"][env, row].astype(int)
            expected = np.concatenate([np.arange(n) != bad for n, bad in zip((3, 2), forbidden, strict=True)])
            np.testing.assert_array_equal(mask, expected)
    batch = rows.sample_sequences(2, 6)
    assert batch.obs[MASK_KEY].shape == (2, 6, 5) and batch.obs[MASK_KEY].dtype == th.bool


def test_an_explorer_obeys_masks_too() -> None:
    spec = {"action_masks": True, "exploration": "plan2explore", "ensemble": 2}
    model = make(policy_kwargs=spec).learn(60)  # the environment raises at once
    assert model._n_updates > 0
    assert model._exploration_behavior().behavior is model.policy.explorer.behavior


def test_masked_distribution() -> None:
    mask = th.tensor([[True, False, True, False, True]])
    actor = MaskedOneHotHead(
        4, (8,), (3, 2), style=STYLE, unimix=0.01, outscale=1.0, predict_mask=lambda feat: mask.expand(len(feat), -1)
    )
    feat = th.randn(1, 4).expand(3000, -1)
    out = actor(feat)
    sample = actor.sample(out)
    assert not sample[:, [1, 3]].any() and sample[:, 4].all()
    logits = out[0, :3]
    probs = 0.99 * logits[[0, 2]].softmax(0) + 0.005
    th.testing.assert_close(sample[:, [0, 2]].mean(0), probs, atol=0.03, rtol=0)
    stats = actor.stats(out, sample)
    th.testing.assert_close(stats.log_prob, (sample[:, [0, 2]] * probs.log()).sum(-1), rtol=1e-4, atol=1e-5)
    th.testing.assert_close(stats.entropy[0], -(probs * probs.log()).sum(), rtol=1e-4, atol=1e-5)
    assert not actor.mode(out)[:, [1, 3]].any()
    grads = th.autograd.grad(stats.log_prob.sum() + stats.entropy.sum(), list(actor.parameters()))
    assert all(th.isfinite(grad).all() for grad in grads)
    other = actor.with_mask(out, th.tensor([[False, True, False, True, False]]).expand(3000, -1))
    assert (actor.sample(other) == th.tensor([0.0, 1.0, 0.0, 1.0, 0.0])).all()


def test_mask_head() -> None:
    head = MaskHead(4, (8,), (3, 2), style=STYLE)
    out = th.tensor([[-1.0, -2.0, -3.0, 4.0, -4.0], [1.0, -1.0, 1.0, -2.0, -1.0]])
    assert head.mask(out).tolist() == [[True, False, False, True, False], [True, False, True, False, True]]
    known, unknown = th.tensor([[True, False, True, True, False]]), th.zeros(1, 5, dtype=th.bool)
    assert head.loss(out[:1], unknown).item() == 0.0
    probs = th.sigmoid(out[:1])
    expected = -th.where(known, probs.log(), (1 - probs).log()).sum(-1)
    th.testing.assert_close(head.loss(out[:1], known), expected)


def test_the_mask_is_learned_and_obeyed_in_dreams() -> None:
    model = make(learning_rate=3e-3, batch_size=16).learn(80)
    world_model, replay = model.policy.world_model, model.replay_buffer
    for _ in range(250):
        losses = world_model.loss(replay.sample_sequences(16, 6)).losses
        model.optimizers["model_optim"].step(world_model.total(losses))
    batch = replay.sample_sequences(16, 6)
    with th.no_grad():
        output = world_model.loss(batch)
        predicted = world_model.mask_head.mask(world_model.mask_head(output.post.feat))
    mask = batch.obs[MASK_KEY]
    known = mask.any(-1)
    share = (predicted == mask)[known].float().mean().item()
    assert share > 0.9, f"{share:.0%} of the entries predicted (chance: 60%)"
    dream = model.behavior.rollout(world_model, output.post.flatten_time(), th.ones(96), 3)
    first = dream.action[:, 0].bool()
    assert (first & ~predicted.flatten(0, 1)).sum() == 0
    with th.no_grad():
        later = world_model.mask_head.mask(world_model.mask_head(dream.feat[:, 1:3]))
    assert (dream.action[:, 1:].bool() & ~later).sum() == 0
    assert th.isfinite(dream.log_prob).all() and (dream.log_prob > -20).all()


def test_predict_with_masks(tmp_path) -> None:
    model = make().learn(40)
    obs = np.zeros((4, 2), np.float32)
    only = np.tile(np.array([0, 0, 1, 1, 0], bool), (4, 1))
    for deterministic in (True, False):
        action, _ = model.predict(obs, deterministic=deterministic, action_masks=only)
        np.testing.assert_array_equal(action, np.tile([2, 0], (4, 1)))
    np.testing.assert_array_equal(model.predict(obs[0], action_masks=only[0])[0], [2, 0])
    model.save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(obs, action_masks=only)[0], np.tile([2, 0], (4, 1)))
    with pytest.raises(ValueError, match="3 entries"):
        model.predict(obs, action_masks=np.ones((4, 3), bool))
    np.testing.assert_array_equal(
        model.predict(obs, action_masks=only[0], deterministic=True)[0], np.tile([2, 0], (4, 1))
    )
    with pytest.raises(ValueError, match="1 x 5 entries"):
        model.predict(obs, action_masks=only[:, None])
    with pytest.raises(ValueError, match="3 action masks were given for 4 observations"):
        model.predict(obs, action_masks=only[:3])
    with pytest.raises(ValueError, match="a planner does not see action_masks"):
        model.predict(obs, action_masks=only, planner=model.warmup_behavior)
    with pytest.raises(ValueError, match="allows no action"):
        model.predict(obs, action_masks=np.zeros((4, 5), bool))
    with pytest.raises(ValueError, match="knows no action masks"):
        make(policy_kwargs={}).predict(obs, action_masks=only)


def test_an_environment_without_masks() -> None:
    model = DreamerV3(
        "MlpPolicy", "CartPole-v1", model_size="debug", policy_kwargs={"action_masks": True}, buffer_size=100
    )
    with pytest.raises(ValueError, match="no method action_masks"):
        model.learn(5)
