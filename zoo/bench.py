"""Measure speed: ``python zoo/bench.py --help``. The code is in ``bench_main.py``."""

import os
import sys

if __name__ == "__main__":
    # The script's own folder comes off the path: a file in it must never be taken for a package of the same name.
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(os.path.abspath(__file__))]
    try:
        from sb3_dreamer.zoo.cli import main
    except ModuleNotFoundError as error:
        sys.exit(f'{error}: install the project first: pip install -e ".[zoo]"')
    sys.exit(main(["bench", *sys.argv[1:]]))
