"""Planning against mock models with arithmetic answers: optimum, bounds, several environments, repeatability."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch as th

from sb3_dreamer.core.behavior import NoisyBehavior, RandomBehavior
from sb3_dreamer.core.cem import cem_categorical, cem_normal, select_elites
from sb3_dreamer.core.planner import CEMPlanner, dream_returns, random_shooting
from sb3_dreamer.core.types import ActionLayout, LatentState

BOX = ActionLayout("continuous", (2,))


class MockModel:
    """A world whose state is a counter and a position; the reward of a step is what ``reward_of`` says of it.

    :param reward_of: features ``(M, F)`` to rewards; features are [steps, position...]
    :param cont_of: features to continue probabilities, or None
    """

    def __init__(self, reward_of, cont_of=None, noise=0.0):
        self.reward_of, self.cont_of, self.noise = reward_of, cont_of, noise
        self.cont_head = None if cont_of is None else object()
        self.rssm = SimpleNamespace(img_step=self.img_step)
        self.modes: list[bool] = []

    def img_step(self, state, action, *, mode=False):
        self.modes.append(mode)
        noise = 0.0 if mode else self.noise * th.randn_like(state.stoch)
        return LatentState(state.deter + 1.0, state.stoch + action + noise)

    def reward(self, feat):
        return self.reward_of(feat)

    def continue_probability(self, feat):
        return self.cont_of(feat)


def start(*positions):
    stoch = th.tensor(positions, dtype=th.float32)
    return LatentState(th.zeros(len(stoch), 1), stoch)


# ---- scoring ------------------------------------------------------------------------------------------------------


def test_returns_are_the_hand_computed_sums():
    model = MockModel(lambda feat: feat[:, 1])  # reward = position after the step
    actions = th.tensor([[[[1.0], [2.0], [-1.0]], [[0.5], [0.0], [0.0]]]])
    assert dream_returns(model, start([10.0]), actions).tolist() == [[11 + 13 + 12, 10.5 * 3]]


def test_discount_continue_and_value_weigh_what_comes_after_them():
    # Continue flags c_1, c_2 stand before r_2, r_3 and all before the value; r_1 has weight 1.
    model = MockModel(lambda feat: th.ones_like(feat[:, 0]), cont_of=lambda feat: 1.0 / (1.0 + feat[:, 0]))
    actions = th.zeros(1, 1, 3, 1)
    value = dream_returns(model, start([0.0]), actions, gamma=0.5, value=lambda feat: 100.0 * feat[:, 0])
    weights = [1.0, 0.5 * 1 / 2, 0.25 * 1 / 2 * 1 / 3, 0.125 * 1 / 2 * 1 / 3 * 1 / 4]
    assert value.item() == pytest.approx(sum(weights[:3]) + weights[3] * 300.0)


def test_every_environment_dreams_from_its_own_state():
    model = MockModel(lambda feat: feat[:, 1])
    actions = th.zeros(3, 2, 1, 1)
    assert dream_returns(model, start([1.0], [2.0], [5.0]), actions).tolist() == [[1, 1], [2, 2], [5, 5]]


def test_elites_are_the_best_and_nan_is_the_worst():
    actions = th.arange(5.0).reshape(1, 5, 1, 1)
    best = select_elites(actions, th.tensor([[0.0, th.nan, 3.0, -th.inf, 2.0]]), 2)
    assert sorted(best.flatten().tolist()) == [2.0, 4.0]


# ---- continuous ---------------------------------------------------------------------------------------------------


def quadratic(target):
    """Reward -|position - target|²: with one step from 0 the best action is the target."""
    return MockModel(lambda feat: -(feat[:, 1:] - th.tensor(target)).square().sum(-1))


@pytest.mark.parametrize("deterministic", [True, False])
def test_cem_finds_the_optimum(deterministic):
    th.manual_seed(0)
    planner = CEMPlanner(BOX, horizon=1, iterations=10, candidates=200, elites=20)
    action = planner.act(quadratic([0.3, -0.7]), start([0.0, 0.0]), deterministic=deterministic)
    np.testing.assert_allclose(action, [[0.3, -0.7]], atol=0.02)


def test_cem_plans_for_each_environment():
    th.manual_seed(0)
    planner = CEMPlanner(BOX, horizon=1, candidates=200, elites=20)
    action = planner.act(quadratic([0.3, 0.3]), start([0.0, 0.0], [0.5, 0.1], [0.2, 0.9]))
    np.testing.assert_allclose(action, [[0.3, 0.3], [-0.2, 0.2], [0.1, -0.6]], atol=0.02)


def test_cem_looks_ahead():
    """Only the position after three steps counts, and it is out of reach at once: every step must help."""
    model = MockModel(lambda feat: th.where(feat[:, 0] == 3, -(feat[:, 1] - 2.7).square(), th.zeros_like(feat[:, 0])))
    planner = CEMPlanner(ActionLayout("continuous", (1,)), horizon=3, candidates=500, elites=50)
    action = planner.act(model, start([0.0]), deterministic=True)
    assert action.item() > 0.7  # 0.9 on average; greedily any first action scores 0


def test_actions_stay_in_bounds_and_reach_them():
    planner = CEMPlanner(BOX, horizon=1, candidates=200, elites=20)
    action = planner.act(quadratic([5.0, -5.0]), start([0.0, 0.0]), deterministic=True)
    np.testing.assert_allclose(action, [[1.0, -1.0]], atol=1e-3)
    assert action.abs().max() <= 1.0


def test_candidates_are_clipped_before_the_refit():
    seen = []

    def score(actions):
        seen.append(actions)
        return actions.sum((-1, -2))

    belief = (th.full((1, 1, 1), 2.0), th.full((1, 1, 1), 0.5))
    mean, std = cem_normal(score, belief, iterations=1, candidates=400, elites=10)
    assert seen[0].max() == 1.0 and seen[0].shape == (1, 400, 1, 1)
    assert mean.item() == 1.0 and std.item() == pytest.approx(1e-3)  # sqrt(0 + 1e-6)


def test_deviations_of_the_code_and_of_the_paper():
    def refit(deviation):
        drawn = []

        def score(actions):
            drawn.append(actions.flatten())
            return actions.flatten(1)

        belief = (th.zeros(1, 1, 1), 0.2 * th.ones(1, 1, 1))
        generator = th.Generator().manual_seed(3)
        mean, std = cem_normal(
            score, belief, iterations=1, candidates=50, elites=4, deviation=deviation, generators=[generator]
        )
        best = drawn[0].topk(4).values
        return mean.item(), std.item(), best

    mean, std, best = refit("std")
    assert mean == pytest.approx(best.mean().item())
    assert std == pytest.approx(np.sqrt(best.var(unbiased=False).item() + 1e-6))
    mean, mad, best = refit("mad")
    assert mad == pytest.approx((best - best.mean()).abs().sum().item() / 3)


def test_random_shooting_returns_the_best_candidate():
    seen = []
    model = quadratic([0.3, -0.7])
    step = model.img_step
    model.rssm.img_step = lambda state, action, *, mode=False: (seen.append(action), step(state, action, mode=mode))[1]
    planner = random_shooting(BOX, candidates=50, horizon=1)
    action = planner.act(model, start([0.0, 0.0]))
    distance = (seen[0] - th.tensor([0.3, -0.7])).square().sum(-1)
    assert len(seen) == 1 and len(seen[0]) == 50
    assert th.equal(action[0], seen[0][distance.argmin()])


# ---- discrete -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4,), (3, 2)])
def test_categorical_cem_finds_the_optimum_of_each_part(sizes):
    th.manual_seed(0)
    layout = ActionLayout("discrete", sizes)
    prices = th.arange(float(sum(sizes))) * th.tensor([1.0, -1.0] * 3)[: sum(sizes)]
    model = MockModel(lambda feat: feat[:, 1:] @ prices)
    zeros = [0.0] * sum(sizes)
    action = CEMPlanner(layout, horizon=2, iterations=5, candidates=100, elites=10).act(model, start(zeros, zeros))
    best = [part.argmax().item() for part in prices.split(sizes)]
    assert action.shape == (2, sum(sizes))
    for part, index in zip(action.split(sizes, -1), best, strict=True):
        assert part.sum(-1).tolist() == [1.0, 1.0] and part.argmax(-1).tolist() == [index, index]


def test_categorical_cem_looks_ahead():
    """The first action that pays at once leads away from the reward that comes later."""
    model = MockModel(lambda feat: th.where(feat[:, 0] == 1, feat[:, 1], 10.0 * (feat[:, 2] == 2)))
    layout = ActionLayout("discrete", (2,))
    far = CEMPlanner(layout, horizon=2, candidates=50, elites=5).act(model, start([0.0, 0.0]), deterministic=True)
    near = CEMPlanner(layout, horizon=1, candidates=50, elites=5).act(model, start([0.0, 0.0]), deterministic=True)
    assert far.tolist() == [[0.0, 1.0]] and near.tolist() == [[1.0, 0.0]]


def test_categorical_candidates_follow_the_belief():
    seen = []
    probs = th.tensor([[[0.7, 0.3, 0.0]]])
    cem_categorical(
        lambda actions: (seen.append(actions), actions.sum((-1, -2)))[1],
        probs,
        (3,),
        iterations=1,
        candidates=20_000,
        elites=5,
        generators=[th.Generator().manual_seed(0)],
    )
    np.testing.assert_allclose(seen[0].mean(1)[0, 0], [0.7, 0.3, 0.0], atol=0.01)


# ---- behavior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [BOX, ActionLayout("discrete", (2, 3))])
def test_deterministic_calls_repeat_and_leave_the_global_stream_alone(layout):
    model = MockModel(lambda feat: th.sin(7.0 * feat[:, 1:]).sum(-1), noise=0.5)
    planner = CEMPlanner(layout, horizon=3, iterations=2, candidates=20, elites=4)
    state = start([0.1] * layout.size, [0.4] * layout.size)
    th.manual_seed(0)
    first = planner.act(model, state, deterministic=True)
    drawn = th.rand(3)
    th.manual_seed(0)
    assert th.equal(drawn, th.rand(3))
    assert th.equal(first, planner.act(model, state, deterministic=True))
    assert all(model.modes)


def test_deterministic_plans_do_not_depend_on_the_other_environments():
    model = MockModel(lambda feat: th.sin(7.0 * feat[:, 1:]).sum(-1))
    planner = CEMPlanner(BOX, horizon=3, iterations=3, candidates=30, elites=5)
    positions = [0.1, 0.2], [0.9, -0.4], [0.3, 0.3]
    together = planner.act(model, start(*positions), deterministic=True)
    for i, position in enumerate(positions):
        np.testing.assert_allclose(together[i], planner.act(model, start(position), deterministic=True)[0], atol=1e-6)


def test_deterministic_candidates_differ_from_state_to_state():
    """Otherwise an error of the search would be the same at every step, and push the same way."""
    seen = []
    model = MockModel(lambda feat: th.sin(7.0 * feat[:, 1:]).sum(-1))
    planner = CEMPlanner(BOX, horizon=1, iterations=1, candidates=30, elites=5)
    dream = model.rssm.img_step

    def watch(state, action, *, mode=False):
        seen.append(action.clone())
        return dream(state, action, mode=mode)

    model.rssm.img_step = watch
    planner.act(model, start([0.1, 0.2], [0.1, 0.2], [0.1, 0.3]), deterministic=True)
    planner.act(model, start([0.1, 0.2]), deterministic=True)
    first, twin, other = seen[0].view(3, 30, -1)
    assert th.equal(first, twin) and th.equal(first, seen[1].view(30, -1))
    assert not th.equal(first, other)


def test_sampled_calls_differ():
    model = MockModel(lambda feat: th.sin(7.0 * feat[:, 1:]).sum(-1))
    planner = CEMPlanner(BOX, horizon=3, iterations=1, candidates=10, elites=2)
    state = start([0.0, 0.0])
    assert not th.equal(planner.act(model, state), planner.act(model, state))


def test_warm_start_shifts_the_plan_and_forgets_at_a_new_episode():
    # One iteration with one candidate: the plan is the clipped candidate, mean + noise.
    layout = ActionLayout("continuous", (1,))
    planner = CEMPlanner(layout, horizon=2, iterations=1, candidates=1, elites=1, warm_start=True)
    model = MockModel(lambda feat: feat[:, 0])
    planner.plan = th.tensor([[[0.0], [0.25]], [[0.0], [0.5]]])
    planner.begin(th.tensor([False, True]))
    began = planner._start(th.zeros(2, 1))
    assert began.tolist() == [[[0.25], [0.0]], [[0.0], [0.0]]]
    planner.act(model, start([0.0], [0.0]))
    assert planner.plan.shape == (2, 2, 1)
    assert planner._start(th.zeros(3, 1)).tolist() == th.zeros(3, 2, 1).tolist()  # other environments
    cold = CEMPlanner(layout, horizon=2, iterations=1, candidates=1, elites=1)
    cold.act(model, start([0.0]))
    assert cold.plan is None


def test_warm_start_of_choices_keeps_every_choice_possible():
    planner = CEMPlanner(ActionLayout("discrete", (2,)), horizon=2, candidates=4, elites=1, warm_start=True)
    planner.plan = th.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert planner._start(th.zeros(1, 1)).tolist() == [[[0.25, 0.75], [0.5, 0.5]]]


def test_exploration_noise():
    th.manual_seed(0)
    zero = RandomBehavior(BOX)
    state = start(*[[0.0, 0.0]] * 5000)
    zero.act = lambda *args, **kwargs: th.zeros(5000, 2)  # type: ignore[method-assign]
    noisy = NoisyBehavior(zero, BOX, 0.3)
    drawn = noisy.act(None, state)
    assert drawn.std().item() == pytest.approx(0.3, rel=0.05) and drawn.abs().max() <= 1.0
    assert noisy.act(None, state, deterministic=True).abs().max() == 0.0


def test_exploration_of_choices():
    th.manual_seed(0)
    layout = ActionLayout("discrete", (2, 4))
    first = RandomBehavior(layout)
    noisy = NoisyBehavior(first, layout, 0.4)
    state = start(*[[0.0]] * 5000)
    chosen = first.act(None, state, deterministic=True)
    first.act = lambda *args, **kwargs: chosen  # type: ignore[method-assign]
    two, four = noisy.act(None, state).split((2, 4), -1)
    assert th.equal(two.sum(-1), th.ones(5000)) and th.equal(four.sum(-1), th.ones(5000))
    assert two[:, 0].mean().item() == pytest.approx(0.6 + 0.4 / 2, abs=0.03)
    assert four[:, 0].mean().item() == pytest.approx(0.6 + 0.4 / 4, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"horizon": 0}, "horizon=0"),
        ({"candidates": "many"}, "candidates='many'"),
        ({"iterations": 2.5}, "iterations=2.5"),
        ({"gamma": float("nan")}, "gamma=nan"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"gamma": "high"}, "gamma='high'"),
        ({"elites": 30, "candidates": 20}, "elites=30"),
        ({"deviation": "var"}, "deviation='var'"),
    ],
)
def test_refusals(changes, words):
    with pytest.raises(ValueError, match=words):
        CEMPlanner(BOX, **changes)


def test_what_is_no_layout_and_no_value_is_refused():
    with pytest.raises(TypeError, match=r"layout=2 must be an ActionLayout: pass model\.policy\.codec\.layout"):
        CEMPlanner(2)
    with pytest.raises(TypeError, match=r"value=3 must be a function .* pass model\.behavior\.value"):
        CEMPlanner(BOX, value=3)
