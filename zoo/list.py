"""List algorithms, suites, tasks and runs: ``python zoo/list.py --help``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["list", *sys.argv[1:]]))
