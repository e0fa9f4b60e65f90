"""The program ``evaluate``: scores of one or several runs with intervals, as a table and as JSON."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_dreamer.zoo.programs import display
from sb3_dreamer.zoo.programs.arguments import OneLineParser, positive, whole
from sb3_dreamer.zoo.programs.errors import UsageError
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.runs.agents import add_agent_arguments, load_agent
from sb3_dreamer.zoo.runs.episodes import play

RESAMPLES, CONFIDENCE = 2000, 0.95


def make_parser() -> OneLineParser:
    """The parser of ``evaluate``."""
    parser = OneLineParser(
        prog="sb3-dreamer evaluate",
        description="Evaluate trained agents: every episode, mean and bootstrap interval per run and over runs.",
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("evaluation")
    group.add_argument("-n", "--n-episodes", type=positive, default=20, metavar="N", help="episodes of each run")
    group.add_argument("--exp-ids", type=whole, nargs="+", metavar="N", help="several runs (seeds) instead of --exp-id")
    group.add_argument("--all-runs", action="store_true", help="all runs of this environment")
    group.add_argument("-o", "--output", default="", metavar="FILE", help="write everything as JSON")
    return parser


def main(words: Sequence[str]) -> int:
    """Evaluate.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    if args.output and not Path(args.output).parent.is_dir():
        raise UsageError(f"--output {args.output!r}: there is no folder {Path(args.output).parent}")
    runs = [evaluate_run(args, number) for number in wanted_runs(args)]
    result = {"algo": args.algo, "env": args.env, "runs": runs, **summary([run["mean"] for run in runs])}
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    rows = [(short_name(run["model"]), in_words(run, f"{len(run['returns'])} episodes")) for run in runs]
    if len(runs) > 1:
        rows.append((f"{len(runs)} runs", in_words(result, "run means")))
    console = display.make_console()
    display.print_table(console, f"{args.algo} on {args.env}: mean +- std [95 % bootstrap interval]", rows)
    if args.output:
        print(f"Written to {args.output}")
    return 0


def short_name(model: str) -> str:
    """Run folder and file, without the folders above, which would leave no room for the scores."""
    return str(Path(*Path(model).parts[-2:]))


def wanted_runs(args: Namespace) -> list[int]:
    """Numbers of the runs to evaluate."""
    from sb3_dreamer.zoo.runs.agents import find_run

    if args.exp_ids:
        return list(args.exp_ids)
    if args.all_runs:
        run = find_run(Namespace(**{**vars(args), "exp_id": 0}), args.algo)
        return sorted(run_folder.run_numbers(run.path.parent, run.name))
    return [args.exp_id]


def evaluate_run(args: Namespace, exp_id: int) -> dict[str, Any]:
    """All episodes of one run's agent, with what is needed to repeat them."""
    agent = load_agent(Namespace(**{**vars(args), "exp_id": exp_id}))
    try:
        episodes = list(play(agent.model, agent.env, agent.deterministic, n_episodes=args.n_episodes))
    finally:
        agent.env.close()
    returns = [episode.reward for episode in episodes]
    return {
        "model": str(agent.path),
        "trained_steps": int(agent.model.num_timesteps),
        "training_seed": agent.config.get("seed"),
        "evaluation_seed": args.seed,
        "deterministic": agent.deterministic,
        "suite_preset": agent.config.get("suite_preset"),
        "returns": returns,
        "lengths": [episode.length for episode in episodes],
        **summary(returns),
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and the percentile interval of the mean from resampled values.

    :param values: returns of episodes, or means of runs; one value has no interval
    """
    array = np.asarray(values, dtype=np.float64)
    result: dict[str, Any] = {"mean": float(array.mean()), "std": float(array.std()), "interval": None}
    if len(array) > 1:
        draws = np.random.default_rng(0).choice(array, (RESAMPLES, len(array))).mean(1)
        tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
        result["interval"] = [float(bound) for bound in np.quantile(draws, tails)]
    return result


def in_words(result: dict[str, Any], over: str) -> str:
    """``12.3 +- 4.5 [11.0, 13.6] over 20 episodes``."""
    bounds = result["interval"]
    interval = f" [{bounds[0]:.1f}, {bounds[1]:.1f}]" if bounds else ""
    return f"{result['mean']:.1f} +- {result['std']:.1f}{interval} over {over}"
