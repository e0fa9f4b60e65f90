"""Print the table of benchmark suites: ``python -m sb3_dreamer.wrappers [--tasks]``."""

import argparse

from sb3_dreamer.wrappers.table import suite_table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m sb3_dreamer.wrappers", description=__doc__)
    parser.add_argument("--tasks", action="store_true", help="also list the tasks of every suite")
    print(suite_table(tasks=parser.parse_args().tasks))
