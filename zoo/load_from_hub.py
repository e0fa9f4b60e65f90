"""Download a trained agent: ``python zoo/load_from_hub.py --env CartPole-v1 -orga NAME``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["load_from_hub", *sys.argv[1:]]))
