"""One batch of PlaNet against its formulas in plain NumPy, float64: filter, KL with free nats, overshooting, heads.

Written from arXiv 1811.04551 (Eq. 3 and 7, Appendix A) and the shapes of google-research/planet (``models/rssm.py``,
TensorFlow's ``GRUBlockCell``), without any function of ours. Samples take fixed noise.
"""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import PlaNet
from sb3_dreamer.core import latents
from sb3_dreamer.core.types import SequenceBatch
from tests.spaces_env import SpacesEnv

NOISE = np.array([0.8, -0.4, 0.3])
SIZES = {"deter": 6, "stoch": 3, "units": 5, "head_units": 7, "head_layers": 2}
DISTANCE, FREE = 3, 0.4
Gaussian = tuple[np.ndarray, np.ndarray]


class Reference:
    """PlaNet's model in loops over rows, on weights of ours.

    :param weights: by name, ``(out, in)``
    """

    def __init__(self, weights: dict[str, np.ndarray]):
        self.w = weights

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def stack(self, name: str, x: np.ndarray) -> np.ndarray:
        for i in range(SIZES["head_layers"]):
            x = np.maximum(self.dense(f"{name}.linears.{i}", x), 0.0)
        return x

    def gaussian(self, name: str, x: np.ndarray) -> Gaussian:
        mean, std = np.split(self.dense(name, x), 2, -1)
        return mean, np.log1p(np.exp(std)) + 0.1

    def step(self, deter: np.ndarray, stoch: np.ndarray, action: np.ndarray) -> np.ndarray:
        """``h_t = f(h_{t-1}, s_{t-1}, a_{t-1})``: a layer, then a GRU whose reset acts on the state."""
        kernel = np.concatenate([self.w["rssm.cell.stoch_in.weight"], self.w["rssm.cell.action_in.weight"]], 1)
        x = np.maximum(np.concatenate([stoch, action]) @ kernel.T + self.w["rssm.cell.stoch_in.bias"], 0.0)
        gates = 1.0 / (1.0 + np.exp(-self.dense("rssm.cell.cell.gates", np.concatenate([x, deter]))))
        reset, update = np.split(gates, 2)
        candidate = np.tanh(self.dense("rssm.cell.cell.cand", np.concatenate([x, reset * deter])))
        return update * deter + (1.0 - update) * candidate

    def prior(self, deter: np.ndarray) -> Gaussian:
        """``p(s_t | h_t)``."""
        return self.gaussian("rssm.prior_out", np.maximum(self.dense("rssm.prior_mlp.linears.0", deter), 0.0))

    def posterior(self, deter: np.ndarray, embed: np.ndarray) -> Gaussian:
        """``q(s_t | h_t, o_t)``."""
        kernel = np.concatenate([self.w["rssm.post_deter.weight"], self.w["rssm.post_embed.weight"]], 1)
        hidden = np.concatenate([deter, embed]) @ kernel.T + self.w["rssm.post_deter.bias"]
        return self.gaussian("rssm.post_out", np.maximum(hidden, 0.0))

    def losses(self, obs, action, reward, first) -> dict[str, np.ndarray]:
        """Losses of one sequence, ``(T,)`` each."""
        states, posts, priors = [], [], []
        deter, stoch = np.zeros(SIZES["deter"]), np.zeros(SIZES["stoch"])
        for t in range(len(obs)):
            if first[t]:
                deter, stoch = np.zeros_like(deter), np.zeros_like(stoch)
            deter = self.step(deter, stoch, action[t] * (not first[t]))
            priors.append(self.prior(deter))
            posts.append(self.posterior(deter, self.stack("encoder.mlp", obs[t])))
            stoch = sample(posts[-1])
            states.append((deter, stoch))
        feat = np.array([np.concatenate(state) for state in states])
        return {
            "recon_obs": ((self.dense("decoder.outs.0", self.stack("decoder.mlp", feat)) - obs) ** 2).sum(-1),
            "reward": 0.5 * (self.dense("reward_head.out", self.stack("reward_head.mlp", feat))[:, 0] - reward) ** 2,
            "kl": np.array([max(kl(post, prior) - FREE, 0.0) for post, prior in zip(posts, priors, strict=True)]),
            "overshoot": self.overshoot(states, posts, action, first),
        }

    def overshoot(self, states, posts, action, first) -> np.ndarray:
        """Posteriors against priors rolled 2 .. D steps from earlier states, inside an episode."""
        total = np.zeros(len(states))
        for start, (deter, stoch) in enumerate(states):
            for distance in range(1, DISTANCE + 1):
                t = start + distance
                if t >= len(states) or first[start + 1 : t + 1].any():
                    break
                deter = self.step(deter, stoch, action[t])  # noqa: PLW2901 - rolled on
                prior = self.prior(deter)
                stoch = sample(prior)  # noqa: PLW2901
                if distance > 1:
                    total[t] += max(kl(posts[t], prior) - FREE, 0.0) / DISTANCE
        return total


def sample(params: Gaussian) -> np.ndarray:
    return params[0] + params[1] * NOISE


def kl(left: Gaussian, right: Gaussian) -> float:
    (m1, s1), (m2, s2) = left, right
    return float((np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2.0 * s2**2) - 0.5).sum())


def test_every_loss_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    env = DummyVecEnv([lambda: SpacesEnv(spaces.Box(-9, 9, (4,), np.float32), spaces.Box(-1, 1, (2,), np.float32))])
    settings = {"overshooting_distance": DISTANCE, "free_nats": FREE, "kl_scale": 2.0, "reward_scale": 5.0}
    model = PlaNet("MlpPolicy", env, model_size="debug", policy_kwargs=SIZES, buffer_size=200, seed=0, **settings)
    world_model = model.policy.world_model
    with th.no_grad():
        for i, param in enumerate(world_model.parameters()):  # no zero biases, and KLs on both sides of the free nats
            param.add_(0.3 * th.randn(param.shape, generator=th.Generator().manual_seed(i)))
    monkeypatch.setattr(latents.th, "randn_like", lambda x: th.from_numpy(NOISE).float().expand_as(x))

    rng, (batch, length) = np.random.default_rng(0), (3, 6)
    obs, action = rng.normal(size=(batch, length, 4)), rng.uniform(-1, 1, (batch, length, 2))
    reward, first = rng.normal(size=(batch, length)), rng.random((batch, length)) < 0.2
    first[:, 0] = True
    weights = {name: param.detach().double().numpy() for name, param in world_model.named_parameters()}
    rows = [Reference(weights).losses(obs[b], action[b], reward[b], first[b]) for b in range(batch)]
    expected = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    assert 0 < (expected["kl"] == 0).sum() < batch * length and (expected["overshoot"] > 0).sum() >= length

    tensors = (th.from_numpy(x).float() for x in (obs, action, reward))
    flags = th.from_numpy(first)
    seen, prev_action, rewards = tensors
    none = th.zeros_like(flags)
    result = world_model.loss(SequenceBatch({"obs": seen}, prev_action, rewards, flags, none, none))
    assert result.losses.keys() == expected.keys()
    for name, loss in result.losses.items():
        np.testing.assert_allclose(loss.detach(), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    means = {name: value.mean() for name, value in expected.items()}
    total = 0.5 * means["recon_obs"] + 5.0 * means["reward"] + 2.0 * means["kl"] + means["overshoot"]
    assert float(world_model.total(result.losses)) == pytest.approx(total, rel=1e-4)
