"""Time and FLOPs of one planning call at the paper's size: 12 steps, 10 iterations, 1000 candidates."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch as th
from torch.utils.flop_counter import FlopCounterMode

from sb3_dreamer.core.planner import CEMPlanner
from sb3_dreamer.core.types import ActionLayout, LatentState, ObsKey
from sb3_dreamer.planet.networks import build_world_model
from sb3_dreamer.planet.spec import SIZES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the ``speed`` command."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--envs", type=int, default=1, help="environments planned for in the one call")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--actions", type=int, default=6, help="width of the action (cheetah: 6)")
    parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    parser.add_argument("--out", help="JSON file")


def run(args: argparse.Namespace) -> None:
    """Measure and print; the fastest call is the one that others on the machine disturbed least."""
    device = th.device(args.device)
    layout = ActionLayout("continuous", (args.actions,))
    spec = SIZES["paper"]
    model = build_world_model(spec, (ObsKey("obs", "image", (3, 64, 64)),), layout).to(device).eval()
    planner = CEMPlanner(layout)
    state = LatentState(th.zeros(args.envs, spec.deter, device=device), th.zeros(args.envs, spec.stoch, device=device))

    def plan() -> float:
        start, cpu = time.perf_counter(), time.process_time()
        with th.autocast(device.type, th.bfloat16, enabled=args.bf16):
            planner.act(model, state).cpu()
        spent.append(time.process_time() - cpu)
        return time.perf_counter() - start

    spent: list[float] = []
    with FlopCounterMode(display=False) as counter:
        plan()
    spent.clear()
    seconds = [plan() for _ in range(args.repeats)]
    record = {
        "device": th.cuda.get_device_name() if device.type == "cuda" else f"cpu, {th.get_num_threads()} thread(s)",
        "envs": args.envs,
        "bf16": args.bf16,
        "gflop": round(counter.get_total_flops() / 1e9, 1),
        "seconds_best": round(min(seconds), 4),
        "seconds_median": round(float(np.median(seconds)), 4),
        "cpu_seconds_best": round(min(spent), 4),
    }
    print(json.dumps(record))
    if args.out:
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
