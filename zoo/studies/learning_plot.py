"""Learning curves of all seeds in result files of :mod:`sb3_dreamer.zoo.studies.learning_check`."""

import json
from collections.abc import Sequence
from pathlib import Path

WINDOW = 10  # training episodes averaged


def plot(paths: Sequence[Path], target: Path) -> None:
    """Draw the evaluations (thick) and the training episodes (thin) of every seed of one or several files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    titles = set()
    for index, path in enumerate(paths):
        results = json.loads(path.read_text())
        titles.add(f"{results['settings']['algo']} on {results['settings']['env']}")
        for number, run in enumerate(results["runs"].values()):
            color = f"C{index if len(paths) > 1 else number}"
            steps, returns = zip(*run["episodes"], strict=True) if run["episodes"] else ((), ())
            window = min(WINDOW, len(returns))
            smooth = [mean(returns[max(0, i + 1 - window) : i + 1]) for i in range(len(returns))]
            axes.plot(steps, smooth, color=color, alpha=0.35, linewidth=1)
            points = [*([e[0], e[1]] for e in run["evaluations"]), [run["steps"], mean(run["final_returns"])]]
            label = f"seed {run['seed']}" if len(paths) == 1 else path.stem if number == 0 else None
            axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, label=label)
        goal = results["settings"]["goal"]
        if goal is not None and index == 0:
            axes.axhline(goal, color="grey", linestyle=":", label=f"goal {goal:g}")
    axes.set(title=", ".join(sorted(titles)), xlabel="agent steps", ylabel="return of an episode")
    axes.legend(title=f"points: evaluation\nthin: training, mean of {WINDOW}", fontsize=8, title_fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one number."""
    return sum(values) / len(values)
