"""Train an agent: ``python zoo/train.py --algo dreamerv3 --env CartPole-v1``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
