"""Command line: `ufm predict | solve | verify | compare | report | figures`. Heavy imports wait until a command runs.

Exit status: 0 success; 1 a solve that did not converge, a check that failed, a file that could not be written or a
process that ended; 2 bad input.
"""

import sys
from typing import Annotated

import tyro

from ufm._support.console import guarded, parse
from ufm.commands.compare import Compare
from ufm.commands.figures import Figures
from ufm.commands.predict import Predict
from ufm.commands.report import Report
from ufm.commands.solve import Solve
from ufm.commands.verify import Verify

Command = (
    Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Figures, tyro.conf.subcommand("figures")]
)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    description = "Theory toolkit for unconstrained features models: closed forms, certified solvers, networks."
    return guarded(lambda: parse(Command, prog="ufm", description=description, args=args).run(), "ufm")


if __name__ == "__main__":
    sys.exit(main())
