"""Compare gradient estimators for discrete latents: Table 1 of the Gumbel-Softmax paper (arXiv 1611.01144) in small.

Two tasks on scikit-learn's 8x8 digits, binarized: a stochastic binary network (SBN) that predicts the lower half of a
digit from the upper half, and a VAE; each with Bernoulli and with categorical latents, seven estimators, several seeds.
Every cell of the table and seed has a result file; a run that was interrupted continues with the missing ones.
"""

import argparse
import copy
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import torch.nn.functional as F
from torch import Tensor, nn

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.core import estimators as est
from sb3_dreamer.core.baselines import darn_loss, muprop_loss, score_function_loss
from sb3_dreamer.zoo.programs.cli import run_study

Pair = tuple[Tensor, Tensor]  # inputs (B, D) and binary targets (B, P)
METHODS = {  # name here: heading in the paper, name of the pathwise estimator, annealed
    "sf": ("SF", "", False),
    "darn": ("DARN", "", False),
    "muprop": ("MuProp", "", False),
    "st": ("ST", "straight_through", False),
    "annealed_st": ("Annealed ST", "straight_through", True),
    "gumbel": ("Gumbel-S.", "gumbel_softmax", True),
    "st_gumbel": ("ST Gumbel-S.", "st_gumbel_softmax", True),
}
PAPER = {  # nats, as printed in the paper's Table 1, in the order of METHODS
    "sbn_bernoulli": (72.0, 59.7, 58.9, 58.9, 58.7, 58.5, 59.3),
    "sbn_categorical": (73.1, 67.9, 63.0, 61.8, 61.1, 59.0, 59.7),
    "vae_bernoulli": (112.2, 110.9, 109.7, 116.0, 111.5, 105.0, 111.5),
    "vae_categorical": (110.6, 128.8, 107.0, 110.9, 107.8, 101.5, 107.8),
}
LEARNING_RATES, SEARCH_SEED = (3e-3, 1e-2, 3e-2), 10_000  # chosen per cell on this seed, by validation
BATCH_SIZE, UNITS, CLASSES = 100, 80, 10
EVAL_EVERY, VALID_SAMPLES, TEST_SAMPLES = 10, 20, 200  # epochs; hard samples per input


def load_pairs(task: str) -> dict[str, Pair]:
    """Load 1197 training, 300 validation and 300 test digits; the split is the same for every seed."""
    from sklearn.datasets import load_digits

    order = th.randperm(1797, generator=th.Generator().manual_seed(0))
    pixels = th.as_tensor(load_digits().data > 7.5, dtype=th.float32)[order]
    inputs, targets = (pixels[:, :32], pixels[:, 32:]) if task == "sbn" else (pixels, pixels)
    bounds = {"train": slice(0, 1197), "valid": slice(1197, 1497), "test": slice(1497, None)}
    return {name: (inputs[part], targets[part]) for name, part in bounds.items()}


class LatentNetwork(nn.Module):
    """Linear layers with stochastic ones between: 32-80-80-32 (SBN) or 64-80-64 (VAE); latents one-hot (..., S, K)."""

    def __init__(self, row: str) -> None:
        super().__init__()
        task, latent = row.replace("bernoulli", "Bernoulli").split("_")
        sizes, pixels = ((32, UNITS), 32) if task == "sbn" else ((64,), 64)
        self.bernoulli = latent == "bernoulli"  # S = 80, K = 2, the first class passed on; categorical: S = 8, K = 10
        self.layers = nn.ModuleList(nn.Linear(size, UNITS) for size in sizes)
        self.decoder = nn.Linear(UNITS, pixels)
        self.prior = nn.Parameter(th.zeros(UNITS)) if task == "vae" else None  # learned

    def logits(self, layer: int, below: Tensor) -> Tensor:
        """Compute logits ``(..., S, K)`` of a stochastic layer from the inputs (layer 0) or the latents below."""
        return self._unflatten(self.layers[layer](below if layer == 0 else self._flatten(below)))

    def nll(self, sample: Tensor, target: Tensor) -> Tensor:
        """Compute ``-log p(target | sample)``, ``(...)`` nats."""
        pixels = self.decoder(self._flatten(sample))
        return F.binary_cross_entropy_with_logits(pixels, target.expand_as(pixels), reduction="none").sum(-1)

    def kl(self, logits: Tensor) -> Tensor:
        """Compute ``KL(q || prior)`` in closed form, ``(...)`` nats; 0 for the SBN, which has no prior."""
        if self.prior is None:
            return logits.new_zeros(logits.shape[:-2])
        log_q, log_p = logits.log_softmax(-1), self._unflatten(self.prior).log_softmax(-1)
        return (log_q.exp() * (log_q - log_p)).sum((-1, -2))

    def run(self, inputs: Tensor, estimator: est.Estimator) -> tuple[list[Tensor], list[Tensor]]:
        """Sample each layer from the one below: logits and samples ``(..., S, K)`` per layer."""
        logits, samples = list[Tensor](), list[Tensor]()
        for layer in range(len(self.layers)):
            logits.append(self.logits(layer, samples[-1] if layer else inputs))
            samples.append(estimator(logits[-1]))
        return logits, samples

    def _flatten(self, sample: Tensor) -> Tensor:
        return sample[..., 0] if self.bernoulli else sample.flatten(-2)

    def _unflatten(self, flat: Tensor) -> Tensor:
        shape = (*flat.shape[:-1], -1, CLASSES)
        return th.stack([flat, th.zeros_like(flat)], -1) if self.bernoulli else flat.view(shape)


def expand_cost(net: LatentNetwork, data: Pair, samples: list[Tensor] | None) -> tuple[Tensor, list[Tensor], Any]:
    """Compute the cost, the latents and its slopes there: at the samples (DARN; straight through) or the mean field."""
    points: list[Tensor] = []
    for layer in range(len(net.layers)):
        probs = net.logits(layer, points[-1] if layer else data[0]).softmax(-1)
        points.append(probs if samples is None else samples[layer] + probs - probs.detach())
    cost = net.nll(points[-1], data[1])
    return cost.detach(), [point.detach() for point in points], th.autograd.grad(cost.sum(), points)


def training_loss(net: LatentNetwork, data: Pair, method: str, temperature: float, baseline: Tensor) -> Tensor:
    """Compute the mean training loss of one batch; ``baseline`` is the running mean of SF and MuProp, kept here."""
    name = METHODS[method][1]
    logits, samples = net.run(data[0], est.make_estimator(name, temperature) if name else est.ScoreFunction())
    cost = net.nll(samples[-1], data[1])
    loss = cost + net.kl(logits[0])
    if method == "darn":
        for layer in zip(logits, samples, expand_cost(net, data, samples)[2], strict=True):
            loss = loss + darn_loss(*layer).sum(-1)
    elif method == "muprop":
        mean_cost, points, slopes = expand_cost(net, data, None)
        for x, z, point, slope in zip(logits, samples, points, slopes, strict=True):
            loss = loss + muprop_loss(x, z, cost, mean_cost, slope, mean=point, baseline=baseline)
        baseline.lerp_((cost - mean_cost).detach().mean(), 0.05)  # the expansion's linear term averages to about zero
    elif method == "sf":
        for x, z in zip(logits, samples, strict=True):
            loss = loss + score_function_loss(est.categorical_log_prob(x, z).sum(-1), cost, baseline)
        baseline.lerp_(cost.detach().mean(), 0.05)
    return loss.mean()


@th.no_grad()
def evaluate(net: LatentNetwork, data: Pair, count: int) -> float:
    """Compute the figure of merit with hard samples: ``-log mean_i p(y | z_i)`` (SBN) or the negative ELBO (VAE)."""
    logits, samples = net.run(data[0].expand(count, *data[0].shape), est.ScoreFunction())
    cost = net.nll(samples[-1], data[1]) + net.kl(logits[0])
    return (cost.mean(0) if net.prior is not None else math.log(count) - (-cost).logsumexp(0)).mean().item()


def train(row: str, method: str, seed: int, epochs: int, learning_rate: float) -> dict[str, Any]:
    """Train once; the test figure is that of the epoch with the best validation figure (a search leaves it coarse)."""
    th.manual_seed(seed)
    begin, data, net, baseline = time.perf_counter(), load_pairs(row[:3]), LatentNetwork(row), th.zeros(())
    optimizer, (inputs, targets) = th.optim.Adam(net.parameters(), lr=learning_rate), data["train"]
    batches = len(inputs) // BATCH_SIZE
    rate = math.log(2.0) / (0.5 * epochs * batches)  # an annealed temperature reaches its floor of 0.5 halfway
    curve, best, best_valid, best_epoch = [], net, math.inf, 0
    for epoch in range(1, epochs + 1):
        for i, chosen in enumerate(th.randperm(len(inputs))[: batches * BATCH_SIZE].view(batches, BATCH_SIZE)):
            step = (epoch - 1) * batches + i
            temperature = est.exponential_temperature(step, rate) if METHODS[method][2] else 1.0
            optimizer.zero_grad()
            th.autograd.backward(training_loss(net, (inputs[chosen], targets[chosen]), method, temperature, baseline))
            optimizer.step()
        if epoch % EVAL_EVERY == 0:
            curve.append(evaluate(net, data["valid"], VALID_SAMPLES))
            if curve[-1] < best_valid:
                best, best_valid, best_epoch = copy.deepcopy(net), curve[-1], epoch
    result = {"learning_rate": learning_rate, "epoch": best_epoch, "valid": best_valid, "curve": curve}
    test = evaluate(best, data["test"], VALID_SAMPLES if seed == SEARCH_SEED else TEST_SAMPLES)
    return result | {"test": test, "seconds": time.perf_counter() - begin}


def run_cell(row: str, method: str, seed: int, epochs: int, out: Path) -> dict[str, Any]:
    """Return the result of a cell from its file, or compute it: first the learning rate, then the seed."""
    file = out / f"{row}-{method}-epochs{epochs}-seed{seed}.json"
    if not file.exists():
        searched = seed != SEARCH_SEED and run_cell(row, method, SEARCH_SEED, epochs, out)["learning_rate"]
        rates = (searched,) if searched else LEARNING_RATES
        result = min((train(row, method, seed, epochs, rate) for rate in rates), key=lambda item: item["valid"])
        with atomic_write(file) as handle:  # an interrupted run leaves no half-written result
            handle.write(json.dumps(result).encode())
        print(f"{file.stem:<48} lr {result['learning_rate']:<6g} test {result['test']:7.3f}", flush=True)
    return dict(json.loads(file.read_text(encoding="utf-8")))


def summarize(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Reduce one method's seeds to the mean test figure and half of its 95% t-interval, with what they came from."""
    from scipy.stats import t

    test = np.array([cell["test"] for cell in cells])
    half = t.ppf(0.975, len(test) - 1) * test.std(ddof=1) / math.sqrt(len(test))
    curve = np.mean([cell["curve"] for cell in cells], axis=0).round(3).tolist()
    summary = {"mean": test.mean(), "half": half, "test": test.tolist(), "valid_curve": curve}
    return summary | {"learning_rate": cells[0]["learning_rate"], "best_epochs": [cell["epoch"] for cell in cells]}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the results beside the paper's figures as a Markdown table, with Kendall's rank correlation of both."""
    from scipy.stats import kendalltau

    lines = [f"| | {' | '.join(head for head, _, _ in METHODS.values())} | rank correlation |", "|---" * 9 + "|"]
    for row, cells in results.items():
        means = [cell["mean"] for cell in cells.values()]
        texts = [f"{cell['mean']:.2f} ± {cell['half']:.2f}" for cell in cells.values()]
        marked = [f"**{x}**" if mean == min(means) else x for x, mean in zip(texts, means, strict=True)]
        lines.append(f"| {row} | {' | '.join(marked)} | {kendalltau(means, PAPER[row]).statistic:+.2f} |")
        lines.append(f"| *paper (MNIST)* | {' | '.join(f'{x:.1f}' for x in PAPER[row])} | |")
    return "\n".join(lines)


def plot(rows: dict[str, dict[str, Any]], file: Path) -> None:
    """Draw test figures (dots: seeds, bars: 95% intervals) beside mean validation curves, a line of panels per row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4 * len(rows) + 0.8), layout="constrained")
    for (row, cells), left, right in zip(rows.items(), *figure.subplots(len(rows), 2, squeeze=False).T, strict=True):
        ranks = [sorted(PAPER[row]).index(x) + 1 for x in PAPER[row]]
        for i, (method, cell) in enumerate(cells.items()):
            left.plot(cell["test"], [i] * len(cell["test"]), ".", color=f"C{i}", alpha=0.4)
            left.errorbar(cell["mean"], i, xerr=cell["half"], fmt="o", color=f"C{i}", capsize=4)
            epochs = EVAL_EVERY * np.arange(1, len(cell["valid_curve"]) + 1)
            right.plot(epochs, cell["valid_curve"], color=f"C{i}", label=METHODS[method][0])
        labels = [f"{METHODS[method][0]} (paper: {rank})" for method, rank in zip(cells, ranks, strict=True)]
        left.set_yticks(range(len(cells)), labels)
        left.invert_yaxis()
        left.grid(axis="x", alpha=0.3)
        task, latent = row.replace("bernoulli", "Bernoulli").split("_")
        left.set_title(f"{task.upper()}, {latent}: test")
        right.set_title(f"{task.upper()}, {latent}: validation")
        right.set_ylabel("nats")
    left.set_xlabel("nats (lower is better)")
    right.set_xlabel("epoch")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(file, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the missing cells, print the table, draw the plot and, on request, renew the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m sb3_dreamer.zoo.studies.estimators", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1 of every cell, N >= 2 (default 5)")
    parser.add_argument("--epochs", type=int, default=120, help="epochs of training, a multiple of 10 (default 120)")
    parser.add_argument("--out", type=Path, default="runs/estimator_study", help="folder of results (%(default)s)")
    parser.add_argument("--docs", type=Path, help="also renew estimators.md and its plot in this documentation folder")
    options = parser.parse_args(argv)
    if options.seeds < 2 or options.epochs < EVAL_EVERY or options.epochs % EVAL_EVERY:
        parser.error(f"need --seeds >= 2 and --epochs a multiple of {EVAL_EVERY}")
    out, epochs, seeds = options.out, options.epochs, range(options.seeds)
    th.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    cells = {row: {m: summarize([run_cell(row, m, s, epochs, out) for s in seeds]) for m in METHODS} for row in PAPER}
    print(table(cells))
    plot(cells, (options.docs / "media" if options.docs else out) / "estimators_table1.png")
    if options.docs:
        content = json.dumps({"epochs": epochs, "torch": th.__version__, "rows": cells}, indent=1)
        (options.docs / "results" / "estimators.json").write_text(content + "\n", encoding="utf-8")
        page = options.docs / "estimators.md"
        before, _, after = re.split(
            "(?s)(?<=<!-- table -->\n)(.*)(?=<!-- /table -->)", page.read_text(encoding="utf-8")
        )
        page.write_text(f"{before}{table(cells)}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_study(main))
