"""Draw figures: `python -m figures [--only NAME ...] [--results DIR] [--out DIR]`, the same as `ufm figures`."""

import sys

from ufm._support.console import run_command
from ufm.commands.figures import Figures

if __name__ == "__main__":
    sys.exit(run_command(Figures, prog="python -m figures", description=__doc__))
