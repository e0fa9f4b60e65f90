"""The program ``bench``: measure speed; see docs/speed.md."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from sb3_dreamer.hints import near
from sb3_dreamer.zoo.config.algorithms import ALGORITHMS, algorithm_class, check_algorithm
from sb3_dreamer.zoo.config.arguments import (
    KeyValues,
    OneLineParser,
    check_output,
    drawn_seed,
    positive,
    positive_number,
    to_command,
)
from sb3_dreamer.zoo.config.building import check_device
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.values import check_values
from sb3_dreamer.zoo.programs import tables
from sb3_dreamer.zoo.speed.case import ACTIONS, OBSERVATIONS, PARTS, Case, run_cases, sizes_of
from sb3_dreamer.zoo.speed.report import (
    acting_table,
    floor_table,
    header,
    header_rows,
    print_failures,
    update_table,
    write_json,
)
from sb3_dreamer.zoo.speed.rivals import read_rival

PROGRAMS = ("table", "learn", "scaling", "profile", "rivals", "gpu")
PICTURE = "docs/media/bench_scaling.png"  #: of ``scaling``
SINGLE = PROGRAMS[1:]  # programs of one algorithm


def main(words: Sequence[str]) -> int:
    """Measure, print and write.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    cases = make_cases(args)
    if args.program == "scaling":
        args.plot = args.plot or PICTURE
    for flag, name in (("--out", args.out), ("--plot", args.plot)):
        if name is not None:
            check_output(flag, name)
    run = table
    if args.program == "scaling":
        from sb3_dreamer.zoo.speed.scaling import scaling as run
    elif args.program == "learn":
        from sb3_dreamer.zoo.speed.learning import report as run
    elif args.program == "profile":
        from sb3_dreamer.zoo.speed.breakdown import report as run
    elif args.program == "rivals":
        from sb3_dreamer.zoo.speed.rivals import rivals as run
    elif args.program == "gpu":
        from sb3_dreamer.zoo.speed.gpu import report as run
    head = header(to_command("bench", words), seed=args.seed, threads=cases[0].threads)
    console = tables.make_console()
    tables.print_table(console, "Where", header_rows(head))
    results = run(args, cases, console)
    if args.out:
        write_json(args.out, {**head, **results})
        print(f"Written: {args.out}")
    return 1 if results.get("failures") else 0


def table(args: argparse.Namespace, cases: list[Case], console: Any) -> dict[str, Any]:
    """Measure every case and print one table of all.

    :param args: flags
    :param cases: what to measure
    :param console: where to print
    :return: part of the JSON file
    """
    from sb3_dreamer.zoo.speed.measure import measure

    results, failures = run_cases({case.name: case for case in cases}, measure, console)
    console.print(update_table(results))
    console.print(acting_table(results))
    floors = [result for result in results if "floor" in result]
    if floors:
        console.print(floor_table(floors))
    print_failures(failures)
    return {"results": results, "failures": failures}


def make_parser() -> OneLineParser:
    """Make the parser of ``bench``."""
    parser = OneLineParser(
        prog="sb3-dreamer bench",
        description="Measure speed. table: updates, acting, sampling, learning and the fraction of the floor. learn: "
        "steps per second of learn() and where its time goes, over train ratios and environments. scaling: time of an "
        "update over batch size, batch length and model size. profile: where an update's time goes. rivals: "
        "our update and other programs' alternately. gpu: in both precisions, plain, as a graph, with compiled steps.",
        epilog="Examples: 'sb3-dreamer bench', 'sb3-dreamer bench --algo dreamerv3 --sizes 1m 12m --obs vectors images "
        "--out speed.json', 'sb3-dreamer bench profile --algo dreamerv3 --sizes 1m'.",
    )
    parser.add_argument("program", nargs="?", default="table", metavar="PROGRAM", help=", ".join(PROGRAMS))
    _add_cases(parser)
    _add_measuring(parser)
    return parser


def _add_cases(parser: OneLineParser) -> None:
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--algo", nargs="+", metavar="ALGO",
        help=f"{', '.join(ALGORITHMS)} (default: all for table, dreamerv3 for the other programs)",
    )  # fmt: skip
    group.add_argument("--sizes", nargs="+", metavar="SIZE", help="model sizes (default: a small one)")
    group.add_argument("--obs", nargs="+", metavar="KIND", default=["vectors"], help=", ".join(OBSERVATIONS))
    group.add_argument("--action", metavar="KIND", default="box", help="box (6 numbers) or discrete (6 or 18)")
    group.add_argument("--batch-size", type=positive, metavar="B", help="default: the algorithm's")
    group.add_argument("--batch-length", type=positive, metavar="T", help="default: the algorithm's")
    group.add_argument("--train-ratio", type=positive_number, default=64.0, metavar="R", help="of the end-to-end run")
    group.add_argument(
        "--hyperparams", nargs="+", action=KeyValues, metavar="KEY:VALUE", help="further constructor arguments"
    )
    group.add_argument(
        "--parts", nargs="*", metavar="PART", help=f"table: what besides updates: {', '.join(PARTS)} (default: all)"
    )
    group.add_argument("--rival", action="append", metavar="NAME=COMMAND", help="rivals: a driver to run (repeatable)")


def _add_measuring(parser: OneLineParser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:1 (default: cpu; gpu: cuda)")
    group.add_argument("--threads", type=positive, metavar="N", help="of torch (default: its own choice)")
    group.add_argument(
        "--updates", type=positive, metavar="N", help="timed (default: 8; 4 for scaling, 3 for profile, 30 for gpu)"
    )
    group.add_argument("--warmup", type=positive, default=2, metavar="N", help="updates before them")
    group.add_argument("--rounds", type=positive, default=3, metavar="N", help="rivals: runs of each program")
    group.add_argument(
        "--timeout", type=positive, default=600, metavar="SECONDS", help="rivals: longest run of a driver"
    )
    group.add_argument(
        "--seed", type=drawn_seed, default=0, metavar="N", help="of models and data (default: 0; -1: drawn)"
    )
    group.add_argument("--out", metavar="FILE", help="JSON file of the results")
    group.add_argument("--plot", metavar="FILE", help=f"scaling: picture (default: {PICTURE})")


def known(name: str, value: str, choices: Any) -> str:
    """Return the value, if it is among the choices.

    :raises UsageError: with the nearest choice
    """
    if value not in choices:
        raise UsageError(f"unknown {name} {value!r}{near(value, choices)}: use {', '.join(choices)}")
    return value


def make_cases(args: argparse.Namespace) -> list[Case]:
    """Return the cases of ``table``; of the other programs, the one case (scaling: one for each size).

    :raises UsageError: for names that are not known, with the nearest known one
    """
    import torch as th

    known("program", args.program, PROGRAMS)
    default = ["dreamerv3"] if args.program in SINGLE else list(ALGORITHMS)
    algos = [check_algorithm(name) for name in args.algo or default]
    for kind in args.obs:
        known("observation kind", kind, OBSERVATIONS)
    known("action kind", args.action, ACTIONS)
    parts = tuple(known("part", part, PARTS) for part in (PARTS if args.parts is None else args.parts))
    if args.rival and args.program != "rivals":
        raise UsageError("--rival NAME=COMMAND belongs to: sb3-dreamer bench rivals")
    if args.program == "rivals" and not args.rival:
        raise UsageError("bench rivals needs a program to compare with: --rival NAME=COMMAND (see docs/speed.md)")
    if len(dict(map(read_rival, args.rival or ()))) < len(args.rival or ()):
        raise UsageError("two rivals have the same name")
    if args.plot is not None and args.program != "scaling":
        raise UsageError("--plot FILE belongs to: sb3-dreamer bench scaling")
    device = check_device(args.device or ("cuda" if args.program == "gpu" else "cpu"))
    base = Case(
        algo="",
        size="",
        action=args.action,
        batch_size=args.batch_size,
        batch_length=args.batch_length,
        device=device,
        threads=args.threads or th.get_num_threads(),
        updates=args.updates or {"scaling": 4, "profile": 3, "gpu": 30}.get(args.program, 8),
        warmup=args.warmup,
        train_ratio=args.train_ratio,
        seed=args.seed,
        parts=parts,
    )
    if args.program == "gpu" and not args.sizes:
        from sb3_dreamer.zoo.speed.gpu import STANDARD

        values = _hyperparams(args, algos[0])
        return [
            replace(base, algo=algos[0], size=size, obs=obs, action=action, hyperparams=values)
            for size, obs, action in STANDARD
        ]
    cases = [
        replace(base, algo=algo, size=size, obs=obs, hyperparams=_hyperparams(args, algo))
        for algo in algos
        for obs, size in product(args.obs, _sizes(algo, algos, args.sizes))
    ]
    if args.program in ("learn", "profile", "rivals") and len(cases) != 1:
        raise UsageError(
            f"{args.program} takes one case, not {len(cases)}: pass one --algo, one of --sizes and one of --obs"
        )
    if args.program == "scaling" and (len(algos) != 1 or len(args.obs) != 1):
        raise UsageError("scaling takes one algorithm and one kind of observation")
    return cases


def _sizes(algo: str, algos: list[str], asked: list[str] | None) -> list[str]:
    """Return the sizes asked for that the algorithm has; a size that no chosen algorithm has is an error."""
    if not asked:
        return [tables.SMALL_SIZES[algo]]
    every = [size for name in algos for size in sizes_of(name)]
    for size in asked:
        known("size", size, dict.fromkeys(every))
    own = [size for size in asked if size in sizes_of(algo)]
    if not own:
        raise UsageError(f"{algo} has none of the sizes {', '.join(asked)}: use {', '.join(sizes_of(algo))}")
    return own


def _hyperparams(args: argparse.Namespace, algo: str) -> dict[str, Any]:
    values = check_values(args.hyperparams or {}, algorithm_class(algo), "--hyperparams")
    for name in ("model_size", "batch_size", "batch_length", "train_ratio"):
        if name in values:
            flag = "sizes" if name == "model_size" else name.replace("_", "-")
            raise UsageError(f"--hyperparams {name}: use --{flag}")
    return values
