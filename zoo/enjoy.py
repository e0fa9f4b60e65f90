"""Watch a trained agent: ``python zoo/enjoy.py --algo dreamerv3 --env CartPole-v1``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["enjoy", *sys.argv[1:]]))
