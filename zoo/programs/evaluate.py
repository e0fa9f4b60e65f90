"""The program ``evaluate``: score one or several runs with intervals, as a table and as JSON."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_dreamer.zoo.config.arguments import OneLineParser, check_output, positive, whole
from sb3_dreamer.zoo.config.errors import UsageError, plural
from sb3_dreamer.zoo.programs import tables
from sb3_dreamer.zoo.runs import run_folder
from sb3_dreamer.zoo.runs.agents import add_agent_arguments, find_run, load_agent, model_file
from sb3_dreamer.zoo.runs.episodes import play
from sb3_dreamer.zoo.runs.run_folder import RunFolder
from sb3_dreamer.zoo.runs.scores import bootstrap_interval


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer evaluate",
        description="Evaluate trained agents: mean return with a bootstrap interval, per run and over runs.",
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("evaluation")
    group.add_argument("-n", "--n-episodes", type=positive, default=20, metavar="N", help="episodes per run")
    group.add_argument("--exp-ids", type=whole, nargs="+", metavar="N", help="evaluate several runs (seeds)")
    group.add_argument("--all-runs", action="store_true", help="evaluate all runs of this environment")
    group.add_argument(
        "-o", "--output", default="", metavar="FILE", help="write all episodes and means to this JSON file"
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Evaluate.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    if args.output:
        check_output("--output", args.output)
    runs = evaluate_runs(args, wanted_runs(args))
    result = {"algo": args.algo, "env": args.env, "runs": runs, **summary([run["mean"] for run in runs])}
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    parts = 2 if len({short_name(run["model"]) for run in runs}) == len(runs) else 4  # 4: jobs of the program suite
    rows = [(short_name(run["model"], parts), in_words(run, plural(len(run["returns"]), "episode"))) for run in runs]
    if len(runs) > 1:
        rows.append((f"{len(runs)} runs", in_words(result, "run means")))
    console = tables.make_console()
    tables.print_table(console, f"{args.algo} on {args.env}: mean +- std [95 % bootstrap interval]", rows)
    if args.output:
        print(f"Written to {args.output}")
    return 0


def short_name(model: str, parts: int = 2) -> str:
    """Return run folder and file without the folders above, which would leave no room for the scores."""
    return str(Path(*Path(model).parts[-parts:]))


def wanted_runs(args: Namespace) -> list[RunFolder]:
    """List the runs to evaluate, each once; of ``--all-runs`` those that have the model asked for.

    :raises UsageError: if there is none
    """
    if args.exp_ids:
        runs = [find_run(Namespace(**{**vars(args), "exp_id": number})) for number in args.exp_ids]
        args.exp_id = args.exp_ids[0]
    first = find_run(args)
    if args.exp_ids:
        return list(dict.fromkeys(runs))
    if not args.all_runs:
        return [first]
    found = []
    for run in run_folder.find_all(args.folder, args.algo, first.name):
        try:
            model_file(run, args)
            found.append(run)
        except UsageError as error:
            print(f"Left out: {error}")
    if not found:
        raise UsageError(f"no run of {first.name} in {args.folder} has the model that is asked for")
    return found


def evaluate_runs(args: Namespace, runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Evaluate runs; of several, print which cannot be evaluated, so that the scores of the others are not lost.

    :raises UsageError: if no run can be evaluated
    """
    if len(runs) == 1:
        return [evaluate_run(args, runs[0])]
    results = []
    for run in runs:
        try:
            results.append(evaluate_run(args, run))
        except UsageError as error:
            print(f"Left out: {error}", flush=True)
    if not results:
        raise UsageError(f"none of {len(runs)} runs of {args.env} can be evaluated")
    return results


def evaluate_run(args: Namespace, run: RunFolder | None = None) -> dict[str, Any]:
    """Evaluate one run's agent: all episodes, with what is needed to repeat them.

    :param args: flags of ``evaluate``
    :param run: the run; None: the one that the flags name
    """
    agent = load_agent(args, run=run)
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
    """Compute mean, standard deviation and the bootstrap interval of the mean.

    :param values: returns of episodes, or means of runs; one value has no interval
    """
    array = np.asarray(values, dtype=np.float64)
    interval = list(bootstrap_interval(array)) if len(array) > 1 else None
    return {"mean": float(array.mean()), "std": float(array.std()), "interval": interval}


def in_words(result: dict[str, Any], over: str) -> str:
    """Write ``12.3 +- 4.5 [11.0, 13.6] over 20 episodes``."""
    bounds = result["interval"]
    interval = f" [{bounds[0]:.1f}, {bounds[1]:.1f}]" if bounds else ""
    return f"{result['mean']:.1f} +- {result['std']:.1f}{interval} over {over}"
