"""Print the table of benchmark suites: ``python -m sb3_dreamer.wrappers [--tasks] [--measure]``."""

import argparse

from sb3_dreamer.wrappers.benchmarks.table import measure_table, suite_table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m sb3_dreamer.wrappers", description=__doc__)
    parser.add_argument("--tasks", action="store_true", help="also list the tasks of every suite")
    parser.add_argument("--measure", action="store_true", help="instead play a random episode of every suite here")
    arguments = parser.parse_args()
    print(measure_table() if arguments.measure else suite_table(tasks=arguments.tasks))
