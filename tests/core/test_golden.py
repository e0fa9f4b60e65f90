"""Every formula with a reference output: see tests/golden/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch as th
import torch.nn.functional as F

from sb3_dreamer.core import functional as fn
from sb3_dreamer.core.cells import BlockGRU, LayerNormGRUCell
from sb3_dreamer.core.heads import TwoHotHead
from sb3_dreamer.core.imagination import ReturnNormalizer
from sb3_dreamer.core.latents import CategoricalLatent
from sb3_dreamer.core.layers import MLP, NormStyle, linear
from sb3_dreamer.core.objectives import DynRepKL
from sb3_dreamer.core.optim import LaProp
from sb3_dreamer.core.state_space import limit_action

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name: str) -> dict[str, th.Tensor]:
    return {key: th.from_numpy(value) for key, value in np.load(GOLDEN / f"{name}.npz").items()}


def check(got: th.Tensor, expected: th.Tensor) -> None:
    th.testing.assert_close(got.float(), expected.float().reshape(got.shape), rtol=1e-4, atol=1e-5)


def test_symlog() -> None:
    data = load("symlog")
    check(fn.symlog(data["x"]), data["symlog"])
    check(fn.symexp(fn.symlog(data["x"])), data["symexp_of_symlog"])


@pytest.mark.parametrize("bins", ["symexp", "symlog"])
def test_two_hot(bins: str) -> None:
    data = load("twohot")
    head = TwoHotHead(4, (4,), style=NormStyle(norm="layer", act="silu"), bins=bins)  # type: ignore[arg-type]
    name = {"symexp": "symexp_bins", "symlog": "symlog_linear_bins"}[bins]
    check(head.bins, data["bins_symexp" if bins == "symexp" else "bins_linear"])
    check(head.loss(data["logits"], data["target"]), data[f"loss_{name}"])
    check(head.mean(data["logits"]), data[f"pred_{name}"])
    assert (head.mean(th.zeros(3, 255)) == 0).all(), "uniform logits must predict exactly 0"


def test_categorical_latent() -> None:
    data = load("categorical_latent")
    latent = CategoricalLatent(32, 16, unimix=float(data["unimix"]))
    post, prior = (latent.params(data[f"{name}_logits"].flatten(-2)) for name in ("posterior", "prior"))
    check(latent.kl(post, prior), data["kl"])
    check(latent.entropy(post), data["posterior_entropy"])
    losses = DynRepKL(free=1.0)(latent, post, prior)
    check(losses["dyn"], data["kl_free_nats_1"])
    check(losses["rep"], data["kl_free_nats_1"])


def test_lambda_return_on_replay() -> None:
    data = load("lambda_return")
    got = fn.replay_lambda_return(
        data["reward"],
        data["bootstrap"],
        data["is_last"],
        data["is_terminal"],
        float(data["discount"]),
        float(data["lam"]),
    )
    check(got, data["returns"])


def test_lambda_return_in_imagination() -> None:
    data = load("lambda_return_imagined")
    next_value = th.cat([data["value"][1:], data["bootstrap"][None]])
    got = fn.lambda_return(data["reward"].T, next_value.T, data["discount"].T, float(data["lam"]))
    check(got.T, data["returns"])


def test_return_normalizer() -> None:
    data = load("return_normalizer")
    norm = ReturnNormalizer()
    assert norm.decay == pytest.approx(1 - float(data["rate"]))
    for i in range(5):
        offset, scale = norm.update(data[f"returns_{i}"])
        check(offset, data["offset"][i])
        check(scale, data["scale"][i])


def golden_targets(data: dict[str, th.Tensor], head: TwoHotHead) -> tuple[th.Tensor, ...]:
    """Values, returns and weights of the two imagination files, whose ``cont`` holds the discount already."""
    value = head.mean(data["value_logits"])
    returns = fn.lambda_return(data["reward"][:, 1:], value[:, 1:], data["cont"][:, 1:], float(data["lam"]))
    return value, returns, th.cumprod(data["cont"], 1)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_actor_critic_losses(kind: str) -> None:
    data = load(f"actor_critic_loss_{kind}")
    head = TwoHotHead(4, (4,), style=NormStyle(norm="layer", act="silu"), bins="symexp")
    value, returns, weight = golden_targets(data, head)
    check(returns, data["returns"])
    _, scale = ReturnNormalizer().update(returns)
    if kind == "discrete":
        log_probs = fn.unimix_logits(data["policy_logits"], 0.01)
        log_prob = log_probs.gather(-1, data["action"].long().unsqueeze(-1)).squeeze(-1)
        entropy = fn.categorical_entropy(log_probs)
    else:
        log_prob = fn.gaussian_log_prob(data["action"], data["policy_mean"], data["policy_std"]).sum(-1)
        entropy = (data["policy_std"].log() + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
    advantage = (returns - value[:, :-1]) / scale
    loss = -weight[:, :-1] * (log_prob[:, :-1] * advantage + float(data["entropy_scale"]) * entropy[:, :-1])
    # Advantages near 0 are differences of returns of 1e5: computed in float64, one entry of 150 differs by 1.2e-4 too.
    th.testing.assert_close(loss, data["policy_loss"], rtol=2e-4, atol=1e-5)
    slow = head.mean(data["slow_value_logits"])[:, :-1]
    critic = head.loss(data["value_logits"][:, :-1], returns, slow)
    check(weight[:, :-1] * critic, data["value_loss"])


def test_replay_value_loss() -> None:
    data = load("replay_value_loss")
    head = TwoHotHead(4, (4,), style=NormStyle(norm="layer", act="silu"), bins="symexp")
    returns = fn.replay_lambda_return(
        data["reward"], data["bootstrap"], data["is_last"], data["is_terminal"], 1 - 1 / 333, 0.95
    )
    check(returns, data["returns"])
    slow = head.mean(data["slow_value_logits"])[:, :-1]
    loss = head.loss(data["value_logits"][:, :-1], returns, slow)
    check(loss * (1.0 - data["is_last"].float())[:, :-1], data["loss"])


def test_laprop_with_adaptive_clipping() -> None:
    data = load("optimizer_agc_laprop")
    w, b = (th.nn.Parameter(data[name].clone()) for name in ("w0", "b0"))
    settings = {name: float(data[name]) for name in ("agc", "pmin", "eps")}
    betas = (float(data["beta1"]), float(data["beta2"]))
    optimizer = LaProp([w, b], float(data["lr"]), betas=betas, **settings)
    for i in range(10):
        w.grad, b.grad = data["grad_w"][i], data["grad_b"][i]
        optimizer.step()
        check(w.detach(), data["w"][i])
        check(b.detach(), data["b"][i])


def test_layernorm_gru_cell() -> None:
    data = load("layernorm_gru_cell")
    cell = LayerNormGRUCell(6, 8, style=NormStyle(norm="layer", act="silu", eps=float(data["eps"])))
    cell.load_state_dict(
        {
            "linear.weight": data["param:layers.GRU_linear.weight"],
            "norm.weight": data["param:layers.GRU_norm.weight"],
            "norm.bias": data["param:layers.GRU_norm.bias"],
        }
    )
    check(cell(data["input"], data["state"]), data["next_state"])


def test_block_gru() -> None:
    data = load("block_gru_core")
    param = {key.removeprefix("param:dyn/"): value for key, value in data.items() if key.startswith("param:")}
    style = NormStyle(norm="rms", act="silu", eps=1e-4, bias=True, fan="in")
    cell = BlockGRU(deter=32, stoch=16, action=3, hidden=8, blocks=4, style=style)

    def dense(name: str, prefix: str) -> dict[str, th.Tensor]:
        return {
            f"{prefix}.linears.0.weight": param[f"{name}/kernel"].T,
            f"{prefix}.linears.0.bias": param[f"{name}/bias"],
            f"{prefix}.norms.0.weight": param[f"{name}norm/scale"],
        }

    kernel, gates = param["dynhid0/kernel"], param["dyngru/kernel"]
    cell.load_state_dict(
        dense("dynin0", "deter_in")
        | dense("dynin1", "stoch_in")
        | dense("dynin2", "action_in")
        | {
            "block_hidden.weight": kernel[:, :8],
            "shared_hidden.weight": kernel[:, 8:].permute(0, 2, 1).flatten(0, 1),
            "shared_hidden.bias": param["dynhid0/bias"],
            "norm.weight": param["dynhid0norm/scale"],
            "gates.weight": gates,
            "gates.bias": param["dyngru/bias"].view(4, 1, 24),
        }
    )
    action = cell.project_action(limit_action(data["action"]))
    deter = cell(data["deter"], data["stoch"].flatten(1), action)
    check(deter, data["next_deter"])
    prior = MLP(32, (8, 8), style=style)
    prior.load_state_dict(
        {
            f"linears.{i}.{ours}": param[f"prior{i}/{theirs}"].t()
            for i in (0, 1)
            for ours, theirs in (("weight", "kernel"), ("bias", "bias"))
        }
        | {f"norms.{i}.weight": param[f"prior{i}norm/scale"] for i in (0, 1)}
    )
    out = linear(8, 16)
    out.load_state_dict({"weight": param["priorlogit/kernel"].T, "bias": param["priorlogit/bias"]})
    expected = F.log_softmax(data["prior_logits"], -1)
    check(F.log_softmax(out(prior(deter)).unflatten(-1, (4, 4)), -1), expected)
