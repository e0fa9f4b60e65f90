"""Ours against updates of the authors' 2024 code, computed in float64 there and in float32 here."""

import numpy as np
import pytest
import torch as th
import torch.nn.functional as F
from gymnasium import spaces

from sb3_dreamer.convert import weights_2024
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.dreamer_v3.replay import START
from tests.convert.traces import (
    NOISE,
    Env,
    Trace,
    close,
    make_2024,
    make_batch,
    params,
    record,
    same_changes,
    start,
    take_modes,
)
from tests.golden.reduce_traces import UPDATES

LOSSES = {"recon_image": "image", "recon_vector": "vector", "reward": "rew", "cont": "con", "dyn": "dyn", "rep": "rep"}


def batch_of(trace: Trace, update: int) -> SequenceBatch:
    data = trace.under(f"data{update}/")
    action = data["action"]
    batch = make_batch(data, np.eye(4)[action] if trace.kind == "discrete" else action)
    states = th.from_numpy(data["deter"]), F.one_hot(th.from_numpy(data["stoch"]).long(), 4).float()
    return batch._replace(obs=batch.obs | dict(zip(START, states, strict=True)))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_updates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, model = Trace("trace_2024", kind), make_2024(kind)
    before = weights_2024(model.policy, trace.under("init/"))
    start(model, before)
    take_modes(monkeypatch)
    losses = record(monkeypatch, model.policy.world_model, "loss")
    replay = record(monkeypatch, model.behavior, "replay_value_loss")
    grads = record_gradients(model)
    for update in range(1, UPDATES + 1):
        result = model._update(batch_of(trace, update))
        expected = trace.under(f"update{update}/")
        for ours, theirs in LOSSES.items():
            close(ours, losses[-1].losses[ours], expected[f"loss/{theirs}"], 1e-4)
        close("replay value", replay[-1], expected["loss/repval"], 1e-4)
        for ours, theirs in (("actor_loss", "policy"), ("critic_loss", "value")):
            close(ours, result.metrics[ours], expected[f"loss/{theirs}"].mean(), 1e-4)
        close("total", result.metrics["model_loss"], expected["metric/opt/loss"], 1e-4)
        close("gradient norm", result.metrics["model_grad_norm"], expected["metric/opt/grad_norm"], 1e-3)
        norm = model.behavior.return_norm
        close(
            "range of returns", th.stack([norm.low, norm.high]), [expected[f"retnorm/{x}"] for x in ("lo", "hi")], 1e-4
        )
        if update == 1:
            same_changes(grads, weights_2024(model.policy, trace.sampled("grad")), 1e-2)
    close("deter", result.post.deter, expected["entry/deter"], 1e-4)
    changes = {name: value - before[name] for name, value in params(model).items()}
    same_changes(changes, weights_2024(model.policy, trace.sampled("delta")), 1e-2)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_sampled_update(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples instead of modes, from the same random numbers in both codes."""
    theirs, trace, model = Trace("sampled_2024", kind), Trace("trace_2024", kind), make_2024(kind)
    start(model, weights_2024(model.policy, trace.under("init/")))
    monkeypatch.setattr(th, "rand_like", lambda x: drawn("random", x.squeeze(-1)).unsqueeze(-1))
    monkeypatch.setattr(th, "randn_like", lambda x: drawn("standard_normal", x))
    losses = record(monkeypatch, model.policy.world_model, "loss")
    replay = record(monkeypatch, model.behavior, "replay_value_loss")
    result = model._update(batch_of(trace, 1))
    stoch = result.post.stoch.argmax(-1).numpy()
    assert (stoch == theirs["stoch"]).all()
    take_modes(monkeypatch)
    assert (stoch != model._update(batch_of(trace, 1)).post.stoch.argmax(-1).numpy()).mean() > 0.2, "modes all along"
    for ours, name in LOSSES.items():
        close(ours, losses[0].losses[ours], theirs[f"loss/{name}"], 1e-4)
    close("replay value", replay[0], theirs["loss/repval"], 1e-4)
    means = {"actor_loss": theirs["loss/policy"].mean(), "critic_loss": theirs["loss/value"].mean()}
    means |= {"model_loss": theirs["total"], "model_grad_norm": theirs["grad_norm"]}
    for ours, expected in (means | {name: theirs[name] for name in ("prior_ent", "post_ent", "entropy")}).items():
        close(ours, result.metrics[ours], expected, 1e-3 if ours == "model_grad_norm" else 1e-4)


def drawn(kind: str, like: th.Tensor) -> th.Tensor:
    """Random numbers that depend on their shape alone."""
    numbers = getattr(np.random.default_rng(like.numel()), kind)(tuple(like.shape))
    return th.from_numpy(numbers.astype(np.float32))


def record_gradients(model) -> dict[str, np.ndarray]:
    """Gradients of the first update, by name, as the optimizer gets them."""
    names = {id(param): name for name, param in model.policy.named_parameters()}
    optimizer, grads = model.model_optim, {}

    def hook(*_):
        for param in optimizer.param_groups[0]["params"]:
            grads.setdefault(names[id(param)], param.grad.numpy().copy())

    optimizer.register_step_pre_hook(hook)
    return grads


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_acting(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three environments with resets at different times; continuous actions have fixed noise."""
    trace, model = Trace("acting_2024", kind), make_2024(kind)
    start(model, weights_2024(model.policy, Trace("trace_2024", kind).under("init/")))
    if kind == "continuous":
        add_noise(model, monkeypatch)
    state = None
    for t, first in enumerate(trace["obs_is_first"]):
        obs = {"image": trace["obs_image"][t], "vector": trace["obs_vector"][t]}
        action, state = model.predict(obs, state, first, deterministic=True)
        close("deter", state[0], trace["deter"][t], 1e-4)
        expected = trace["act"][t]
        close("action", action, expected if kind == "discrete" else expected.clip(-1, 1), 1e-4)


def test_several_vectors_are_in_the_order_of_their_names_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same agent, its vector of 5 called alpha (3) and zeta (2), in an environment that names zeta first."""
    acting, init = Trace("acting_2024", "discrete"), Trace("trace_2024", "discrete").under("init/")
    for part in ("kernel", "bias"):
        head = init.pop(f"dec/vec/vector/pred/{part}")
        init[f"dec/vec/alpha/pred/{part}"], init[f"dec/vec/zeta/pred/{part}"] = np.split(head, [3], -1)
    sizes = {"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)}
    sizes |= {name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in (("zeta", 2), ("alpha", 3))}
    space = spaces.Dict(list(sizes.items()))
    assert list(space) == ["image", "zeta", "alpha"]
    monkeypatch.setattr(Env, "__init__", lambda self, discrete: vars(self).update(spaces_of(space)))
    model = make_2024("discrete")
    start(model, weights_2024(model.policy, init))
    vector = acting["obs_vector"][0]
    obs = {"image": acting["obs_image"][0], "alpha": vector[:, :3], "zeta": vector[:, 3:]}
    action, state = model.predict(obs, deterministic=True)
    close("action", action, acting["act"][0], 0)
    close("deter", state[0], acting["deter"][0], 1e-4)
    close("stoch", state[1], acting["stoch"][0], 0)


def spaces_of(observations: spaces.Dict) -> dict[str, spaces.Space]:
    return {"observation_space": observations, "action_space": spaces.Discrete(4)}


def add_noise(model, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = model.behavior.actor

    def mode(out: th.Tensor) -> th.Tensor:
        mean, std = actor.mean_std(out)
        return mean + std * NOISE

    monkeypatch.setattr(actor, "mode", mode)
