"""Plot learning curves: ``python zoo/plot.py --help``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["plot", *sys.argv[1:]]))
