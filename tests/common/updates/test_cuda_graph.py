"""Updates as one CUDA graph, checked without a GPU: what a graph would record, and what it would not see."""

import copy
import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from sb3_dreamer.common.updates.cuda_graph import WARMUP, GraphedUpdate, plain_arguments
from sb3_dreamer.core import functional
from sb3_dreamer.zoo.speed import gpu as bench_gpu
from sb3_dreamer.zoo.speed.case import Case, build
from sb3_dreamer.zoo.speed.measure import measure
from tests.algorithms import equal, weights

SMALL_PLANS = {"planning_iterations": 2, "planning_candidates": 10, "planning_elites": 3}
CASES = {
    "dreamerv3": Case("dreamerv3", "debug", batch_size=2, batch_length=6),
    "dreamerv3 discrete": Case("dreamerv3", "debug", action="discrete", batch_size=2, batch_length=6),
    "dreamerv3 images": Case("dreamerv3", "debug", obs="images", batch_size=2, batch_length=4),
    "dreamerv3-2024": Case("dreamerv3", "debug2024", batch_size=2, batch_length=6),
    "dreamerv2": Case("dreamerv2", "debug", batch_size=2, batch_length=6, hyperparams={"target_update_interval": 3}),
    "dreamerv2 discrete": Case("dreamerv2", "debug", action="discrete", batch_size=2, batch_length=6),
    "planet": Case(
        "planet", "debug", batch_size=2, batch_length=6, hyperparams={**SMALL_PLANS, "overshooting_distance": 3}
    ),
}
UPDATES = WARMUP + 4
each_case = pytest.mark.parametrize("name", CASES)


def make(name: str, **hyperparams: Any) -> Any:
    case = CASES[name]
    model = build(replace(case, hyperparams=case.hyperparams | hyperparams, replay_rows=1000))
    th.manual_seed(0)
    return model


def draw(model: Any) -> Any:
    return model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)


# ---- what an update asks of the host -------------------------------------------------------------------------------

WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "bincount"}
COPIES = {"lift_fresh", "lift"}  # a tensor made of Python numbers: on CUDA a copy that the host waits for


class Recorder(TorchDispatchMode):
    """Notes every operation with the shapes and the plain numbers it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.bad: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        name = func.overloadpacket.__name__
        shapes = [leaf.shape if isinstance(leaf, th.Tensor) else leaf for leaf in leaves]
        self.calls.append((str(func), *map(str, shapes)))
        masks = name in ("index", "index_put_", "index_put") and any(
            isinstance(leaf, th.Tensor) and leaf.dtype == th.bool for leaf in tree_leaves(args[1])
        )
        if masks or name in WAITS | COPIES:
            self.bad.append(name)
        return func(*args, **kwargs)


def recorded(call: Callable[[], Any]) -> Recorder:
    with Recorder() as recorder:
        call()
    return recorder


@each_case
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_an_update_never_waits_and_is_always_the_same(name: str, mixed: bool, monkeypatch) -> None:
    """With batches so small that no shortcut for a CPU is taken but that of the norms, as on a GPU."""
    monkeypatch.setattr(functional, "FEW_CLASSES", 0)
    model = make(name, mixed_precision=mixed)
    records = []
    for _ in range(4):
        batch = draw(model)
        records.append(recorded(lambda batch=batch: model._eager_update(batch)))
        model._n_updates += 1
    assert len(records[0].calls) > 200
    for record in records[1:]:  # The first one makes the states of the optimizers.
        assert not record.bad, f"the host would wait for: {record.bad}"
        assert record.calls == records[1].calls


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).any()),
        lambda x: x.new_tensor(0.5),
        lambda x: th.as_tensor(0.5),
        th.nonzero,
    ],
)
def test_the_recorder_sees_waiting(call: Callable[[th.Tensor], Any]) -> None:
    assert recorded(lambda: call(th.ones(3))).bad


def test_the_recorder_sees_numbers_that_change() -> None:
    x = th.ones(3)
    assert recorded(lambda: x * 0.1).calls != recorded(lambda: x * 0.2).calls
    assert recorded(lambda: x * 0.1).calls == recorded(lambda: x * 0.1).calls


# ---- a graph without a GPU -----------------------------------------------------------------------------------------


class Tape(TorchDispatchMode):
    """A graph for tests: keeps the operations of a call with their tensors, and repeats them on the same memory.

    As a CUDA graph it knows nothing of Python: a number, a branch or a new tensor of a later call has no effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[Any, Any, Any, Any]] = []
        self.waiting = False
        self.warmed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops.append((func, args, kwargs or {}, out))
        return out

    def warm_up(self, call: Callable[[], Any]) -> Any:
        self.warmed += 1
        return call()

    def record(self, call: Callable[[], Any]) -> Any:
        with self:
            values = call()
        self.waiting = True  # unlike a capture this was an update already: the first replay has nothing to do
        return tree_map(th.Tensor.detach, values)

    def replay(self) -> None:
        if self.waiting:
            self.waiting = False
            return
        with th.no_grad():
            for func, args, kwargs, out in self.ops:
                given = {memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, th.Tensor)}
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, th.Tensor) and old.numel() and memory(old) not in given:
                        old.detach().copy_(new)


def memory(tensor: th.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def graphed(model: Any, make_graph: Callable[[], Any] = Tape, must: bool = False) -> GraphedUpdate:
    groups = model.optimizers.values()
    model._graphed = GraphedUpdate(
        model._eager_update, make_graph, groups, functools.partial(plain_arguments, model), must=must
    )
    return model._graphed


def train(model: Any, updates: int = UPDATES) -> list[dict[str, float]]:
    """Updates one by one, with rates that change, as ``train`` sets them."""
    found = []
    for update in range(updates):
        for index, group in enumerate(model.optimizers.values()):
            group.set_learning_rate((1 + index) * 2.0 ** -(10 + update))  # the same in float32 and float64
        if hasattr(model, "now"):
            model.now["ent_coef"].fill_(0.01 * (1 + update))
        found.append({key: float(value) for key, value in model.update(draw(model)).items()})
        model._n_updates += 1
    return found


@each_case
def test_a_graph_gives_what_updates_give(name: str) -> None:
    plain, replayed = make(name), make(name)
    wanted = train(plain)
    random = th.get_rng_state()
    th.manual_seed(0)
    runner = graphed(replayed)
    found = train(replayed)
    assert runner.graph.warmed == WARMUP and runner.graph.ops, "captured once"
    assert equal(weights(plain), weights(replayed))
    assert found == wanted
    assert th.equal(random, th.get_rng_state())
    for group, other in zip(plain.optimizers.values(), replayed.optimizers.values(), strict=True):
        for param, twin in zip(group.params, other.params, strict=True):
            ours, theirs = group.optimizer.state[param], other.optimizer.state[twin]
            assert all(th.equal(value, theirs[key]) for key, value in ours.items())


def test_latent_states_are_written_back_to_replay() -> None:
    plain, replayed = make("dreamerv3-2024"), make("dreamerv3-2024")
    train(plain)
    th.manual_seed(0)
    graphed(replayed)
    train(replayed)
    name = "context.deter"
    before = make("dreamerv3-2024").replay_buffer.arrays[name]
    assert np.array_equal(plain.replay_buffer.arrays[name], replayed.replay_buffer.arrays[name])
    assert not np.array_equal(plain.replay_buffer.arrays[name], before)


def test_the_tape_does_not_see_python(monkeypatch) -> None:
    """With learning rates that are Python numbers a graph keeps the first one: the comparison above would notice."""
    plain, replayed = make("planet"), make("planet")
    train(plain)
    th.manual_seed(0)
    graphed(replayed)
    for group in replayed.optimizers.values():
        monkeypatch.setattr(group, "make_capturable", lambda: None)
    train(replayed)
    assert not equal(weights(plain), weights(replayed))


def test_metrics_are_not_overwritten() -> None:
    model = make("planet")
    graphed(model)
    train(model)
    first = model.update(draw(model))
    before = float(first["model_loss"])
    assert float(model.update(draw(model))["model_loss"]) != before == float(first["model_loss"])


# ---- when a graph is made anew -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["gamma", "shape", "load", "nothing"])
def test_what_a_graph_has_fixed_is_compared(change: str, tmp_path) -> None:
    model = make("dreamerv3")
    runner = graphed(model)
    train(model)
    old = runner.graph
    if change == "gamma":
        model.gamma = 0.5
    elif change == "shape":
        model.batch_size = 3
    elif change == "load":
        model.set_parameters(model.get_parameters())
    plain = make("dreamerv3")
    plain.gamma, plain.batch_size = model.gamma, model.batch_size
    plain.set_parameters(copy.deepcopy(model.get_parameters()))  # torch's optimizers keep the tensors they are given
    plain._n_updates = model._n_updates
    for twin, own in zip(plain.policy.buffers(), model.policy.buffers(), strict=True):
        twin.copy_(own)
    found = {}
    for each in (model, plain):
        each.replay_buffer.rng = np.random.default_rng(1)
        th.manual_seed(1)
        train(each)
        found[each] = weights(each)
    assert (runner.graph is old) == (change == "nothing")
    assert equal(found[model], found[plain])


# ---- when there can be no graph ------------------------------------------------------------------------------------


class Refusing(Tape):
    def record(self, call: Callable[[], th.Tensor]) -> th.Tensor:
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        except RuntimeError:
            raise RuntimeError("capture_end: an earlier error") from None


def test_one_warning_and_updates_go_on() -> None:
    plain, refused = make("dreamerv3"), make("dreamerv3")
    train(plain)
    th.manual_seed(0)
    graphed(refused, Refusing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(refused)
    texts = [str(warning.message) for warning in caught if "CUDA graph" in str(warning.message)]
    assert len(texts) == 1 and "operation not permitted when stream is capturing" in texts[0]
    assert equal(weights(plain), weights(refused))


def test_cuda_graph_true_raises() -> None:
    model = make("planet")
    graphed(model, Refusing, must=True)
    with pytest.raises(RuntimeError, match=r"cuda_graph=True, but .* not permitted"):
        train(model)


def test_there_is_no_graph_without_cuda() -> None:
    for wanted in (None, True, False):
        assert make("planet", cuda_graph=wanted)._graphed is None


def test_bench_gpu_without_one() -> None:
    """The program that measures all of this, at the smallest size: both precisions, and nothing that a GPU only has."""
    cases = bench_gpu.variants(replace(CASES["planet"], updates=2, replay_rows=1000))
    assert [case.hyperparams["mixed_precision"] for case in cases] == [False, True]
    forms = [bench_gpu.words(case.hyperparams) for case in bench_gpu.variants(replace(CASES["planet"], device="cuda"))]
    each = ["no graph", "graph", "graph, compiled"]
    assert forms == [f"{precision}, {form}" for precision in ("float32", "bfloat16") for form in each]
    result = measure(cases[1])
    assert result["mixed_precision"] and not result["graph"] and result["recompilations"] == 0
    assert result["update"]["count"] == 2 and result["warm_up_seconds"] > result["first_update"] > 0
    assert bench_gpu.target_words(result) == "-" and json.dumps(result)


# ---- on a GPU ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA GPU")
@each_case
def test_on_cuda(name: str) -> None:  # pragma: no cover
    found = []
    for wanted in (False, True):
        case = CASES[name]
        model = build(replace(case, device="cuda", hyperparams=case.hyperparams | {"cuda_graph": wanted}))
        th.manual_seed(0)
        train(model, WARMUP + 5)
        assert (model._graphed is not None) == wanted
        found.append({key: value.cpu() for key, value in model.policy.state_dict().items()})
    # Sums on a GPU may come in any order, and Adam makes a whole step of a gradient that is nothing but rounding.
    near = th.cat([th.isclose(value, found[1][key], rtol=1e-3, atol=1e-5).flatten() for key, value in found[0].items()])
    assert near.float().mean() > 0.99
    model = build(replace(CASES[name], device="cuda"))
    batches = [draw(model) for _ in range(3)]
    model._eager_update(batches[0])
    th.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            model._eager_update(batch)
    finally:
        th.cuda.set_sync_debug_mode("default")
