"""``python -m sb3_dreamer.zoo PROGRAM ...``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main())
