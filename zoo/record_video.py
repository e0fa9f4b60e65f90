"""Record a video of a trained agent: ``python zoo/record_video.py --help``."""

import sys

from sb3_dreamer.zoo.programs.cli import main

if __name__ == "__main__":
    sys.exit(main(["record_video", *sys.argv[1:]]))
