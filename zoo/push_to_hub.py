"""Upload a trained agent: ``python zoo/push_to_hub.py --env CartPole-v1 -orga NAME``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["push_to_hub", *sys.argv[1:]]))
