"""Tune hyperparameters: ``python zoo/tune.py --help``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
