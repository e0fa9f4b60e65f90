"""The preset ``dreamer_v1`` against the formulas of arXiv 1912.01603 in plain numpy, float64, and as an algorithm."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_dreamer import DreamerV2
from sb3_dreamer.core.action_heads import TanhNormalHead
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.objectives import FreeNatsKL
from sb3_dreamer.core.types import SequenceBatch
from tests.spaces_env import SpacesEnv

SMALL = {"deter": 6, "hidden": 5, "stoch": 3, "units": 7, "layers": 2}
TINY = {"batch_size": 2, "batch_length": 6, "horizon": 4, "buffer_size": 1000, "seed": 0}
B, T, H, A, O = 3, 5, 4, 2, 3  # noqa: E741


def make(**kwargs: Any) -> DreamerV2:
    env = SpacesEnv(spaces.Box(-1, 1, (O,), np.float32), spaces.Box(-1, 1, (A,), np.float32))
    return DreamerV2("MlpPolicy", env, **{**DreamerV2.presets["dreamer_v1"], "policy_kwargs": SMALL, **TINY, **kwargs})


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Reference:
    """World model, actor and value of Dreamer from the weights of a model.

    :param model: whose weights are taken
    :param noise: standard normal draws in the order in which they are used
    """

    def __init__(self, model: DreamerV2, noise: list[np.ndarray]):
        self.w = {name: value.numpy().astype(np.float64) for name, value in model.policy.state_dict().items()}
        self.noise = iter(noise)

    def dense(self, name: str, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def mlp(self, name: str, x):
        for layer in range(SMALL["layers"]):
            x = elu(self.dense(f"{name}.linears.{layer}", x))
        return x

    def head(self, name: str, x):
        return self.dense(f"{name}.out", self.mlp(f"{name}.mlp", x))

    def gaussian(self, name: str, x):
        """Diagonal Gaussian with deviation softplus + 0.1."""
        mean, std = np.split(self.dense(name, x), 2, -1)
        return mean, np.log1p(np.exp(std)) + 0.1

    def draw(self, dist):
        return dist[0] + dist[1] * next(self.noise)

    def recur(self, deter, stoch, action):
        rssm = "world_model.rssm.cell"
        x = elu(self.dense(f"{rssm}.stoch_in", stoch) + self.dense(f"{rssm}.action_in", action))
        reset, keep = np.split(sigmoid(self.dense(f"{rssm}.cell.gates", np.concatenate([x, deter], -1))), 2, -1)
        cand = np.tanh(self.dense(f"{rssm}.cell.cand", np.concatenate([x, reset * deter], -1)))
        return keep * deter + (1 - keep) * cand

    def prior(self, deter):
        hidden = elu(self.dense("world_model.rssm.prior_mlp.linears.0", deter))
        return self.gaussian("world_model.rssm.prior_out", hidden)

    def post(self, deter, embed):
        both = self.dense("world_model.rssm.post_deter", deter) + self.dense("world_model.rssm.post_embed", embed)
        return self.gaussian("world_model.rssm.post_out", elu(both))

    def model_losses(self, obs, action, reward, first):
        """Squared errors, the reward's halved, and KL beyond 3 nats; features of all rows."""
        embed = self.mlp("world_model.encoder.mlp", obs)
        deter, stoch = np.zeros((B, SMALL["deter"])), np.zeros((B, SMALL["stoch"]))
        feats, kls = [], []
        for t in range(T):
            stays = 1.0 - first[:, t, None]
            deter = self.recur(deter * stays, stoch * stays, action[:, t] * stays)
            (m1, s1), (m2, s2) = self.post(deter, embed[:, t]), self.prior(deter)
            kls.append((np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5).sum(-1))
            stoch = self.draw((m1, s1))
            feats.append(np.concatenate([deter, stoch], -1))
        feat = np.stack(feats, 1)
        seen = self.dense("world_model.decoder.outs.0", self.mlp("world_model.decoder.mlp", feat))
        losses = {
            "recon_obs": ((seen - obs) ** 2).sum(-1),
            "reward": 0.5 * (self.head("world_model.reward_head", feat)[..., 0] - reward) ** 2,
            "kl": np.maximum(0.0, np.stack(kls, 1) - 3.0),
        }
        return {name: value.mean() for name, value in losses.items()}, feat.reshape(B * T, -1)

    def action(self, feat):
        mean, std = np.split(self.head("behavior.actor", feat), 2, -1)
        return np.tanh(self.draw((5 * np.tanh(mean / 5), np.log1p(np.exp(std + np.log(np.exp(5) - 1))) + 1e-4)))

    def behavior_losses(self, feat):
        """Equations 5 to 8: λ-returns, maximized by the actor through the model and regressed by the value."""
        feats, deter = [feat], SMALL["deter"]
        for _ in range(H):
            after = self.recur(feats[-1][:, :deter], feats[-1][:, deter:], self.action(feats[-1]))
            feats.append(np.concatenate([after, self.draw(self.prior(after))], -1))
        states = np.stack(feats, 1)
        reward = self.head("world_model.reward_head", states[:, 1:])[..., 0]
        value = self.head("behavior.critic", states)[..., 0]
        returns = np.zeros((len(feat), H))
        for t in range(H):  # as written: a mixture of n-step returns
            n_step = []
            for k in range(1, H - t + 1):
                rewards = sum(0.99 ** (n - t) * reward[:, n] for n in range(t, t + k))
                n_step.append(rewards + 0.99**k * value[:, t + k])
            weights = [0.05 * 0.95 ** (k - 1) for k in range(1, H - t)] + [0.95 ** (H - t - 1)]
            returns[:, t] = sum(w * v for w, v in zip(weights, n_step, strict=True))
        weight = 0.99 ** np.arange(H)  # the released code weighs states by their discount
        return {
            "actor": -(weight * returns).mean(),
            "critic": (weight * 0.5 * (value[:, :-1] - returns) ** 2).mean(),
        }


def test_every_loss_is_that_of_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    for group in model.optimizers.values():
        group.set_learning_rate(0.0)
    rng, noise, randn_like = np.random.default_rng(0), [], th.randn_like
    first = np.zeros((B, T))
    first[:, 0] = first[1, 3] = 1.0
    obs, action, reward = (rng.normal(size=(B, T, size)).astype(np.float32) for size in (O, A, 1))
    action = np.tanh(action) * (1 - first[..., None]).astype(np.float32)
    with th.no_grad():  # heads and values start near 0, where an error would not show; latents where the KL is free
        for param in model.policy.parameters():
            param.mul_(3.0)
        model.behavior.update_slow_critic(1.0)

    def recorded(x: th.Tensor) -> th.Tensor:
        noise.append(randn_like(x))
        return noise[-1]

    monkeypatch.setattr(th, "randn_like", recorded)
    flags = th.as_tensor(first, dtype=th.bool)
    never = th.zeros_like(flags)
    tensors = (th.as_tensor(action), th.as_tensor(reward[..., 0]))
    metrics = model.update(SequenceBatch({"obs": th.as_tensor(obs)}, *tensors, flags, never, never))

    reference = Reference(model, [draw.numpy().astype(np.float64) for draw in noise])
    losses, feat = reference.model_losses(obs, action, reward[..., 0], first)
    assert losses["kl"] > 0.1
    for name, value in losses.items():
        assert float(metrics[f"loss_{name}"]) == pytest.approx(value, rel=1e-4), name
    total = 0.5 * losses["recon_obs"] + losses["reward"] + losses["kl"]
    assert float(metrics["model_loss"]) == pytest.approx(total, rel=1e-4)
    for name, value in reference.behavior_losses(feat).items():
        assert float(metrics[f"{name}_loss"]) == pytest.approx(value, rel=1e-4), name


def test_the_settings_are_the_papers() -> None:
    model = make()
    assert model.policy.world_model.objective == FreeNatsKL(free=3.0)
    assert model.policy.world_model.cont_head is None
    assert model.behavior.actor_gradient == "dynamics"
    rates = [model.learning_rate, model.actor_learning_rate, model.critic_learning_rate]
    assert rates == [6e-4, 8e-5, 8e-5] and model.max_grad_norm == 100.0 and model.weight_decay == 0.0
    assert (model.gamma, model.gae_lambda, float(model.now["rho"]), float(model.now["ent_coef"])) == (0.99, 0.95, 0, 0)
    assert DreamerV2.presets["dreamer_v1"]["train_ratio"] == 100 / 500 * 50 * 50  # 100 updates of 50 x 50 an episode


def test_it_learns_saves_and_loads(tmp_path) -> None:
    model = make(learning_starts=20, train_ratio=4, pretrain=1, model_size="dreamer_v1").learn(40)
    assert model._n_updates > 5
    critics = zip(model.behavior.critic.parameters(), model.behavior.slow_critic.parameters(), strict=True)
    assert all(th.equal(fast, slow) for fast, slow in critics)  # no target network
    model.save(tmp_path / "model")
    loaded = DreamerV2.load(tmp_path / "model")
    obs = np.zeros((1, O), np.float32)
    assert loaded.exploration_noise == 0.3
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_noise_is_added_while_collecting_only() -> None:
    quiet, noisy = make(exploration_noise=0.0), make(exploration_noise=100.0)
    assert quiet._exploration_behavior() is None
    world_model = noisy.policy.world_model
    collected = noisy._exploration_behavior().act(world_model, world_model.rssm.initial(50))
    assert collected.abs().max() == 1.0 and (collected.abs() == 1.0).float().mean() > 0.9


@pytest.mark.parametrize(("mean", "std"), [(0.0, -5.0), (2.0, -4.0), (-9.0, -5.5)])
def test_tanh_normal(mean: float, std: float) -> None:
    head = TanhNormalHead(1, (), 1, style=NormStyle(norm="none", act="elu"))
    out = th.tensor([mean, std])
    grid = th.linspace(-0.999999, 0.999999, 200001).unsqueeze(-1)
    log_prob, _ = head.stats(out.expand(len(grid), 2), grid)
    density = log_prob.double().exp()
    assert float(th.trapezoid(density, grid[:, 0].double())) == pytest.approx(1.0, abs=1e-2)
    th.manual_seed(0)
    samples = head.sample(out.expand(20000, 2))
    assert float(samples.mean()) == pytest.approx(
        float(th.trapezoid(density * grid[:, 0], grid[:, 0].double())), abs=0.02
    )
    entropy = head.stats(out.expand(20000, 2), samples).entropy.mean()
    assert float(th.trapezoid(-density * log_prob, grid[:, 0].double())) == pytest.approx(float(entropy), abs=0.05)
    assert float(head.mode(out)) == pytest.approx(float(np.tanh(5 * np.tanh(mean / 5))))
    saturated = head.stats(out.expand(1, 2), th.tensor([[1.0]]))
    assert all(th.isfinite(part).all() for part in saturated)
