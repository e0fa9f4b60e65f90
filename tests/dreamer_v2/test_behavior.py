"""Losses, weights and targets of the actor and the critic against numbers worked out by hand."""

import pytest
import torch as th

from sb3_dreamer.core.action_heads import OneHotHead, TruncatedNormalHead
from sb3_dreamer.core.heads import MSEHead
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.types import ImaginedTrajectory
from sb3_dreamer.dreamer_v2.behavior import DreamerV2Behavior
from sb3_dreamer.dreamer_v2.networks import DiscountHead

STYLE = NormStyle(norm="none", act="elu")
GAMMA, LAMBDA = 0.5, 0.75


class TableCritic(MSEHead):
    """The value of a state is its feature."""

    def __init__(self) -> None:
        super().__init__(1, (), style=STYLE)
        with th.no_grad():
            self.out.weight.fill_(1.0)


def make() -> tuple[DreamerV2Behavior, ImaginedTrajectory]:
    behavior = DreamerV2Behavior(OneHotHead(1, (), (2,), style=STYLE), TableCritic(), actor_gradient="both")
    with th.no_grad():
        behavior.slow_critic.out.weight.fill_(10.0)  # slow values are ten times the features
    log_prob = th.tensor([[-0.5, -1.0]], requires_grad=True)
    entropy = th.tensor([[0.2, 0.4]], requires_grad=True)
    dream = ImaginedTrajectory(
        feat=th.tensor([[[1.0], [2.0], [3.0]]], requires_grad=True),
        action=th.zeros(1, 2, 2),
        log_prob=log_prob,
        entropy=entropy,
        reward=th.tensor([[5.0, 7.0]]),
        cont=th.tensor([[1.0, 0.8, 0.4]]),
    )
    return behavior, dream


def test_targets() -> None:
    behavior, dream = make()
    targets = behavior.targets(dream, GAMMA, LAMBDA)
    last = 7.0 + 0.4 * GAMMA * 30.0
    first = 5.0 + 0.8 * GAMMA * (0.25 * 20.0 + 0.75 * last)
    assert targets.returns.tolist() == [[pytest.approx(first), pytest.approx(last)]]
    assert targets.value.tolist() == [[1.0, 2.0]]
    assert targets.weight.tolist() == [[1.0, pytest.approx(0.8 * GAMMA)]]
    assert th.autograd.grad(targets.returns.sum(), dream.feat)[0].any()  # dynamics gradients pass the slow critic


def test_losses() -> None:
    behavior, dream = make()
    targets = behavior.targets(dream, GAMMA, LAMBDA)
    (first, last), rho, eta = targets.returns[0].tolist(), 0.25, 0.1
    loss = behavior.actor_loss(dream, targets, th.tensor(rho), th.tensor(eta))
    terms = [
        rho * -0.5 * (first - 1.0) + (1 - rho) * first + eta * 0.2,
        rho * -1.0 * (last - 2.0) + (1 - rho) * last + eta * 0.4,
    ]
    assert loss.item() == pytest.approx(-(terms[0] + 0.4 * terms[1]) / 2)
    grads = th.autograd.grad(loss, (dream.log_prob, dream.entropy), retain_graph=True)
    assert grads[0][0].tolist() == pytest.approx([-rho * (first - 1.0) / 2, -rho * 0.4 * (last - 2.0) / 2])
    assert grads[1][0].tolist() == pytest.approx([-eta / 2, -eta * 0.4 / 2])
    critic = behavior.critic_loss(targets)
    assert critic.item() == pytest.approx(0.25 * ((first - 1.0) ** 2 + 0.4 * (last - 2.0) ** 2))
    reached = th.autograd.grad(critic, [dream.feat, *behavior.slow_critic.parameters()], allow_unused=True)
    assert reached == (None, None, None)  # neither the dream nor the slow critic learns from it


def test_a_dream_from_a_terminal_row_counts_for_nothing() -> None:
    behavior, dream = make()
    dream = dream._replace(cont=th.tensor([[0.0, 0.8, 0.4]]))
    targets = behavior.targets(dream, GAMMA, LAMBDA)
    assert not targets.weight.any()
    assert behavior.critic_loss(targets).item() == 0.0


def test_discount_head_learns_gamma_from_soft_targets() -> None:
    head = DiscountHead(1, (), style=STYLE)
    head.gamma = 0.9
    logit = th.logit(th.tensor([[0.9]]))
    assert head.mean(logit).tolist() == [pytest.approx(1.0)]
    for target, probability in ((1.0, 0.9), (0.0, 0.0)):
        probs = th.linspace(0.001, 0.999, 999)
        losses = head.loss(th.logit(probs).unsqueeze(-1), th.full((999,), target))
        assert float(probs[losses.argmin()]) == pytest.approx(probability, abs=2e-3)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (2.0, -4.0), (-0.7, 3.0)])
def test_truncated_normal(mean: float, std: float) -> None:
    head = TruncatedNormalHead(1, (), 1, style=STYLE)
    out = th.tensor([mean, std])
    grid = th.linspace(-1.0, 1.0, 20001).unsqueeze(-1)
    log_prob, entropy = head.stats(out.expand(len(grid), 2), grid)
    density = log_prob.double().exp()
    assert float(th.trapezoid(density, grid[:, 0].double())) == pytest.approx(1.0, abs=1e-3)
    assert float(th.trapezoid(-density * log_prob, grid[:, 0].double())) == pytest.approx(float(entropy[0]), abs=1e-3)
    th.manual_seed(0)
    samples = head.sample(out.expand(20000, 2))
    assert float(samples.abs().max()) <= 1.0
    expected = float(th.trapezoid(density * grid[:, 0], grid[:, 0].double()))
    assert float(samples.mean()) == pytest.approx(expected, abs=0.02)


def test_truncated_normal_with_the_gradient_of_an_untruncated_one() -> None:
    """TensorFlow's sampler: 1 by the mean, the noise by the deviation; the same samples."""
    exact, other = (TruncatedNormalHead(1, (), 2, style=STYLE, exact=flag) for flag in (True, False))
    out = th.tensor([[0.3, -0.2, -0.5, 1.0]] * 50, requires_grad=True)
    samples = []
    for head in (exact, other):
        th.manual_seed(0)
        samples.append(head.sample(out))
    assert th.equal(*samples)
    mean, std = (part.detach().requires_grad_() for part in other.mean_std(out))
    other.mean_std = lambda _: (mean, std)
    th.manual_seed(0)
    sample = other.sample(out)
    by_mean, by_std = th.autograd.grad(sample.sum(), (mean, std))
    th.testing.assert_close(by_mean, th.ones_like(mean))
    th.testing.assert_close(by_std, (sample - mean) / std)


def test_truncated_normal_gradient_against_finite_differences() -> None:
    head = TruncatedNormalHead(1, (), 1, style=STYLE)

    def mean_square(out: th.Tensor) -> th.Tensor:
        th.manual_seed(0)
        return head.sample(out.expand(4000, 2)).square().mean()

    out = th.tensor([0.3, -0.5], requires_grad=True)
    grad = th.autograd.grad(mean_square(out), out)[0]
    for i in range(2):
        step = th.eye(2)[i] * 1e-2
        numeric = (mean_square(out + step) - mean_square(out - step)) / 2e-2
        assert float(grad[i]) == pytest.approx(float(numeric), abs=1e-3)
