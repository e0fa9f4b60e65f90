"""Ours against updates of the authors' 2023 code, computed in float64 there and in float32 here."""

import numpy as np
import pytest
import torch as th

from sb3_dreamer.convert import weights_2023, weights_2024, weights_v2
from sb3_dreamer.core.types import SequenceBatch
from tests.convert.traces import (
    Trace,
    close,
    make_2023,
    make_2024,
    make_batch,
    make_v2,
    params,
    record,
    same_changes,
    start,
    take_modes,
)
from tests.golden.reduce_traces import UPDATES

LOSSES = {"recon_image": "image", "recon_vector": "vector", **{name: name for name in ("reward", "cont", "dyn", "rep")}}
GRAD_NORMS = {
    "model": "model_opt_grad_norm",
    "actor": "actor_opt_grad_norm",
    "critic": "extr_critic_critic_opt_grad_norm",
}


def batch_of(trace: Trace, update: int) -> SequenceBatch:
    """An action stands in the row that it was taken in."""
    data = trace.under(f"data{update}/")
    action = data["action"]
    return make_batch(data, np.concatenate([np.zeros_like(action[:, :1]), action[:, :-1]], 1))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_updates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, model = Trace("trace_2023", kind), make_2023(kind)
    before, norm = weights_2023(model.policy, trace.under("init/")), model.behavior.return_norm
    start(model, before)
    for name in ("low", "high"):
        getattr(norm, name).fill_(float(trace[f"init_retnorm/{name}"]))
    take_modes(monkeypatch)
    losses = record(monkeypatch, model.policy.world_model, "loss")
    dreams, targets = (record(monkeypatch, model.behavior, name) for name in ("rollout", "targets"))
    for update in range(1, UPDATES + 1):
        result = model._update(batch_of(trace, update))
        expected = trace.under(f"update{update}/")
        for ours, theirs in LOSSES.items():
            close(ours, losses[-1].losses[ours], expected[f"loss/{theirs}"], 1e-4)
        for ours, theirs in GRAD_NORMS.items():
            close(
                f"gradient norm of the {ours}", result.metrics[f"{ours}_grad_norm"], expected[f"metric/{theirs}"], 1e-3
            )
        for name in ("low", "high"):
            close("range of returns", getattr(norm, name), expected[f"retnorm/{name}"], 1e-4)
        if update in (1, UPDATES):
            check_dream(model, dreams[-1], targets[-1], result.metrics, trace.under(f"update{update}/dream/"))
    close("deter", result.post.deter, expected["post/deter"], 1e-4)
    changes = {name: value - before[name] for name, value in params(model).items()}
    same_changes(changes, weights_2023(model.policy, trace.sampled("delta")), 1e-2)


def test_weights_of_another_version_are_refused() -> None:
    models = {weights_2023: make_2023("discrete"), weights_2024: make_2024("discrete"), weights_v2: make_v2("discrete")}
    for convert, own in models.items():
        for model in models.values():
            if model is not own:
                with pytest.raises(ValueError, match=f"this is a {type(model.policy.spec).__name__}: pass"):
                    convert(model.policy, {})
        with pytest.raises(ValueError, match=f"this is a {type(own).__name__}: pass the policy of a model of Dreamer"):
            convert(own, {})


def check_dream(model, dream, targets, metrics: dict[str, th.Tensor], expected: dict[str, np.ndarray]) -> None:
    """Time comes first there, and the weights include the last state."""
    pairs = {
        "rew": dream.reward,
        "ret": targets.returns,
        "base": targets.value,
        "logpi": dream.log_prob,
        "ent": dream.entropy,
    }
    for name, ours in pairs.items():
        close(f"{name} of the dream", ours.T, expected[name], 1e-4)
    close("weights of the dream", targets.weight.T, expected["weight"][:-1], 1e-4)
    close("scale", metrics["return_scale"], expected["scale"], 1e-4)
    close("actor's loss", metrics["actor_loss"], expected["actor_loss"].mean(), 1e-3)
    close("critic's loss", metrics["critic_loss"], expected["critic/critic_loss"].mean(), 1e-4)
