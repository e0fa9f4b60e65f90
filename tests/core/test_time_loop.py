"""Gradients from all steps at once are those that autograd adds up step by step."""

import contextlib

import pytest
import torch as th
from torch import nn

from sb3_dreamer.core import rssm as rssm_module
from sb3_dreamer.core.cells import BlockGRU, GRUCell, InputGRU, LayerNormGRUCell
from sb3_dreamer.core.latents import CategoricalLatent, GaussianLatent
from sb3_dreamer.core.layers import BlockLinear, LayerNorm, NormStyle, RMSNorm
from sb3_dreamer.core.rssm import RSSM
from sb3_dreamer.core.time_loop import weight_gradients_at_once

LAYER = NormStyle(norm="layer", act="silu")
RMS = NormStyle(norm="rms", act="silu", bias=True, eps=1e-4, fan="in")
PLAIN = NormStyle(norm="none", act="elu")
LATENT = CategoricalLatent(4, 8)


def dreamer_2023() -> RSSM:
    cell = InputGRU(LayerNormGRUCell(12, 16, style=LAYER), stoch=32, action=3, hidden=12, style=LAYER)
    return RSSM(cell, LATENT, embed=10, hidden=12, style=LAYER)


def dreamer_2024() -> RSSM:
    cell = BlockGRU(deter=16, stoch=32, action=3, hidden=12, blocks=4, style=RMS)
    return RSSM(cell, LATENT, embed=10, hidden=12, style=RMS, prior_layers=2, learned_start=False)


def planet() -> RSSM:
    cell = InputGRU(GRUCell(12, 16, style=PLAIN), stoch=6, action=3, hidden=12, style=PLAIN)
    return RSSM(cell, GaussianLatent(6), embed=10, hidden=12, style=PLAIN, learned_start=False)


def gradients(rssm: RSSM, inputs: tuple[th.Tensor, ...]) -> tuple[th.Tensor, list[th.Tensor]]:
    th.manual_seed(1)
    observed = rssm.observe(*inputs)
    loss = observed.state.feat.square().sum() + rssm.latent.kl(observed.post, observed.prior).sum()
    return loss.detach(), list(th.autograd.grad(loss, [*inputs[:2], *rssm.parameters()], allow_unused=True))


@pytest.mark.parametrize("make", [dreamer_2023, dreamer_2024, planet])
def test_gradients_are_equal(make, monkeypatch) -> None:
    th.manual_seed(0)
    rssm = make()
    for param in rssm.parameters():  # no zeros or ones, which would hide an error
        nn.init.normal_(param, 0.1, 0.3)
    first = th.zeros(5, 7, dtype=th.bool)
    first[2, 3] = True
    inputs = (th.randn(5, 7, 10, requires_grad=True), (th.rand(5, 7, 3) - 0.5).requires_grad_(), first)
    at_once = []

    @contextlib.contextmanager
    def counting(module, steps, rows):
        with weight_gradients_at_once(module, steps, rows):
            at_once.append(sum("forward" in vars(layer) for layer in module.modules()))
            yield

    monkeypatch.setattr(rssm_module, "weight_gradients_at_once", counting)
    loss, grads = gradients(rssm, inputs)
    assert at_once[0] >= 4, "layers must have taken the other way, or this test shows nothing"
    monkeypatch.setattr(rssm_module, "weight_gradients_at_once", lambda *_, **__: contextlib.nullcontext())
    plain_loss, plain = gradients(rssm, inputs)
    th.testing.assert_close(loss, plain_loss)
    for ours, theirs in zip(grads, plain, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            th.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_layers_are_as_before_afterwards_even_after_an_error() -> None:
    layers = nn.ModuleList([nn.Linear(3, 3), RMSNorm(3), LayerNorm(3), BlockLinear(1, 3, 3)])
    with pytest.raises(RuntimeError, match="stop"), weight_gradients_at_once(layers, 2, 4):
        assert all("forward" in vars(layer) for layer in layers)
        raise RuntimeError("stop")
    assert not any("forward" in vars(layer) for layer in layers)
    with th.no_grad(), weight_gradients_at_once(layers, 2, 4):
        assert not any("forward" in vars(layer) for layer in layers)


def test_a_layer_called_too_often_is_an_error() -> None:
    layer = nn.Linear(3, 3)
    with weight_gradients_at_once(layer, 2, 4), pytest.raises(IndexError):
        for _ in range(3):
            layer(th.zeros(4, 3))


def test_steps_that_no_loss_reads_add_nothing() -> None:
    layer, x = nn.Linear(3, 2), th.randn(2, 4, 3)
    with weight_gradients_at_once(layer, 2, 4):
        layer(x[0])
        out = layer(x[1])
    weight, bias = th.autograd.grad(out.sum(), list(layer.parameters()))
    th.testing.assert_close(weight, x[1].sum(0).expand(2, 3))
    th.testing.assert_close(bias, th.full((2,), 4.0))


@pytest.mark.parametrize("make", [dreamer_2023, dreamer_2024])
def test_mixed_precision(make) -> None:
    th.manual_seed(0)
    rssm = make()
    inputs = (th.randn(5, 7, 10, requires_grad=True), (th.rand(5, 7, 3) - 0.5).requires_grad_(), th.zeros(5, 7) > 0)
    with th.autocast("cpu", th.bfloat16):
        observed = rssm.observe(*inputs)
        loss = observed.state.deter.float().square().sum()
    grads = th.autograd.grad(
        loss, [rssm.cell.stoch_in.linears[0].weight if make is dreamer_2024 else rssm.cell.stoch_in.weight]
    )
    assert grads[0].dtype == th.float32 and bool(th.isfinite(grads[0]).all()) and float(grads[0].abs().sum()) > 0
