"""Train on a whole benchmark: ``python zoo/suite.py --help``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["suite", *sys.argv[1:]]))
