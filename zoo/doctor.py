"""Check what training needs on this machine: ``python zoo/doctor.py``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
