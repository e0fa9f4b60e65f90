"""Curves of the DMC proprio study inside the range of the published seeds, and the scores as a table and JSON."""

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.runs.provenance import describe_system

BIN = 10_000  # frames over which the published scores are averaged
MARKS = (20_000, 50_000)  # frames at which scores are compared
STUDY = "sb3_dreamer.zoo.studies.dmc_proprio_study"
NOTE = "DreamerV3 2024, size 1m; published: scores/dmc_proprio-dreamerv3.json.gz of github.com/danijar/dreamerv3"


def read_episodes(path: Path) -> list[dict[str, float]]:
    """Episodes of a run. What was trained twice, since it came after the last checkpoint, counts in its last form."""
    kept: list[dict[str, float]] = []
    for text in path.read_text().splitlines():
        episode = json.loads(text)
        while kept and kept[-1]["frames"] >= episode["frames"] and kept[-1]["updates"] > episode["updates"]:
            kept.pop()
        kept.append(episode)
    return kept


def score_at(episodes: Sequence[dict[str, float]], frames: int) -> float | None:
    """Mean return of the episodes of the last ``BIN`` frames; None if there is none."""
    returns = [e["return"] for e in episodes if frames - BIN < e["frames"] <= frames]
    return sum(returns) / len(returns) if returns else None


def reached(episodes: Sequence[dict[str, float]], frames: int) -> bool:
    """Whether a run covers at least half of the bin that ends there."""
    return episodes[-1]["frames"] >= frames - BIN / 2


def read_published(path: Path, task: str) -> dict[int, list[float]]:
    """Scores of all published seeds by frame number."""
    with gzip.open(path, "rt") as file:
        curves = [curve for curve in json.load(file) if curve["task"] == f"dmc_{task}"]
    if not curves:
        raise ValueError(f"{path} has no curve for dmc_{task}")
    points: dict[int, list[float]] = {}
    for curve in curves:
        for frames, score in zip(curve["xs"], curve["ys"], strict=True):
            points.setdefault(int(frames), []).append(float(score))
    return points


def plot(args: argparse.Namespace) -> None:
    """Draw every task that was run, print the table and write the figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import EngFormatter, MultipleLocator

    runs = read_runs(Path(args.out))
    figure, axes = plt.subplots(1, len(runs), figsize=(4.5 * len(runs), 3.5), squeeze=False, layout="constrained")
    rows: list[dict[str, Any]] = []
    for axis, (task, seeds) in zip(axes[0], runs.items(), strict=True):
        published = read_published(Path(args.scores), task)
        most = max(episode["frames"] for episodes in seeds.values() for episode in episodes)
        xs = [x for x in sorted(published) if x < most + BIN]
        low, high = ([pick(published[x]) for x in xs] for pick in (min, max))
        axis.fill_between(xs, low, high, color="0.85", label=f"published, {len(published[xs[0]])} seeds")
        axis.plot(xs, [sum(published[x]) / len(published[x]) for x in xs], color="0.5", label="published mean")
        for seed, episodes in seeds.items():
            points = [(x, score_at(episodes, x)) for x in range(BIN, int(most) + BIN, BIN) if reached(episodes, x)]
            drawn = [(x, y) for x, y in points if y is not None]
            axis.plot(*zip(*drawn, strict=True), marker="o", markersize=3, label=f"ours, seed {seed}")
            rows += compare(task, seed, episodes, published)
        axis.set(title=task, xlabel="environment frames", ylabel="episode return")
        axis.xaxis.set_major_locator(MultipleLocator(max(1, round(most / (6 * BIN))) * BIN))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.legend(fontsize=7)
    print("| task | seed | frames | ours | published mean | published range |\n|---|---|---|---|---|---|")
    for row in rows:
        low_score, high_score = row["published_range"]
        print(f"| {row['task']} | {row['seed']} | {row['frames']:,} | {row['score']} | {row['published_mean']}", end="")
        print(f" | {low_score} to {high_score} |")
    for target in (Path(args.picture), Path(args.json)):
        target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.picture, dpi=120)
    system = {name: part for name, part in describe_system().items() if name != "git"}  # of the plot, not of the runs
    record = {"note": NOTE, "commands": commands(Path(args.out)), "system": system}
    Path(args.json).write_text(json.dumps(record | {"scores": rows, "episodes": runs}, indent=1) + "\n")


def commands(out: Path) -> list[str]:
    """What began each run, from the protocol it keeps."""
    lines = []
    for path in sorted(out.glob("*/protocol.json")):
        task, seed = path.parent.name.rsplit("_", 1)
        words = [f"--{name.replace('_', '-')} {value}" for name, value in json.loads(path.read_text()).items()]
        lines.append(" ".join([f"python -m {STUDY} run --task {task} --seed {seed}", *words]))
    return lines


def read_runs(out: Path) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Episodes of all runs by task and seed."""
    runs: dict[str, dict[int, list[dict[str, float]]]] = {}
    for path in sorted(out.glob("*/episodes.jsonl")):
        task, text = path.parent.name.rsplit("_", 1)
        runs.setdefault(task, {})[int(text)] = read_episodes(path)
    if not runs:
        raise ValueError(f"{out} holds no runs: begin with the command 'run'")
    return runs


def compare(
    task: str, seed: int, episodes: Sequence[dict[str, float]], published: dict[int, list[float]]
) -> list[dict[str, Any]]:
    """Our score beside the published ones at every mark that the run has reached."""
    rows: list[dict[str, Any]] = []
    for mark in MARKS:
        score = score_at(episodes, mark)
        if score is None or mark not in published or not reached(episodes, mark):
            continue
        theirs = published[mark]
        mean, spread = round(sum(theirs) / len(theirs)), [round(min(theirs)), round(max(theirs))]
        row = {"task": task, "seed": seed, "frames": mark, "score": round(score)}
        rows.append(row | {"published_mean": mean, "published_range": spread})
    return rows
