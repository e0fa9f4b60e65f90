"""Aggregate Atari scores as DreamerV2 does (arXiv 2010.02193, section 3, Table 1), with bootstrap intervals.

``python -m sb3_dreamer.zoo.runs.scores results.json`` reads ``{agent: {game: score or [score per seed]}}``.
"""

import argparse
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

Scores = Mapping[str, float | Sequence[float]]
DATA = Path(__file__).parents[1] / "data" / "atari_scores.json"


class GameReference(NamedTuple):
    """Reference scores of one game: random policy, professional gamer, human world record."""

    random: float
    gamer: float
    record: float


class AtariMetrics(NamedTuple):
    """The four aggregates of DreamerV2's Table 1, and the number of games they cover."""

    gamer_median: float
    gamer_mean: float
    record_mean: float
    clipped_record_mean: float
    games: int


@cache
def atari_references() -> dict[str, GameReference]:
    """Load the reference scores of the 55 games; the data file names its sources."""
    games = json.loads(DATA.read_text(encoding="utf-8"))["games"]
    return {name: GameReference(**row) for name, row in games.items()}


def canonical_game(name: str) -> str:
    """Map a spelling of a game to its name in the data file.

    :param name: ``"montezuma_revenge"``, ``"atari_montezuma_revenge"``, ``"atari:montezuma_revenge"`` or a gymnasium id
        such as ``"ALE/MontezumaRevenge-v5"``.
    :raises ValueError: if no game of the 55 matches; the message suggests the nearest one.
    """
    bare = re.sub(r"^(ale/|atari[_:])|(noframeskip|deterministic)?-v\d+$", "", name.strip().lower())
    squashed = re.sub(r"[^a-z0-9]", "", bare)
    known = {game.replace("_", ""): game for game in atari_references()}
    if squashed not in known:
        close = difflib.get_close_matches(squashed, known, n=1)
        hint = f"did you mean {known[close[0]]!r}?" if close else "the data file lists the 55 games of DreamerV2"
        raise ValueError(f"unknown Atari game {name!r}: {hint}")
    return known[squashed]


def normalized_scores(scores: Scores, reference: str = "gamer") -> dict[str, np.ndarray]:
    """Normalize each score to ``(score - random) / (reference - random)``.

    :param scores: game to score, or to one score per seed.
    :param reference: ``"gamer"`` (default) or ``"record"``.
    :return: canonical game to normalized scores, one per seed.
    :raises ValueError: if a game is unknown, given twice or without scores, or the reference is unknown.
    """
    if reference not in ("gamer", "record"):
        raise ValueError(f"reference must be 'gamer' or 'record', got {reference!r}")
    result: dict[str, np.ndarray] = {}
    for name, values in scores.items():
        game, runs = canonical_game(name), np.atleast_1d(np.asarray(values, dtype=np.float64))
        if game in result:
            raise ValueError(f"game {game!r} is given twice (as {name!r}): keep one entry")
        if runs.ndim != 1 or not runs.size or not np.isfinite(runs).all():
            raise ValueError(f"scores of {name!r} must be one finite number per seed, got {values!r}")
        row = atari_references()[game]
        result[game] = (runs - row.random) / (getattr(row, reference) - row.random)
    return result


def atari_metrics(scores: Scores, partial: bool = False) -> AtariMetrics:
    """Compute gamer median, gamer mean, record mean and clipped record mean; seeds are averaged within a game first.

    The clipped record mean clips from above only: a score below random stays negative, as Table 1 requires.

    :param scores: game to score, or to one score per seed.
    :param partial: accept fewer than the 55 games (default False: such an average is not comparable with the paper's).
    :raises ValueError: as :func:`normalized_scores`, or if games are missing.
    """
    gamer = {game: runs.mean() for game, runs in normalized_scores(scores, "gamer").items()}
    missing = sorted(set(atari_references()) - set(gamer))
    if not gamer or (missing and not partial):
        raise ValueError(f"{len(missing)} of the 55 games are missing: {', '.join(missing)}; partial=True allows it")
    record = np.array([runs.mean() for runs in normalized_scores(scores, "record").values()])
    values = np.array(list(gamer.values()))
    clipped = np.minimum(record, 1.0)
    return AtariMetrics(
        float(np.median(values)), float(values.mean()), float(record.mean()), float(clipped.mean()), len(values)
    )


def iqm(scores: np.ndarray) -> float:
    """Compute the interquartile mean over runs and tasks: a quarter of all values is cut at each end.

    :param scores: normalized scores ``(runs, tasks)`` (Agarwal et al. 2021, arXiv 2108.13264, section 4.3).
    """
    values = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def bootstrap_interval(
    scores: np.ndarray | Sequence[float],
    statistic: Callable[[np.ndarray], float] = np.mean,
    reps: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute a stratified-bootstrap percentile interval: runs are resampled within each task.

    :param scores: ``(runs,)`` or ``(runs, tasks)``, at least 2 runs
    :param statistic: of an array of that shape (default: the mean)
    :param reps: resamples (default 2000)
    :param confidence: coverage (default 0.95)
    :param seed: seed of the resampling (default 0)
    :return: lower and upper bound
    :raises ValueError: if the shape is wrong
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim not in (1, 2) or len(matrix) < 2:
        raise ValueError(f"scores must be (runs,) or (runs, tasks) with at least 2 runs, got shape {matrix.shape}")
    rng = np.random.default_rng(seed)
    rows = (rng.integers(len(matrix), size=matrix.shape) for _ in range(reps))
    draws = [statistic(np.take_along_axis(matrix, row, axis=0)) for row in rows]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def normalize_for_suite(env: str, values: np.ndarray) -> np.ndarray | None:
    """Put scores on the scale of their suite: gamer-normalized on Atari, a thousandth on control; None elsewhere."""
    suite, _, task = env.partition(":")
    if suite.startswith("atari"):
        reference = atari_references()[canonical_game(task)]
        return np.asarray((values - reference.random) / (reference.gamer - reference.random))
    return values / 1000 if suite in ("dmc_vision", "dmc_proprio", "planet") else None


def main(argv: Sequence[str] | None = None) -> None:
    """Print the aggregates of the agents in a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m sb3_dreamer.zoo.runs.scores", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON: {agent: {game: score or [score per seed]}}, or under 'agents'")
    parser.add_argument("--partial", action="store_true", help="accept agents with fewer than the 55 games")
    options = parser.parse_args(argv)
    try:
        content = json.loads(options.file.read_text(encoding="utf-8"))
        agents = content.get("agents", content)
        rows = [(name, atari_metrics(scores, options.partial), _interval(scores)) for name, scores in agents.items()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        parser.error(f"{options.file}: {error}")
    print(f"{'agent':<24} gamer median  gamer mean record mean  clipped  games  gamer IQM")
    for name, row, interval in rows:
        print(f"{name:<24} {row[0]:>12.2f} {row[1]:>11.2f} {row[2]:>11.2f} {row[3]:>8.2f} {row.games:>6}  {interval}")


def _interval(scores: Scores) -> str:
    runs = list(normalized_scores(scores).values())
    if len({len(row) for row in runs}) > 1:
        return "games differ in their number of seeds"
    matrix = np.stack(runs, axis=1)
    if len(matrix) < 2:
        return f"{iqm(matrix):.2f} (one seed: no interval)"
    low, high = bootstrap_interval(matrix, iqm)
    return f"{iqm(matrix):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
