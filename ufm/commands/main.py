"""Command line: `ufm predict | solve | verify | compare | report`. Heavy imports wait until a command runs.

Exit status: 0 success; 1 a solve that did not converge, a check that failed, a file that could not be written or a
process that ended; 2 bad input.
"""

import shlex
import sys
from typing import Annotated

import tyro

from ufm._support.console import run_command
from ufm._support.version import VERSION
from ufm.commands.compare import Compare
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
)
_DESCRIPTION = (
    "Theory toolkit for unconstrained features models: closed forms, certified solvers, networks. "
    "`ufm --version` prints the version. "
    "The project's figures are drawn in a checkout, by `python -m figures`."
)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit status; exit with status 2 for words that cannot be parsed."""
    words = sys.argv[1:] if args is None else args
    if words == ["--version"]:
        print(f"ufm {VERSION}")
        return 0
    # A command once; it says what took its place.
    if words[:1] == ["figures"]:
        print(
            f"ufm: error: figures are drawn in a checkout, by: {shlex.join(['python', '-m', *words])}", file=sys.stderr
        )
        return 2
    return run_command(Command, prog="ufm", description=_DESCRIPTION, args=words)


if __name__ == "__main__":
    sys.exit(main())
