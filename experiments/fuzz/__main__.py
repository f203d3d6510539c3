"""Attack public functions, readers of files, running commands, and processes that work together.

    python -m experiments.fuzz calls --cases 100000
    python -m experiments.fuzz files --cases 6000
    python -m experiments.fuzz kills --cases 60
    python -m experiments.fuzz ranks --cases 20

Each writes what it tried, by kind, and what was mishandled, to experiments/results/fuzz. Exit status: 0 if nothing was
mishandled; 1 if something was; 2 for bad arguments; 130 if interrupted.
"""

import sys
from typing import Annotated

import tyro

from experiments.fuzz.calls import Calls
from experiments.fuzz.files import Files
from experiments.fuzz.kills import Kills
from experiments.fuzz.ranks import Ranks
from ufm._support.console import run_command

Command = (
    Annotated[Calls, tyro.conf.subcommand("calls")]
    | Annotated[Files, tyro.conf.subcommand("files")]
    | Annotated[Kills, tyro.conf.subcommand("kills")]
    | Annotated[Ranks, tyro.conf.subcommand("ranks")]
)


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Command, prog="python -m experiments.fuzz", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
