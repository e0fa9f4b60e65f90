"""``bench profile``: where the time of an update goes, by part and by operator."""

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th

from sb3_dreamer.zoo.speed.case import Case, Result, build, run_case
from sb3_dreamer.zoo.speed.floor import synchronize
from sb3_dreamer.zoo.speed.measure import summary, timed
from sb3_dreamer.zoo.speed.report import case_words, new_table, seconds

TOP = 10  # operators shown
REST = "other"
COMPILED = re.compile(r"## Call CompiledFxGraph (\w{6})\w* ##")  # the profiler names a graph by a long hash
PREFIX = "part: "  # of the labels in the profiler's own record


class Parts:
    """Times calls into parts of an update from outside, so that the library carries no timers.

    A call's time without the calls of other parts inside it counts for its part.

    :param device: waited for at every change of parts, which makes updates on a GPU slower than they are
    """

    def __init__(self, device: th.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.stack: list[str] = []
        self.since = 0.0
        self.undo: list[Callable[[], None]] = []

    def switch(self) -> None:
        """Count the time since the last switch for the part that is running."""
        synchronize(self.device)
        now = time.perf_counter()
        if self.stack:
            self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Time what is inside as a part."""
        self.switch()
        self.stack.append(part)
        try:
            with th.profiler.record_function(PREFIX + part):
                yield
        finally:
            self.switch()
            self.stack.pop()

    def wrap(self, owner: Any, name: str, part: str | Callable[[], str]) -> None:
        """Time every call of a method or function of an object; nothing, if it has none of that name."""
        if owner is None or not hasattr(owner, name):
            return
        own, before = name in vars(owner), getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.running(part if isinstance(part, str) else part()):
                return before(*args, **kwargs)

        setattr(owner, name, watched)
        self.undo.append(lambda: setattr(owner, name, before) if own else delattr(owner, name))

    def group(self) -> str:
        """Name of the optimizer group whose step is running, for its backward pass."""
        step = next((part for part in reversed(self.stack) if part.startswith("optimizer")), "")
        return f"backward{step.removeprefix('optimizer')}"

    def close(self) -> None:
        """Take all timers away."""
        while self.undo:
            self.undo.pop()()


def watch(model: Any, parts: Parts) -> None:
    """Put timers around the parts of an update that the algorithm has."""
    world_model, behavior = model.policy.world_model, model.policy.behavior
    parts.wrap(world_model, "loss", "world model: heads, losses")
    parts.wrap(world_model.encoder, "forward", "world model: encoder")
    parts.wrap(world_model.decoder, "forward", "world model: decoder")
    parts.wrap(world_model.rssm, "observe", "world model: recurrent loop")
    parts.wrap(behavior, "rollout", "dreams")
    for name in ("targets", "actor_loss", "critic_loss", "replay_value_loss"):
        parts.wrap(behavior, name, "actor and critic: losses")
    parts.wrap(behavior, "update_slow_critic", "slow critic")
    for group in model.optimizers.values():
        parts.wrap(group, "step", f"optimizer: {group.name}")
    parts.wrap(th.autograd, "grad", parts.group)
    parts.wrap(th.autograd, "backward", parts.group)


def profile(case: Case) -> Result:
    """Time an update by part with timers, then by operator with ``torch.profiler``.

    :param case: what to profile
    :return: seconds of a plain update, seconds of each part, and the largest operators
    """
    model = build(case)
    device = th.device(model.device)

    def update() -> float:  # without a graph, which would be one part
        return timed(model, model._eager_update)

    for _ in range(case.warmup):
        update()
    plain = [update() for _ in range(case.updates)]
    parts = Parts(device)
    watch(model, parts)
    try:
        for _ in range(case.updates):
            with parts.running(REST):
                update()
        by_part = {name: spent / case.updates for name, spent in parts.seconds.items()}
        operators = _operators(update, case.updates, device)
    finally:
        parts.close()
    return {
        "device": str(device),
        "batch_size": model.batch_size,
        "batch_length": model.batch_length,
        "update": summary(plain),
        "parts": dict(sorted(by_part.items(), key=lambda item: -item[1])),
        "operators": operators,
    }


def _operators(update: Callable[[], float], count: int, device: th.device) -> list[dict[str, Any]]:
    """Find the operators with the largest time of their own, per update."""
    cuda = device.type == "cuda"
    activities = [th.profiler.ProfilerActivity.CPU] + [th.profiler.ProfilerActivity.CUDA] * cuda
    with th.profiler.profile(activities=activities) as record:
        for _ in range(count):
            update()
    rows = []
    for event in record.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        if not event.key.startswith(PREFIX):
            name = COMPILED.sub(r"compiled graph \1", event.key)
            rows.append({"name": name, "seconds": spent / count / 1e6, "calls": event.count / count})
    total = sum(row["seconds"] for row in rows) or 1.0
    rows.sort(key=lambda row: -row["seconds"])
    return [row | {"share": row["seconds"] / total} for row in rows[:TOP]]


def report(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Profile in a new process and print both tables and the largest costs.

    :param args: flags
    :param cases: the one case
    :param console: where to print
    :return: part of the JSON file
    """
    with console.status(f"{cases[0].name} ..."):
        result = run_case(cases[0], profile)
    total = sum(result["parts"].values())
    title = f"{case_words(result)}, {result['batch_size']}x{result['batch_length']}"
    table = new_table(f"Parts of an update: {title}", "part", "time", "share")
    for name, spent in result["parts"].items():
        table.add_row(name, seconds(spent), f"{spent / total:.1%}")
    console.print(table)
    table = new_table("Operators by their own time", "operator", "time", "share", "calls")
    for row in result["operators"]:
        table.add_row(row["name"], seconds(row["seconds"]), f"{row['share']:.1%}", f"{row['calls']:g}")
    console.print(table)
    largest = [f"{name} ({spent / total:.0%})" for name, spent in list(result["parts"].items())[:3]]
    operators = [f"{row['name']} ({row['share']:.0%})" for row in result["operators"][:3]]
    print(f"A plain update takes {seconds(result['update']['median'])}, with timers {seconds(total)}.")
    print(f"The three largest costs: {', '.join(largest)}.")
    print(f"The three largest operators: {', '.join(operators)}.")
    return {"results": [result], "largest_parts": largest, "largest_operators": operators}
