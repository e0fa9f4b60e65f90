"""Weights of the loop over time that get their gradients from all steps at once, as on a GPU, forced on a CPU."""

import gc
import weakref
from typing import Any

import pytest
import torch as th

from sb3_dreamer.common.updates.compiled import CompiledSteps
from sb3_dreamer.core import rssm
from sb3_dreamer.core.functional import run_steps_by
from sb3_dreamer.zoo.speed.case import Case, build

ALL = {
    "dreamerv3": Case("dreamerv3", "debug", batch_size=4, batch_length=6, replay_rows=500),
    "dreamerv3-2024": Case("dreamerv3", "debug2024", batch_size=4, batch_length=6, replay_rows=500),
    "dreamerv2": Case("dreamerv2", "debug", batch_size=4, batch_length=6, replay_rows=500),
    "planet": Case("planet", "debug", batch_size=4, batch_length=6, replay_rows=500),
}


def prepare(name: str) -> tuple[Any, Any, Any]:
    """World model, a batch in which an episode begins, and the state before its first row."""
    model = build(ALL[name])
    batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
    batch.is_first[1, 3] = True
    start = model.policy.world_model.rssm.initial(model.batch_size).detach()
    return model.policy.world_model, batch, start._replace(deter=th.tanh(th.randn_like(start.deter)))


def gradients(world_model: Any, batch: Any, start: Any) -> tuple[Any, dict[str, th.Tensor | None]]:
    """Posterior states, and the gradient of all losses by name; the same samples in every call."""
    th.manual_seed(0)
    losses, post, _ = world_model.loss(batch, start)
    named = dict(world_model.named_parameters())
    total = world_model.total(losses) + post.feat.square().mean()
    found = th.autograd.grad(total, list(named.values()), allow_unused=True)
    return post.detach(), dict(zip(named, found, strict=True))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("with_state", [True, False])
def test_gradients_are_those_of_the_plain_loop(name: str, with_state: bool, monkeypatch) -> None:
    world_model, batch, start = prepare(name)
    start = start if with_state else None
    post, plain = gradients(world_model, batch, start)
    monkeypatch.setattr(rssm, "AT_ONCE_ON", {"cpu"})
    again, at_once = gradients(world_model, batch, start)
    assert all(th.equal(a, b) for a, b in zip(post, again, strict=True))
    in_loop = [name for name in plain if name.startswith(("rssm.cell", "rssm.post_")) and plain[name] is not None]
    assert len(in_loop) >= 6 and any(plain[name].abs().max() > 1e-6 for name in in_loop)
    for key, value in plain.items():
        assert (value is None) == (at_once[key] is None), key
        if value is not None:
            th.testing.assert_close(at_once[key], value, rtol=1e-4, atol=1e-5 * float(value.norm()) + 1e-8, msg=key)


@pytest.mark.parametrize("name", ALL)
def test_in_mixed_precision(name: str, monkeypatch) -> None:
    """Weights are converted once before the loop; norms keep theirs. The error is not larger than the plain loop's."""
    exact = prepare(name)
    _, truth = gradients(*exact)
    with th.autocast("cpu", dtype=th.bfloat16):
        _, plain = gradients(*exact)
        monkeypatch.setattr(rssm, "AT_ONCE_ON", {"cpu"})
        _, at_once = gradients(*exact)
        constants = rssm.StepWeights(exact[0].rssm, exact[0].rssm._transition).constants()
    assert {value.dtype for key, value in constants.items() if "norm" in key} <= {th.float32}
    assert {value.dtype for key, value in constants.items() if "norm" not in key} == {th.bfloat16}

    def error(found: dict[str, th.Tensor | None]) -> float:
        pairs = [(found[key], value) for key, value in truth.items() if value is not None and "rssm" in key]
        return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)) ** 0.5

    assert error(at_once) < 1.5 * error(plain) + 1e-3


def test_no_gradient_wanted(monkeypatch) -> None:
    monkeypatch.setattr(rssm, "AT_ONCE_ON", {"cpu"})
    world_model, batch, start = prepare("dreamerv3")
    with th.no_grad():
        assert not world_model.loss(batch, start).post.deter.requires_grad
    world_model.requires_grad_(False)
    assert not world_model.loss(batch, start).post.deter.requires_grad


def test_some_weights_do_not_learn(monkeypatch) -> None:
    monkeypatch.setattr(rssm, "AT_ONCE_ON", {"cpu"})
    world_model, batch, start = prepare("dreamerv3")
    _, all_of_them = gradients(world_model, batch, start)
    world_model.rssm.cell.requires_grad_(False)
    th.manual_seed(0)
    losses, post, _ = world_model.loss(batch, start)
    (world_model.total(losses) + post.feat.square().mean()).backward()
    assert all(weight.grad is None for weight in world_model.rssm.cell.parameters())
    th.testing.assert_close(world_model.rssm.post_out.weight.grad, all_of_them["rssm.post_out.weight"])


def test_memory_is_free_after_the_backward_pass(monkeypatch) -> None:
    """Nothing refers to itself: the graph goes without the garbage collector."""
    monkeypatch.setattr(rssm, "AT_ONCE_ON", {"cpu"})
    world_model, batch, start = prepare("dreamerv3")
    gc.collect()
    gc.disable()
    try:
        losses, post, _ = world_model.loss(batch, start)
        total = world_model.total(losses)
        kept = weakref.ref(post.deter)
        total.backward()
        del losses, post, total
        assert kept() is None
    finally:
        gc.enable()


def test_steps_are_compiled_as_well(monkeypatch) -> None:
    monkeypatch.setattr(rssm, "AT_ONCE_ON", {"cpu"})
    case = prepare("dreamerv3-2024")
    _, plain = gradients(*case)
    runner = CompiledSteps("aot_eager")
    with run_steps_by(runner):
        _, compiled = gradients(*case)
        constants = gradients(*case)[1]  # the constants are new tensors; the step is not compiled again
    assert runner.possible and {step.__name__ for step in runner.steps} == {"_filter_step", "activated_rms_norm"}
    for key, value in plain.items():
        if value is not None:
            th.testing.assert_close(compiled[key], value, rtol=1e-3, atol=1e-5, msg=key)
            th.testing.assert_close(constants[key], compiled[key], msg=key)
