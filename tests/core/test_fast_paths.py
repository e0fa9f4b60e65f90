"""Layers and losses that take a shorter way on a CPU give what the plain formula gives, gradients included."""

import pytest
import torch as th
import torch.nn.functional as F

from sb3_dreamer.core import functional as fn
from sb3_dreamer.core.images.convs2024 import enlarge
from sb3_dreamer.core.layers import RMSNorm
from sb3_dreamer.core.optim import OptimizerGroup, make_adam


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
