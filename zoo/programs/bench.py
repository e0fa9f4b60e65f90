"""The program ``bench``: measure speed; see docs/speed.md."""

import argparse
from collections.abc import Sequence
from typing import Any

from sb3_dreamer.zoo.programs import tables
from sb3_dreamer.zoo.speed.arguments import make_cases, make_parser
from sb3_dreamer.zoo.speed.case import Case, run_cases
from sb3_dreamer.zoo.speed.machine import header, header_rows
from sb3_dreamer.zoo.speed.report import acting_table, floor_table, update_table, write_json


def main(words: Sequence[str]) -> int:
    """Measure, print and write.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    cases = make_cases(args)
    run = table
    if args.program == "scaling":
        from sb3_dreamer.zoo.speed.scaling import scaling as run
    elif args.program == "profile":
        from sb3_dreamer.zoo.speed.profile import report as run
    elif args.program == "rivals":
        from sb3_dreamer.zoo.speed.rivals import rivals as run
    elif args.program == "gpu":
        from sb3_dreamer.zoo.speed.gpu import report as run
    head = header(words, seed=args.seed, threads=cases[0].threads)
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
    results, failures = run_cases({case.name: case for case in cases}, console)
    console.print(update_table(results))
    console.print(acting_table(results))
    floors = [result for result in results if "floor" in result]
    if floors:
        console.print(floor_table(floors))
    for message in failures.values():
        print(f"Failed: {message}")
    return {"results": results, "failures": failures}
