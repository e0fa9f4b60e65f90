"""The whole loss of one batch of DreamerV3 in plain numpy, float64, written from the papers' equations.

It shares no code with the package: it reads weights by name and a batch, and gives every loss of one update. Where the
algorithms draw samples, the most likely value is taken, here and in the model under test.
"""

import numpy as np

Weights = dict[str, np.ndarray]
LIMIT, N_BINS = 20.0, 255


def symlog(x):
    return np.sign(x) * np.log(1 + np.abs(x))


def symexp(x):
    return np.sign(x) * (np.exp(np.abs(x)) - 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def one_hot(index, n):
    return np.eye(n)[index]


class Reference:
    """:param weights: state dict of the policy, ``:param family:`` 2023 or 2024."""

    def __init__(
        self, weights: Weights, family: str, *, classes: int, stoch: int, action_sizes: tuple[int, ...] | None
    ):
        self.w = {name: value.astype(np.float64) for name, value in weights.items()}
        self.new = family == "2024"
        self.classes, self.stoch, self.action_sizes = classes, stoch, action_sizes
        even = np.linspace(-LIMIT, LIMIT, N_BINS)
        self.bins = symexp(even) if self.new else even

    # ---- layers ----------------------------------------------------------------------------------------------------

    def dense(self, name: str, x):
        out = x @ self.w[f"{name}.weight"].T
        return out + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else out

    def norm(self, name: str, x):
        if self.new:
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * self.w[f"{name}.weight"]
        centered = x - x.mean(-1, keepdims=True)
        unit = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-3)
        return unit * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def mlp(self, name: str, x):
        layer = 0
        while f"{name}.linears.{layer}.weight" in self.w:
            x = silu(self.norm(f"{name}.norms.{layer}", self.dense(f"{name}.linears.{layer}", x)))
            layer += 1
        return x

    def head(self, name: str, x):
        x = self.mlp(f"{name}.mlp", x)
        if f"{name}.out.layers.0.weight" in self.w:
            return np.concatenate([self.dense(f"{name}.out.layers.{i}", x) for i in (0, 1)], -1)
        return self.dense(f"{name}.out", x)

    def blocks(self, name: str, x):
        """Each block of the input times its own kernel; result ``(N, G, out)``."""
        kernel = self.w[f"{name}.weight"]
        parts = np.split(x, len(kernel), -1)
        out = np.stack([part @ k for part, k in zip(parts, kernel, strict=True)], -2)
        return out + self.w[f"{name}.bias"][:, 0] if f"{name}.bias" in self.w else out

    def channel_norm(self, name: str, x):
        return np.moveaxis(self.norm(name, np.moveaxis(x, 1, -1)), -1, 1)

    def conv(self, name: str, x, stride: int, pad: int):
        kernel = self.w[f"{name}.weight"]
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        k = kernel.shape[-1]
        rows = (x.shape[2] - k) // stride + 1
        columns = (x.shape[3] - k) // stride + 1
        out = np.zeros((len(x), len(kernel), rows, columns))
        for i in range(k):
            for j in range(k):
                patch = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
                out += np.einsum("nchw,oc->nohw", patch, kernel[:, :, i, j])
        return out + self.w[f"{name}.bias"][:, None, None] if f"{name}.bias" in self.w else out

    def deconv(self, name: str, x):
        """The adjoint of a convolution with kernel 4, stride 2, padding 1."""
        kernel = self.w[f"{name}.weight"]
        _, _, rows, columns = x.shape
        out = np.zeros((len(x), kernel.shape[1], 2 * rows + 2, 2 * columns + 2))
        for i in range(4):
            for j in range(4):
                out[:, :, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += np.einsum(
                    "nchw,co->nohw", x, kernel[:, :, i, j]
                )
        out = out[:, :, 1:-1, 1:-1]
        return out + self.w[f"{name}.bias"][:, None, None] if f"{name}.bias" in self.w else out

    # ---- observations ----------------------------------------------------------------------------------------------

    def encode(self, obs):
        cnn = "world_model.encoder.cnns.16x16"
        b, t = obs["pos"].shape[:2]
        x = obs["cam"].reshape(b * t, 1, 16, 16) / 255.0 - 0.5
        for i in range(2):
            if self.new:
                x = self.conv(f"{cnn}.convs.{i}", x, 1, 2)
                x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))
            else:
                x = self.conv(f"{cnn}.convs.{i}", x, 2, 1)
            x = silu(self.channel_norm(f"{cnn}.norms.{i}.norm", x))
        flat = np.concatenate([one_hot(obs["mode"] - 2, 4), symlog(obs["pos"])], -1)
        return np.concatenate([x.reshape(b, t, -1), self.mlp("world_model.encoder.mlp", flat)], -1)

    def image(self, feat):
        """``(N, F)`` to a mean image."""
        cnn = "world_model.decoder.cnns.16x16"
        if not self.new:
            x = self.dense(f"{cnn}.dense", feat).reshape(len(feat), -1, 4, 4)
            x = silu(self.channel_norm(f"{cnn}.norms.0.norm", self.deconv(f"{cnn}.deconvs.0", x)))
            return self.deconv(f"{cnn}.deconvs.1", x) + 0.5
        width = feat.shape[-1] - self.stoch * self.classes
        deter, stoch = feat[:, :width], feat[:, width:]
        hidden = silu(self.norm(f"{cnn}.stoch_norm", self.dense(f"{cnn}.stoch_in", stoch)))
        x = self.blocks(f"{cnn}.deter_in", deter).reshape(len(feat), -1) + self.dense(f"{cnn}.stoch_out", hidden)
        x = silu(self.channel_norm(f"{cnn}.start_norm.norm", x.reshape(len(feat), -1, 4, 4)))
        x = self.conv(f"{cnn}.convs.0", x.repeat(2, 2).repeat(2, 3), 1, 2)
        x = silu(self.channel_norm(f"{cnn}.norms.0.norm", x))
        return sigmoid(self.conv(f"{cnn}.convs.1", x.repeat(2, 2).repeat(2, 3), 1, 2))

    def reconstruction_losses(self, feat, obs):
        b, t = obs["pos"].shape[:2]
        image = self.image(feat.reshape(b * t, -1)).reshape(b, t, 1, 16, 16)
        hidden = self.mlp("world_model.decoder.mlp", feat)
        mode = softmax(self.dense("world_model.decoder.outs.0", hidden))
        position = self.dense("world_model.decoder.outs.1", hidden)
        picked = np.take_along_axis(mode, obs["mode"][..., None] - 2, -1)[..., 0]
        return {
            "recon_cam": ((image - obs["cam"] / 255.0) ** 2).sum((2, 3, 4)),
            "recon_pos": ((position - symlog(obs["pos"])) ** 2).sum(-1),
            "recon_mode": -np.log(picked),
        }

    # ---- latent dynamics -------------------------------------------------------------------------------------------

    def latent(self, logits):
        """Probabilities ``(..., S, K)`` with 1% of the uniform distribution."""
        probs = softmax(logits.reshape(*logits.shape[:-1], self.stoch, self.classes))
        return 0.99 * probs + 0.01 / self.classes

    def prior(self, deter):
        return self.latent(self.dense("world_model.rssm.prior_out", self.mlp("world_model.rssm.prior_mlp", deter)))

    def posterior(self, deter, embed):
        x = self.dense("world_model.rssm.post_deter", deter) + self.dense("world_model.rssm.post_embed", embed)
        return self.latent(self.dense("world_model.rssm.post_out", silu(self.norm("world_model.rssm.post_norm", x))))

    def draw(self, probs):
        return one_hot(probs.argmax(-1), self.classes)

    def next_deter(self, deter, stoch, action):
        stoch = stoch.reshape(len(stoch), -1)
        action = action / np.maximum(1.0, np.abs(action))
        cell = "world_model.rssm.cell"
        if self.new:
            inputs = [self.mlp(f"{cell}.deter_in", deter), self.mlp(f"{cell}.stoch_in", stoch)]
            inputs = np.concatenate([*inputs, self.mlp(f"{cell}.action_in", action)], -1)
            x = self.blocks(f"{cell}.block_hidden", deter).reshape(deter.shape)
            x = silu(self.norm(f"{cell}.norm", x + self.dense(f"{cell}.shared_hidden", inputs)))
            gates = [part.reshape(deter.shape) for part in np.split(self.blocks(f"{cell}.gates", x), 3, -1)]
        else:
            x = self.dense(f"{cell}.stoch_in", stoch) + self.dense(f"{cell}.action_in", action)
            x = silu(self.norm(f"{cell}.norm", x))
            both = self.dense(f"{cell}.cell.linear", np.concatenate([x, deter], -1))
            gates = np.split(self.norm(f"{cell}.cell.norm", both), 3, -1)
        reset, cand, update = gates
        update = sigmoid(update - 1)
        return update * np.tanh(sigmoid(reset) * cand) + (1 - update) * deter

    def start(self, n: int):
        if self.new:
            width = self.w["world_model.rssm.cell.norm.weight"].shape[0]
            return np.zeros((n, width)), np.zeros((n, self.stoch, self.classes))
        deter = np.tanh(self.w["world_model.rssm.start"])[None].repeat(n, 0)
        return deter, self.draw(self.prior(deter))

    def observe(self, batch):
        embed = self.encode(batch["obs"])
        n, length = batch["reward"].shape
        deter, stoch = self.start(n)
        deters, stochs, posts = [], [], []
        for t in range(length):
            first = batch["is_first"][:, t] | (t == 0)
            fresh = self.start(n)
            deter = np.where(first[:, None], fresh[0], deter)
            stoch = np.where(first[:, None, None], fresh[1], stoch)
            action = np.where(first[:, None], 0.0, batch["prev_action"][:, t])
            deter = self.next_deter(deter, stoch, action)
            post = self.posterior(deter, embed[:, t])
            stoch = self.draw(post)
            deters.append(deter), stochs.append(stoch), posts.append(post)
        return np.stack(deters, 1), np.stack(stochs, 1), np.stack(posts, 1)

    # ---- heads -----------------------------------------------------------------------------------------------------

    def two_hot_loss(self, logits, target):
        """Cross-entropy with a dense two-hot target."""
        target = target if self.new else symlog(target)
        target = np.clip(target, self.bins[0], self.bins[-1])
        above = np.clip((self.bins[None] < target.reshape(-1, 1)).sum(-1), 1, N_BINS - 1)
        low, high = self.bins[above - 1], self.bins[above]
        share = (target.reshape(-1) - low) / (high - low)
        dense = one_hot(above - 1, N_BINS) * (1 - share)[:, None] + one_hot(above, N_BINS) * share[:, None]
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return -(dense.reshape(logits.shape) * logs).sum(-1)

    def two_hot_mean(self, logits):
        probs = softmax(logits)
        weighted = probs * self.bins
        middle = N_BINS // 2
        mean = (weighted[..., :middle] + weighted[..., :middle:-1]).sum(-1) + weighted[..., middle]
        return mean if self.new else symexp(mean)

    def cont(self, feat):
        logit = self.head("world_model.cont_head", feat)[..., 0]
        return sigmoid(logit) if self.new else (logit > 0).astype(float)

    def policy(self, feat):
        """Action (the most likely), and a function from actions to log-probability and entropy."""
        out = self.head("behavior.actor", feat)
        if self.action_sizes is None:
            mean, raw = np.split(out, 2, -1)
            mean, std = np.tanh(mean), 0.9 * sigmoid(raw + 2) + 0.1
            log_prob = -0.5 * ((mean - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
            return mean, log_prob.sum(-1), (np.log(std) + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
        actions, log_prob, entropy = [], 0.0, 0.0
        ends = np.cumsum(self.action_sizes)[:-1]
        for part in np.split(out, ends, -1):
            probs = softmax(part)
            probs = probs if self.new else 0.99 * probs + 0.01 / part.shape[-1]
            chosen = one_hot(probs.argmax(-1), part.shape[-1])
            actions.append(chosen)
            log_prob = log_prob + np.log((probs * chosen).sum(-1))
            entropy = entropy - (probs * np.log(probs)).sum(-1)
        return np.concatenate(actions, -1), log_prob, entropy

    # ---- the losses ------------------------------------------------------------------------------------------------

    def losses(
        self, batch, *, horizon: int, gamma: float, lam: float, eta: float, free: float = 1.0
    ) -> dict[str, float]:
        """Everything that one update minimizes, by the names of the metrics."""
        deter, stoch, post = self.observe(batch)
        n, length = batch["reward"].shape
        feat = np.concatenate([deter, stoch.reshape(n, length, -1)], -1)
        prior = self.prior(deter)
        kl = np.maximum(free, (post * (np.log(post) - np.log(prior))).sum((-2, -1)))
        going_on = 1.0 - batch["is_terminal"]
        target = going_on * gamma if self.new else going_on
        p = sigmoid(self.head("world_model.cont_head", feat)[..., 0])
        model = self.reconstruction_losses(feat, batch["obs"])
        model["reward"] = self.two_hot_loss(self.head("world_model.reward_head", feat), batch["reward"])
        model["cont"] = -(target * np.log(p) + (1 - target) * np.log(1 - p))
        model["dyn"], model["rep"] = kl, kl
        factors = {"dyn": 1.0 if self.new else 0.5, "rep": 0.1}
        total = sum(factors.get(name, 1.0) * loss.mean() for name, loss in model.items())
        result = {f"loss_{name}": loss.mean() for name, loss in model.items()}

        dream = self.dream(deter.reshape(n * length, -1), stoch.reshape(n * length, *stoch.shape[2:]), horizon)
        cont = dream["cont"]
        if not self.new:
            cont[:, 0] = going_on.reshape(-1)
        inner = 1.0 if self.new else gamma  # 2024: the continue flags hold the discount
        value = self.two_hot_mean(self.head("behavior.critic", dream["feat"]))
        returns = np.zeros((n * length, horizon))
        later = value[:, -1]
        for t in reversed(range(horizon)):
            mixed = (1 - lam) * value[:, t + 1] + lam * later
            later = returns[:, t] = dream["reward"][:, t] + inner * cont[:, t + 1] * mixed
        weight = np.cumprod(np.concatenate([cont[:, :1], inner * cont[:, 1:horizon]], 1), 1)
        low, high = (
            0.99 * self.w[f"behavior.return_norm.{name}"] + 0.01 * np.percentile(returns, share)
            for name, share in (("low", 5), ("high", 95))
        )
        advantage = (returns - value[:, :-1]) / max(1.0, high - low)
        through_model = self.action_sizes is None and not self.new
        score = advantage if through_model else dream["log_prob"] * advantage
        result["actor_loss"] = -(weight * (score + eta * dream["entropy"])).mean()
        logits = self.head("behavior.critic", dream["feat"][:, :-1])
        slow = self.two_hot_mean(self.head("behavior.slow_critic", dream["feat"][:, :-1]))
        result["critic_loss"] = (weight * (self.two_hot_loss(logits, returns) + self.two_hot_loss(logits, slow))).mean()
        if self.new:
            replay = self.replay_value_loss(batch, feat, returns[:, 0].reshape(n, length), gamma, lam)
            result["loss_replay_value"] = replay
            total = total + result["actor_loss"] + result["critic_loss"] + 0.3 * replay
        result["model_loss"] = total
        return result

    def dream(self, deter, stoch, horizon: int) -> dict[str, np.ndarray]:
        feats, log_probs, entropies = [], [], []
        for _ in range(horizon + 1):
            feat = np.concatenate([deter, stoch.reshape(len(stoch), -1)], -1)
            action, log_prob, entropy = self.policy(feat)
            feats.append(feat), log_probs.append(log_prob), entropies.append(entropy)
            deter = self.next_deter(deter, stoch, action)
            stoch = self.draw(self.prior(deter))
        feat = np.stack(feats, 1)
        return {
            "feat": feat,
            "log_prob": np.stack(log_probs[:-1], 1),
            "entropy": np.stack(entropies[:-1], 1),
            "reward": self.two_hot_mean(self.head("world_model.reward_head", feat))[:, 1:],
            "cont": self.cont(feat),
        }

    def replay_value_loss(self, batch, feat, bootstrap, gamma: float, lam: float) -> float:
        last, terminal = batch["is_last"].astype(float), batch["is_terminal"].astype(float)
        length = feat.shape[1]
        returns = np.zeros((len(feat), length - 1))
        later = bootstrap[:, -1]
        for t in reversed(range(length - 1)):
            on = (1 - last[:, t + 1]) * lam
            mixed = (1 - on) * bootstrap[:, t + 1] + on * later
            later = returns[:, t] = batch["reward"][:, t + 1] + gamma * (1 - terminal[:, t + 1]) * mixed
        logits = self.head("behavior.critic", feat[:, :-1])
        slow = self.two_hot_mean(self.head("behavior.slow_critic", feat[:, :-1]))
        loss = self.two_hot_loss(logits, returns) + self.two_hot_loss(logits, slow)
        return float((loss * (1 - last[:, :-1])).mean())
