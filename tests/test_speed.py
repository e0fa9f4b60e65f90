"""Guards against slow updates: a ratio to a fixed workload, and no recompilation.

The ratio, and for small sizes the number of operations, are recorded in docs/results/speed_guard.json. Record anew, on
an idle machine, after a change that is meant to change them: ``python -m tests.test_speed``.
``SB3_DREAMER_SKIP_SPEED=1`` skips the ratio, for machines on which processor time means little (emulators, coverage
runs); operations are counted there, too.

What makes the ratio repeatable: both sides run in turns in one process on one thread; processor time counts, which
other processes change little; the smallest of several rounds is taken, and more rounds follow before a failure.

What makes it travel between machines: the reference has the same kinds of work as an update (many small matrix products
with norms and gates in a loop, some larger ones, softmaxes over bins, each with its backward pass), so that a faster
processor or less overhead per operation helps both sides. It does so only roughly: where the instruction set or the
torch release differs from those of the record, twice the recorded ratio is allowed instead of a quarter more.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
import torch._dynamo.utils as dynamo_utils
import torch.nn.functional as F

from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.zoo.speed.case import Case, build
from sb3_dreamer.zoo.speed.report import cpu_model

RECORD = Path(__file__).resolve().parents[1] / "docs" / "results" / "speed_guard.json"
CASES = {  # a few hundred milliseconds altogether
    "dreamerv3": Case("dreamerv3", "XXS", batch_size=8, batch_length=32, parts=()),
    "dreamerv3-2024": Case("dreamerv3", "debug2024", batch_size=8, batch_length=32, parts=()),
    "dreamerv2": Case("dreamerv2", "XXS", batch_size=8, batch_length=32, parts=()),
    "planet": Case("planet", "small", batch_size=8, batch_length=32, parts=()),
}
SMALL = {"deter": 64, "hidden": 64, "stoch": 8, "classes": 8, "units": 64, "layers": 1, "bins": 63}
COUNTED = {  # by operations
    "dreamerv3-2024 small": Case(
        "dreamerv3",
        "1m",
        "vectors",
        "discrete",
        16,
        16,
        hyperparams={"policy_kwargs": SMALL},
        parts=(),
        replay_rows=1000,
    ),
    "dreamerv3 XXS": Case("dreamerv3", "XXS", batch_size=16, batch_length=16, parts=(), replay_rows=1000),
    "dreamerv2 XXS": Case("dreamerv2", "XXS", batch_size=16, batch_length=16, parts=(), replay_rows=1000),
    "planet small": Case("planet", "small", batch_size=16, batch_length=16, parts=(), replay_rows=1000),
}
TOLERANCE, TOLERANCE_ELSEWHERE = 1.25, 2.0
ROUNDS, ATTEMPTS = 8, 10
skip = pytest.mark.skipif(os.environ.get("SB3_DREAMER_SKIP_SPEED") == "1", reason="SB3_DREAMER_SKIP_SPEED=1")


# ---- the ratio ------------------------------------------------------------------------------------------------


class Reference:
    """A fixed workload of torch operations; it uses nothing of the library and must never change."""

    def __init__(self) -> None:
        draw = th.Generator().manual_seed(0)
        sizes = {"step": (384, 384), "gate": (384, 384), "head": (384, 128), "out": (128, 255)}
        self.weights = {name: (th.randn(size, generator=draw) / 20).requires_grad_() for name, size in sizes.items()}
        self.small = th.randn(16, 8, 384, generator=draw)
        self.large = th.randn(128, 384, generator=draw)

    def loop(self, state: th.Tensor, inputs: th.Tensor | None, steps: int) -> th.Tensor:
        states = []
        for t in range(steps):
            x = state if inputs is None else state + inputs[t]
            hidden = F.silu(F.layer_norm(x @ self.weights["step"], (384,)))
            gate = th.sigmoid(hidden @ self.weights["gate"])
            state = gate * th.tanh(hidden) + (1 - gate) * state
            state = th.where(state.abs() > 3, state * 0.5, state)
            states.append(state)
        return th.stack(states, 1)

    def head(self, feat: th.Tensor) -> th.Tensor:
        hidden = F.silu(F.layer_norm(feat @ self.weights["head"], (128,)))
        return F.log_softmax(hidden @ self.weights["out"], -1)

    def __call__(self) -> None:
        loss = -self.head(self.loop(self.small[0], self.small, 16)).square().mean()
        dream = self.loop(self.large, None, 15)
        loss = loss - self.head(dream).square().mean()
        params = list(self.weights.values())
        grads = th.autograd.grad(loss, params)
        with th.no_grad():
            for param, grad in zip(params, grads, strict=True):
                param.sub_(0.0 * grad)


class Timer:
    """Smallest processor times of the reference and of an update, run in turns."""

    def __init__(self, update: Callable[[], Any]):
        self.calls = (Reference(), update)
        self.best = [float("inf"), float("inf")]
        for call in self.calls * 2:
            call()

    def ratio(self) -> float:
        """Some further rounds; the ratio of the smallest times of all rounds so far."""
        for _ in range(ROUNDS):
            for side, call in enumerate(self.calls):
                start = time.process_time()
                call()
                self.best[side] = min(self.best[side], time.process_time() - start)
        return self.best[1] / self.best[0]


def make_update(case: Case) -> Callable[[], Any]:
    model = build(case)
    return lambda: model._update(model.replay_buffer.sample_sequences(model.batch_size, model.batch_length))


def count_operations(update: Callable[[], Any]) -> int:
    """Events that the profiler sees in one update: operators with those inside them, and nodes of autograd."""
    for _ in range(2):  # what happens once
        update()
    with th.profiler.profile(activities=[th.profiler.ProfilerActivity.CPU]) as record:
        update()
    return len(record.events())


def environment() -> dict[str, str]:
    """What the ratio is known to depend on."""
    release = ".".join(th.__version__.split(".")[:2])
    cpu = {"cpu": th.backends.cpu.get_cpu_capability(), "model": cpu_model(), "machine": platform.machine()}
    return {"torch": release} | cpu


def allowed(record: dict[str, Any], name: str) -> float:
    same = record["environment"] == environment()
    return record["ratios"][name] * (TOLERANCE if same else TOLERANCE_ELSEWHERE)


def is_fast_enough(timer: Timer, limit: float) -> bool:
    return any(timer.ratio() <= limit for _ in range(ATTEMPTS))


@pytest.mark.slow
@skip
@pytest.mark.parametrize("name", CASES)
def test_update_is_not_slower_than_recorded(name: str) -> None:
    limit = allowed(json.loads(RECORD.read_text()), name)
    timer = Timer(make_update(CASES[name]))
    assert is_fast_enough(timer, limit), (
        f"an update of {name} takes {timer.best[1] / timer.best[0]:.2f} times the reference, {limit:.2f} are allowed: "
        "make it faster again, or record anew with python -m tests.test_speed and say why"
    )


@pytest.mark.parametrize("name", COUNTED)
def test_update_has_no_more_operations_than_recorded(name: str) -> None:
    """At small sizes an update takes as long as its operations are many: they are counted, which is exact."""
    record = json.loads(RECORD.read_text())
    if any(record["environment"][key] != environment()[key] for key in ("torch", "machine")):
        pytest.skip("other releases of torch, and other machines, split operators in other ways")
    found, limit = count_operations(make_update(COUNTED[name])), record["operations"][name]
    assert found <= limit, (
        f"an update of {name} has {found} operations, {limit} are recorded: take the new ones out of the loops, or "
        "record anew with python -m tests.test_speed and say why"
    )


def test_counting_sees_one_operation_more() -> None:
    update = make_update(COUNTED["dreamerv3-2024 small"])
    assert count_operations(lambda: (update(), th.ones(2).add_(1.0))) > count_operations(update)


@pytest.mark.slow
@skip
def test_guard_sees_a_regression() -> None:
    """An update with extra work of two fifths of itself must not pass for the update as it is now."""
    update = make_update(CASES["dreamerv3"])
    timer = Timer(update)
    now = min(timer.ratio() for _ in range(4))
    left = th.ones(64, 64)

    def slower() -> None:
        start = time.process_time()
        update()
        end = start + 1.4 * (time.process_time() - start)
        while time.process_time() < end:
            left @ left

    slow = Timer(slower)
    assert min(slow.ratio() for _ in range(4)) > TOLERANCE * now


def record() -> None:
    """Measure all cases and write the record."""
    th.set_num_threads(1)
    ratios = {}
    for name, case in CASES.items():
        timer = Timer(make_update(case))
        for _ in range(2 * ATTEMPTS):
            ratios[name] = round(timer.ratio(), 3)
        print(f"{name}: {1000 * timer.best[1]:.0f} ms, reference {1000 * timer.best[0]:.0f} ms, {ratios[name]}")
    operations = {name: count_operations(make_update(case)) for name, case in COUNTED.items()}
    found = {"command": "python -m tests.test_speed", "environment": environment(), "ratios": ratios}
    found["operations"] = operations
    RECORD.write_text(json.dumps(found, indent=1) + "\n")


# ---- no recompilation -----------------------------------------------------------------------------------------

COMPILED = {"dreamerv3": "debug", "dreamerv3-2024": "debug2024", "dreamerv2": "debug", "planet": "debug"}
SMALL_PLANS = {"planet": {"planning_iterations": 2, "planning_candidates": 10, "planning_elites": 3}}
WARMUP, UPDATES = 2, 4


def compile_steps(model: WorldModelAlgorithm) -> None:
    """Compile the units that an update and acting run many times; a graph break in one is an error.

    The cheap backend runs the captured graph as it is: capture and guards are what this is about.
    """
    world_model = model.policy.world_model
    modules = [world_model.rssm.cell, world_model.encoder, world_model.decoder, world_model.reward_head]
    behavior = model.policy.behavior
    modules += [part for part in (getattr(behavior, name, None) for name in ("actor", "critic")) if part is not None]
    for module in modules:
        module.compile(backend="eager", fullgraph=True)
    for name in ("obs_step", "img_step"):
        setattr(world_model.rssm, name, th.compile(getattr(world_model.rssm, name), backend="eager", fullgraph=True))


def small_model(name: str) -> WorldModelAlgorithm:
    case = Case(name.partition("-")[0], COMPILED[name], batch_size=2, batch_length=8, replay_rows=1000)
    return build(replace(case, hyperparams=SMALL_PLANS.get(name, {})))


def update_and_act(model: WorldModelAlgorithm, seed: int) -> None:
    """An update on a batch of other contents, and a step of acting."""
    replay = model.replay_buffer
    replay.rng = np.random.default_rng(seed)
    model._update(replay.sample_sequences(model.batch_size, model.batch_length))
    space = model.observation_space
    obs = np.random.default_rng(seed).standard_normal((1, *space.shape)).astype(np.float32)
    _, state = model.predict(obs)
    model.predict(obs, state, np.zeros(1, bool), deterministic=seed % 2 == 0)


compiles = pytest.mark.skipif(not hasattr(th.compiler, "set_stance"), reason="needs torch 2.6")


@pytest.fixture
def dynamo_counters():
    """Counters of the compiler, from zero; nothing compiled is left behind."""
    th._dynamo.reset()
    dynamo_utils.counters.clear()
    yield dynamo_utils.counters
    th._dynamo.reset()
    dynamo_utils.counters.clear()


@compiles
@pytest.mark.parametrize(
    "by_hand", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["as it is", "steps compiled"]
)
@pytest.mark.parametrize("name", COMPILED)
def test_nothing_recompiles_after_warmup(name: str, by_hand: bool, dynamo_counters) -> None:
    """Neither what the library compiles by itself nor the step units, if a user compiles them."""
    model = small_model(name)
    if by_hand:
        compile_steps(model)
    for seed in range(WARMUP):
        update_and_act(model, seed)
    before = dynamo_counters["stats"]["unique_graphs"]
    assert before > 0 or not by_hand, "nothing was compiled"
    with th.compiler.set_stance("fail_on_recompile"):
        for seed in range(WARMUP, WARMUP + UPDATES):
            update_and_act(model, seed)
    assert dynamo_counters["stats"]["unique_graphs"] == before
    assert not dynamo_counters["graph_break"], dict(dynamo_counters["graph_break"])


@pytest.mark.slow
@compiles
def test_guard_sees_a_recompilation(dynamo_counters) -> None:
    """A number that counts updates, read in a forward pass, is what the guard is for."""
    model = small_model("dreamerv3")
    cell = model.policy.world_model.rssm.cell
    plain = cell.forward
    cell.updates = 0
    cell.forward = lambda *inputs: plain(*inputs) / (1 + 0 * cell.updates)
    compile_steps(model)
    update_and_act(model, 0)
    cell.updates += 1
    with th.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
        update_and_act(model, 1)


if __name__ == "__main__":
    argparse.ArgumentParser(description="Record the ratios that test_update_is_not_slower compares with.").parse_args()
    record()
