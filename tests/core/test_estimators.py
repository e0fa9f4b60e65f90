"""Gradient estimators against exact enumeration, finite differences and their limits."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch as th
from torch import Tensor

from sb3_dreamer.core.baselines import darn_loss, muprop_loss, score_function_loss, taylor_baseline
from sb3_dreamer.core.estimators import (
    ESTIMATORS,
    GumbelSoftmax,
    ScoreFunction,
    StraightThrough,
    StraightThroughGumbel,
    categorical_log_prob,
    cosine_temperature,
    exponential_temperature,
    gumbel_like,
    linear_temperature,
    make_estimator,
    relaxed_sample,
    sample_one_hot,
)

LOGITS = th.tensor([0.5, -1.0, 1.5, 0.2], dtype=th.float64)
WEIGHT = th.tensor([1.0, -2.0, 0.7, 0.4], dtype=th.float64)


def cubic(z: Tensor) -> Tensor:
    """A cost in which no Taylor expansion of first or second order is exact: ``(...)`` from ``(..., K)``."""
    return ((z * WEIGHT[: z.shape[-1]]).sum(-1) + 1.0) ** 3


def exact_gradient(logits: Tensor, cost) -> Tensor:
    """Differentiate ``sum_z p(z) f(z)`` over every joint outcome of S variables, logits ``(S, K)``."""
    logits = logits.clone().requires_grad_()
    outcomes = enumerate_samples(*logits.shape)
    log_prob = (outcomes * logits.log_softmax(-1)).sum((-1, -2))
    return th.autograd.grad((log_prob.exp() * cost(outcomes)).sum(), logits)[0]


def enumerate_samples(variables: int, classes: int) -> Tensor:
    eye = th.eye(classes, dtype=th.float64)
    return th.stack([eye[list(index)] for index in itertools.product(range(classes), repeat=variables)])


def expected_gradient(logits: Tensor, loss_of) -> Tensor:
    """Expectation of a per-sample gradient estimate: the loss of every outcome, weighted by a constant p(z)."""
    logits = logits.clone().requires_grad_()
    outcomes = enumerate_samples(*logits.shape)
    weight = (outcomes * logits.log_softmax(-1)).sum((-1, -2)).exp().detach()
    loss = loss_of(logits.expand(len(outcomes), *logits.shape), outcomes)
    return th.autograd.grad((weight * loss).sum(), logits)[0]


# --- samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 32, 32)])
def test_shape_and_dtype(name, shape):
    for dtype in (th.float32, th.float64, th.bfloat16):
        sample = make_estimator(name, 0.7)(th.randn(shape).to(dtype))
        assert sample.shape == shape
        assert sample.dtype == dtype
        th.testing.assert_close(sample.float().sum(-1), th.ones(shape[:-1]), atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", ["straight_through", "st_gumbel_softmax", "score_function"])
def test_hard_samples_are_exactly_one_hot(name):
    sample = make_estimator(name, 0.3)(3 * th.randn(1000, 7))
    assert set(sample.unique().tolist()) == {0.0, 1.0}
    assert (sample.sum(-1) == 1).all()


def test_gumbel_softmax_is_inside_the_simplex():
    sample = GumbelSoftmax(1.0)(th.randn(1000, 7))
    assert ((sample > 0) & (sample < 1)).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_argmax_of_samples_follows_the_softmax(name):
    """The Gumbel-max theorem and the inverse CDF draw from the same categorical distribution, at any temperature."""
    th.manual_seed(0)
    draws = 200_000
    sample = make_estimator(name, 0.4)(LOGITS.float().expand(draws, 4) + 5.0)  # unnormalized on purpose
    frequency = th.nn.functional.one_hot(sample.argmax(-1), 4).double().mean(0)
    probs = LOGITS.softmax(-1)
    assert ((frequency - probs).abs() < 5 * (probs * (1 - probs) / draws).sqrt()).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_masked_classes_are_never_drawn_and_the_gradient_is_finite(name):
    th.manual_seed(0)
    logits = th.tensor([-math.inf, 0.3, -math.inf, 0.1, -math.inf]).expand(50_000, 5).clone().requires_grad_()
    sample = make_estimator(name, 0.5)(logits)
    assert (sample[:, [0, 2, 4]] == 0).all()
    if sample.requires_grad:
        (grad,) = th.autograd.grad((sample * th.arange(5.0)).sum(), logits)
        assert grad.isfinite().all()


def test_inverse_cdf_at_both_ends_of_the_unit_interval(monkeypatch):
    """u = 0 and the largest u below 1 fall on classes of positive probability, though both end classes have none."""
    probs = th.tensor([[0.0, 0.3, 0.7, 0.0], [0.0, 0.1, 0.9, 0.0]])
    for u, drawn in ((0.0, 1), (1.0 - 2.0**-24, 2)):
        monkeypatch.setattr(th, "rand_like", lambda x, u=u: th.full_like(x, u))
        assert sample_one_hot(probs).argmax(-1).tolist() == [drawn, drawn]


def test_nan_logits_stay_visible():
    sample = StraightThrough()(th.tensor([[math.nan, 0.0, 1.0]], requires_grad=True))
    assert sample.isnan().any()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_samples_depend_on_the_torch_seed_alone(name):
    logits = th.randn(50, 8)
    estimator = make_estimator(name, 0.5)
    th.manual_seed(3)
    first = estimator(logits)
    th.manual_seed(3)
    assert th.equal(first, estimator(logits))
    assert not th.equal(first, estimator(logits))


# --- the limit T -> 0 ----------------------------------------------------------------------------------------------


def test_relaxed_samples_become_one_hot_as_the_temperature_falls():
    th.manual_seed(0)
    logits = th.randn(2000, 6, dtype=th.float64)
    noise = gumbel_like(logits)
    hard = th.nn.functional.one_hot((logits + noise).argmax(-1), 6).double()
    distance = [(relaxed_sample(logits, t, noise) - hard).abs().sum(-1).mean().item() for t in (2.0, 0.5, 0.1, 1e-4)]
    assert distance == sorted(distance, reverse=True)
    assert distance[0] > 0.5
    assert distance[-1] < 1e-3


def test_relaxed_objective_approaches_the_exact_one():
    """E[f(y)] tends to E[f(z)], and the mean pathwise gradient to the exact one, as T falls."""
    th.manual_seed(0)
    exact = exact_gradient(LOGITS[None], lambda z: cubic(z).sum(-1))[0]
    error = []
    for temperature in (2.0, 0.5, 0.1):
        logits = LOGITS.clone().requires_grad_()
        sample = GumbelSoftmax(temperature)(logits.expand(400_000, 4))
        error.append((th.autograd.grad(cubic(sample).mean(), logits)[0] - exact).norm().item())
    assert error[0] > error[1] > error[2]
    assert error[2] < 0.1 * exact.norm()


# --- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_gumbel_softmax_gradient_is_that_of_the_relaxed_objective(temperature):
    """Central differences of f(y) at a fixed seed, hence fixed noise."""

    def objective(logits: Tensor) -> Tensor:
        th.manual_seed(1)
        return cubic(GumbelSoftmax(temperature)(logits)).sum()

    logits = th.stack([LOGITS, -LOGITS]).requires_grad_()
    (grad,) = th.autograd.grad(objective(logits), logits)
    th.testing.assert_close(grad, central_differences(objective, logits.detach()), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_st_gumbel_gradient_is_the_relaxed_jacobian_at_the_hard_point(temperature):
    """For a linear f the gradient at the hard sample equals the finite difference of the relaxed objective."""

    def relaxed_objective(logits: Tensor) -> Tensor:
        th.manual_seed(1)
        return (GumbelSoftmax(temperature)(logits) * WEIGHT).sum()

    logits = th.stack([LOGITS, -LOGITS]).requires_grad_()
    th.manual_seed(1)
    sample = StraightThroughGumbel(temperature)(logits)
    (grad,) = th.autograd.grad((sample * WEIGHT).sum(), logits)
    th.testing.assert_close(grad, central_differences(relaxed_objective, logits.detach()), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_straight_through_gradient_is_that_of_the_probabilities(temperature):
    logits = LOGITS.expand(3, 4).clone().requires_grad_()
    (grad,) = th.autograd.grad((StraightThrough(temperature)(logits) * WEIGHT).sum(), logits)
    expected = central_differences(lambda x: ((x / temperature).softmax(-1) * WEIGHT).sum(), logits.detach())
    th.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-8)


def test_score_function_samples_carry_no_gradient():
    assert not ScoreFunction()(LOGITS.clone().requires_grad_()).requires_grad
    assert not ScoreFunction().pathwise
    assert all(make_estimator(name).pathwise for name in ESTIMATORS if name != "score_function")


def central_differences(objective, logits: Tensor, step: float = 1e-5) -> Tensor:
    grad = th.zeros_like(logits)
    for index in itertools.product(*map(range, logits.shape)):
        shift = th.zeros_like(logits)
        shift[index] = step
        grad[index] = (objective(logits + shift) - objective(logits - shift)) / (2 * step)
    return grad


# --- bias, by exact enumeration ------------------------------------------------------------------------------------

# Measured once by enumeration of TWO: |E[ST] - exact| / |exact| and their cosine.
ST_BIAS = 0.859142
ST_COSINE = 0.969105
TWO = th.stack([LOGITS[:3], th.tensor([-0.4, 0.9, 0.1], dtype=th.float64)])


def joint_cost(z: Tensor) -> Tensor:
    """A cubic cost of two variables that do not separate, ``(...)`` from ``(..., 2, 3)``."""
    return cubic(z).sum(-1) + 2.0 * cubic(z[..., 0, :] * z[..., 1, :])


def mean_field(logits: Tensor, cost) -> tuple[Tensor, Tensor]:
    mean = logits.softmax(-1).detach().requires_grad_()
    value = cost(mean)
    return value.detach(), th.autograd.grad(value.sum(), mean)[0]


@pytest.mark.parametrize("baseline", [0.0, 3.7])
def test_score_function_is_unbiased(baseline):
    def loss(logits, z):
        return score_function_loss(categorical_log_prob(logits, z).sum(-1), joint_cost(z), baseline)

    th.testing.assert_close(expected_gradient(TWO, loss), exact_gradient(TWO, joint_cost))


@pytest.mark.parametrize("baseline", [0.0, 3.7])
def test_muprop_is_unbiased(baseline):
    def loss(logits, z):
        mean_f, mean_f_grad = mean_field(logits, joint_cost)
        return muprop_loss(logits, z, joint_cost(z), mean_f, mean_f_grad, baseline=baseline)

    th.testing.assert_close(expected_gradient(TWO, loss), exact_gradient(TWO, joint_cost))


def test_muprop_is_unbiased_for_any_point_of_expansion():
    """A deeper layer expands around the mean-field pass, which is not the mean of its sampled pass."""
    point = th.full((2, 3), 1 / 3, dtype=th.float64).requires_grad_()
    mean_f = joint_cost(point)
    (grad,) = th.autograd.grad(mean_f, point)

    def loss(logits, z):
        return muprop_loss(logits, z, joint_cost(z), mean_f.expand(9), grad.expand(9, 2, 3), mean=point.detach())

    th.testing.assert_close(expected_gradient(TWO, loss), exact_gradient(TWO, joint_cost))


def test_muprop_has_no_variance_for_a_linear_cost_and_less_for_a_cubic_one():
    def variance(cost, loss_of):
        logits = TWO.clone().requires_grad_()
        outcomes = enumerate_samples(2, 3)
        prob = (outcomes * logits.log_softmax(-1)).sum((-1, -2)).exp().detach()
        grads = th.stack([th.autograd.grad(loss_of(logits, z, cost), logits)[0] for z in outcomes])
        mean = (prob[:, None, None] * grads).sum(0)
        return (prob[:, None, None] * (grads - mean) ** 2).sum().item()

    def sf(logits, z, cost):
        return score_function_loss(categorical_log_prob(logits, z).sum(-1), cost(z))

    def muprop(logits, z, cost):
        return muprop_loss(logits, z, cost(z), *mean_field(logits, cost))

    def linear(z):
        return (z * WEIGHT[:3]).sum((-1, -2))

    assert variance(linear, muprop) < 1e-20 < variance(linear, sf)
    assert variance(joint_cost, muprop) < 0.5 * variance(joint_cost, sf)


def darn_of(cost):
    def loss(logits, z):
        leaf = z.clone().requires_grad_()
        return darn_loss(logits, z, th.autograd.grad(cost(leaf).sum(), leaf)[0]).sum(-1)

    return loss


def test_darn_is_exact_for_quadratic_costs_of_bernoulli_variables():
    logits = th.tensor([[0.8, 0.0], [-0.3, 0.0]], dtype=th.float64)

    def quadratic(z):
        x = z[..., 0]  # the Bernoulli values of two variables
        return (x[..., 0] * 3 - x[..., 1] + 0.5) ** 2

    th.testing.assert_close(expected_gradient(logits, darn_of(quadratic)), exact_gradient(logits, quadratic))


def test_darn_is_exact_for_linear_costs_of_any_k_and_biased_for_cubic_ones():
    def linear(z):
        return (z * WEIGHT[:3]).sum((-1, -2))

    th.testing.assert_close(expected_gradient(TWO, darn_of(linear)), exact_gradient(TWO, linear))
    bias = expected_gradient(TWO, darn_of(joint_cost)) - exact_gradient(TWO, joint_cost)
    assert bias.norm() > 0.1 * exact_gradient(TWO, joint_cost).norm()


def straight_through_expectation(cost, temperature: float = 1.0) -> Tensor:
    """Expected ST gradient: f'(z) through the softmax Jacobian, averaged over every outcome."""

    def loss(logits, z):
        soft = (logits / temperature).softmax(-1)
        return cost(z + soft - soft.detach())

    return expected_gradient(TWO, loss)


def test_straight_through_bias_is_zero_for_linear_costs_and_measured_for_cubic_ones():
    def linear(z):
        return (z * WEIGHT[:3]).sum((-1, -2))

    th.testing.assert_close(straight_through_expectation(linear), exact_gradient(TWO, linear))
    exact = exact_gradient(TWO, joint_cost)
    estimate = straight_through_expectation(joint_cost)
    bias = ((estimate - exact).norm() / exact.norm()).item()
    cosine = th.nn.functional.cosine_similarity(estimate.flatten(), exact.flatten(), 0).item()
    assert bias == pytest.approx(ST_BIAS, abs=1e-6)
    assert cosine == pytest.approx(ST_COSINE, abs=1e-6)


def test_straight_through_class_has_the_enumerated_expectation():
    """The estimator's own samples, not the formula above: mean over draws against the enumeration."""
    th.manual_seed(0)
    draws = 200_000
    logits = TWO.clone().requires_grad_()
    per_draw = logits.expand(draws, 2, 3)
    (grad,) = th.autograd.grad(joint_cost(StraightThrough()(per_draw)).sum(), per_draw)
    error = grad.std(0) / draws**0.5
    assert ((grad.mean(0) - straight_through_expectation(joint_cost)).abs() < 5 * error).all()


def test_losses_put_no_gradient_into_the_cost():
    logits = TWO.clone().requires_grad_()
    f = th.tensor(2.0, dtype=th.float64, requires_grad=True)
    grad = th.ones(2, 3, dtype=th.float64, requires_grad=True)
    sample = enumerate_samples(2, 3)[4]
    total = muprop_loss(logits, sample, f, f * 2, grad) + darn_loss(logits, sample, grad).sum()
    assert th.autograd.grad(total, [f, grad], allow_unused=True) == (None, None)


def test_taylor_baseline_is_first_order():
    a, b = th.tensor([1.0, 2.0]), th.tensor([0.5, -1.0])
    assert taylor_baseline(th.tensor(3.0), th.tensor([2.0, 1.0]), a, b).item() == pytest.approx(3.0 - 1.0 - 3.0)


# --- temperatures, names, errors -----------------------------------------------------------------------------------


def test_schedules():
    assert [cosine_temperature(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, (1 + 1 / 16) / 2, 1 / 16])
    assert cosine_temperature(0.25, 2.0, 0.0) == pytest.approx(1 + math.cos(math.pi / 4))
    assert [linear_temperature(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, (1 + 1 / 16) / 2, 1 / 16])
    assert linear_temperature(0.25, 2.0, 1.0) == pytest.approx(1.75)
    for schedule in (cosine_temperature, linear_temperature):
        assert schedule(-1.0) == schedule(0.0)
        assert schedule(7.0) == schedule(1.0)
    assert exponential_temperature(0) == 1.0
    assert exponential_temperature(5_000, 1e-4) == pytest.approx(math.exp(-0.5))
    assert exponential_temperature(10**9, 1e-5) == 0.5


@pytest.mark.parametrize("name", ["straight_through", "gumbel_softmax", "st_gumbel_softmax"])
def test_temperature_tensor_is_followed_and_equals_the_float(name):
    temperature = th.tensor(1.0)
    estimator = make_estimator(name, temperature)
    temperature.fill_(0.25)
    logits = th.randn(20, 5, requires_grad=True)
    grads = []
    for candidate in (estimator, make_estimator(name, 0.25), make_estimator(name, 1.0)):
        th.manual_seed(0)
        grads.append(th.autograd.grad((candidate(logits) * th.arange(5.0)).sum(), logits)[0])
    th.testing.assert_close(grads[0], grads[1])
    assert (grads[0] - grads[2]).abs().max() > 1e-3


def test_estimators_are_frozen_values():
    assert make_estimator("gumbel_softmax", 0.5) == GumbelSoftmax(0.5)
    assert replace(GumbelSoftmax(0.5), temperature=0.25) == GumbelSoftmax(0.25)
    with pytest.raises(FrozenInstanceError):
        GumbelSoftmax().temperature = 2.0


@pytest.mark.parametrize(("name", "hint"), [("gumbel-softmax", "gumbel_softmax"), ("straight", "straight_through")])
def test_unknown_name_gets_a_suggestion(name, hint):
    with pytest.raises(ValueError, match=f"{name}.*did you mean '{hint}'"):
        make_estimator(name)


def test_unknown_name_without_a_neighbor_lists_the_names():
    with pytest.raises(ValueError, match=r"'xyz': choose one of 'straight_through'"):
        make_estimator("xyz")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["straight_through", "gumbel_softmax", "st_gumbel_softmax"])
def test_bad_temperature(name, bad):
    with pytest.raises(ValueError, match="temperature must be positive"):
        make_estimator(name, bad)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_bad_logits(name):
    with pytest.raises(ValueError, match="logits must be a floating tensor"):
        make_estimator(name)(th.zeros(3, 4, dtype=th.long))
    with pytest.raises(ValueError, match="logits must be a floating tensor"):
        make_estimator(name)(th.tensor(1.0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"\(2,\) and f \(2, 1\)"):
        score_function_loss(th.zeros(2), th.zeros(2, 1))
    with pytest.raises(ValueError, match="0-d"):
        GumbelSoftmax(th.ones(2))
    with pytest.raises(ValueError, match=r"followed by \(S, K\)"):
        muprop_loss(th.zeros(5, 3), th.zeros(5, 3), th.zeros(5), th.zeros(5), th.zeros(5, 3))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_traces_without_graph_breaks(name):
    estimator = make_estimator(name, th.tensor(0.5))
    compiled = th.compile(estimator, backend="eager", fullgraph=True)
    assert compiled(th.randn(6, 5)).shape == (6, 5)


# --- the experiment of docs/estimators.md --------------------------------------------------------------------------


def test_study_resumes_by_cell_and_repeats_a_seed(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    from sb3_dreamer.zoo.studies import estimators as study

    monkeypatch.setattr(study, "LEARNING_RATES", (1e-2,))
    first = study.run_cell("sbn_categorical", "st", 0, 10, tmp_path)
    assert first["valid"] < 13.0  # nats; 13.1 is what the pixel frequencies alone give
    again = study.train("sbn_categorical", "st", 0, 10, 1e-2)
    assert again["test"] == first["test"]

    def refuse(*args):
        raise AssertionError("a finished cell is trained again")

    monkeypatch.setattr(study, "train", refuse)
    assert study.run_cell("sbn_categorical", "st", 0, 10, tmp_path) == first
    with pytest.raises(AssertionError, match="trained again"):
        study.run_cell("sbn_categorical", "st", 1, 10, tmp_path)


def test_study_table_marks_the_best_and_correlates_the_order_with_the_papers():
    pytest.importorskip("scipy")
    from sb3_dreamer.zoo.studies import estimators as study

    def row(means):
        return {
            m: study.summarize(
                [{"test": x + d, "curve": [1.0], "learning_rate": 0.01, "epoch": 10} for d in (-0.1, 0.1)]
            )
            for m, x in zip(study.METHODS, means, strict=True)
        }

    same, reverse = study.PAPER["sbn_categorical"], [-x for x in study.PAPER["sbn_categorical"]]
    lines = study.table({"sbn_categorical": row(same)}).splitlines()
    assert "**59.00 ± 1.27**" in lines[2]  # t(0.975, 1 df) 12.706 * 0.1414 / sqrt 2
    assert lines[2].count("**") == 2
    assert lines[2].endswith("+1.00 |")
    assert study.table({"sbn_categorical": row(reverse)}).splitlines()[2].endswith("-1.00 |")
