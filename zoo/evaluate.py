"""Evaluate trained agents: ``python zoo/evaluate.py --help``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
