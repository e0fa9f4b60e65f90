"""Layers and losses that take a shorter way on a CPU give what the plain formula gives, gradients included."""

import pytest
import torch as th
import torch.nn.functional as F

from sb3_dreamer.core import functional as fn
from sb3_dreamer.core import one_hot_linear
from sb3_dreamer.core.convs2024 import enlarge
from sb3_dreamer.core.heads import TwoHotHead
from sb3_dreamer.core.layers import NormStyle, RMSNorm
from sb3_dreamer.core.one_hot_linear import CHUNK, FEWEST_ROWS, OneHotBlocks, OneHotLinear, _LookUp
from sb3_dreamer.core.optim import OptimizerGroup, make_adam

STYLE = NormStyle(norm="layer", act="silu")


def one_hot_features(rows: int, blocks: OneHotBlocks) -> th.Tensor:
    """Random features whose blocks are one-hot; every third row has blocks of zeros, as a start state has."""
    hot = F.one_hot(th.randint(0, blocks.classes, (rows, blocks.stoch)), blocks.classes).float()
    hot[::3] = 0.0
    return th.cat([th.randn(rows, blocks.start), hot.flatten(1)], 1)


@pytest.mark.parametrize("rows", [FEWEST_ROWS, CHUNK + 3])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_look_up_equals_the_product(rows: int, start: int, bias: bool, monkeypatch) -> None:
    blocks = OneHotBlocks(start, 3, 8)
    layer = OneHotLinear(start + 24, 7, blocks=blocks, bias=bias)
    x = one_hot_features(rows, blocks).requires_grad_()
    calls = []
    apply = _LookUp.apply
    monkeypatch.setattr(_LookUp, "apply", lambda *args: calls.append(1) or apply(*args))
    out, plain = layer(x), F.linear(x, layer.weight, layer.bias)
    assert calls, "the short way must have been taken, or this test shows nothing"
    th.testing.assert_close(out, plain)
    grad = th.randn_like(out)
    wanted = [x, *layer.parameters()]
    for ours, theirs in zip(th.autograd.grad(out, wanted, grad), th.autograd.grad(plain, wanted, grad), strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_look_up_is_left_to_where_it_pays() -> None:
    few = OneHotLinear(24, 7, blocks=OneHotBlocks(0, 3, 8))
    soft = th.rand(FEWEST_ROWS - 1, 24)  # no one-hot blocks: only the plain product gives the right answer
    assert th.equal(few(soft), F.linear(soft, few.weight, few.bias))
    small = OneHotLinear(12, 7, blocks=OneHotBlocks(0, 3, 4))
    soft = th.rand(FEWEST_ROWS, 12)
    assert th.equal(small(soft), F.linear(soft, small.weight, small.bias))
    with pytest.raises(ValueError, match="inputs=25"):
        OneHotLinear(25, 7, blocks=OneHotBlocks(0, 3, 8))


def test_look_up_keeps_batch_axes() -> None:
    blocks = OneHotBlocks(2, 3, 8)
    layer = OneHotLinear(26, 7, blocks=blocks)
    x = one_hot_features(600, blocks)
    assert th.equal(layer(x.unflatten(0, (20, 30))), layer(x).unflatten(0, (20, 30)))


@pytest.mark.parametrize("classes", [2, 4, 8, 9])
def test_softmax(classes: int) -> None:
    logits = (10 * th.randn(50, 3, classes)).requires_grad_()
    ours, theirs = fn.softmax(logits), F.softmax(logits, -1)
    th.testing.assert_close(ours, theirs)
    grad = th.randn_like(ours)
    th.testing.assert_close(th.autograd.grad(ours, logits, grad)[0], th.autograd.grad(theirs, logits, grad)[0])
    assert th.isfinite(fn.softmax(th.tensor([[1e4, -1e4]]))).all()


def test_two_hot_loss_of_several_targets_and_its_gradient() -> None:
    bins = fn.symlog_bins(11)
    logits = th.randn(6, 4, 11, dtype=th.float32).requires_grad_()
    targets = 30 * th.randn(6, 4, 2)

    def dense(target: th.Tensor) -> th.Tensor:
        position = (target.clamp(-20, 20) + 20) / 4  # bins are 4 apart
        distance = (position.unsqueeze(-1) - th.arange(11)).abs()
        return -((1 - distance).clamp(min=0) * F.log_softmax(logits, -1)).sum(-1)

    ours, theirs = fn.two_hot_loss(logits, targets, bins), dense(targets[..., 0]) + dense(targets[..., 1])
    th.testing.assert_close(ours, theirs)
    weight = th.randn(6, 4)
    ours, theirs = (th.autograd.grad((weight * loss).sum(), logits)[0] for loss in (ours, theirs))
    th.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_heads_read_dreams_in_the_order_of_memory() -> None:
    head = TwoHotHead(5, (6,), style=STYLE, n_bins=11, outscale=1.0)
    by_steps = th.randn(4, 3, 5).transpose(0, 1)  # (N, H, F), step by step in memory
    plain = by_steps.contiguous()
    target = th.randn(3, 4)
    for function in (head, lambda x: head.mean(head(x)), lambda x: head.loss(head(x), target, 2 * target)):
        th.testing.assert_close(function(by_steps), function(plain))


def test_rms_norm() -> None:
    ours, theirs = RMSNorm(9, eps=1e-4), th.nn.RMSNorm(9, eps=1e-4)
    for norm in (ours, theirs):
        th.nn.init.uniform_(norm.weight, generator=th.Generator().manual_seed(0))
    x = th.randn(4, 5, 9).requires_grad_()
    grad = th.randn(4, 5, 9)
    th.testing.assert_close(ours(x), theirs(x))
    results = [th.autograd.grad(norm(x), [x, norm.weight], grad) for norm in (ours, theirs)]
    for one, other in zip(*results, strict=True):
        th.testing.assert_close(one, other)


def test_look_up_computes_only_the_gradients_that_are_asked_for(monkeypatch) -> None:
    blocks = OneHotBlocks(2, 3, 8)
    layer = OneHotLinear(26, 7, blocks=blocks)
    x = one_hot_features(FEWEST_ROWS, blocks).requires_grad_()
    ran = []
    backward = one_hot_linear._Through.backward
    monkeypatch.setattr(
        one_hot_linear._Through, "backward", lambda ctx, grad: ran.append(ctx.transposed) or backward(ctx, grad)
    )
    th.autograd.grad(layer(x).sum(), x)
    assert ran == [False]  # the input's alone
    th.autograd.grad(layer(x).sum(), layer.weight)
    assert ran == [False, True]


@pytest.mark.parametrize("size", [(12, 18), (11, 18), (12, 17)])
@pytest.mark.parametrize("bias", [False, True])
def test_enlarging_equals_repeating_pixels_and_convolving(size: tuple[int, int], bias: bool) -> None:
    conv = th.nn.Conv2d(5, 7, 5, 1, 2, bias=bias).double()
    x = th.randn(3, 5, 6, 9, dtype=th.float64).requires_grad_()
    ours, plain = enlarge(x, conv, size), conv(F.interpolate(x, size=size, mode="nearest"))
    assert ours.shape == (3, 7, *size)
    th.testing.assert_close(ours, plain)
    grad, wanted = th.randn_like(plain), [x, *conv.parameters()]
    for one, other in zip(th.autograd.grad(ours, wanted, grad), th.autograd.grad(plain, wanted, grad), strict=True):
        th.testing.assert_close(one, other)


def test_enlarging_makes_no_large_map(monkeypatch) -> None:
    """Only odd sides, whose last pixels are not repeated, take the way over the repeated pixels."""
    conv, x, calls = th.nn.Conv2d(5, 7, 5, 1, 2), th.randn(1, 5, 6, 9), []
    plain = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *args, **kwargs: calls.append(1) or plain(*args, **kwargs))
    enlarge(x, conv, (12, 18))
    assert not calls
    enlarge(x, conv, (12, 17))
    assert calls


def test_fused_steps_see_gradients_in_the_order_of_their_weights() -> None:
    """Gradients of channels-last convolutions lie in another order in memory, which fused kernels do not look at."""
    th.manual_seed(0)
    fused, plain = (th.nn.Conv2d(3, 5, 4, 2, 1) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    group = OptimizerGroup("x", fused.parameters(), make_adam(fused.parameters(), 0.1), None)
    adam = th.optim.Adam(plain.parameters(), 0.1, fused=False)
    x = th.randn(2, 3, 8, 8).contiguous(memory_format=th.channels_last)
    (grad,) = th.autograd.grad(fused(x).square().sum(), [fused.weight])
    assert grad.stride() != fused.weight.stride(), "or this test shows nothing"
    for _ in range(2):
        group.step(fused(x).square().sum())
        adam.zero_grad()
        plain(x).square().sum().backward()
        adam.step()
    th.testing.assert_close(fused.weight, plain.weight)
