"""Command lines: parsed by tyro, with every complaint on one line, and run with an exit status."""

import contextlib
import io
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import tyro


def parse(form: Any, *, prog: str, description: str | None = None, args: list[str] | None = None) -> Any:
    """Return the command line as an instance of `form`, a dataclass or a union of them.

    prog, description: as in the help. args: the words; those of the process by default.
    Raises ValueError with what the parser has against the words, in one line; exits after printing help.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(form, prog=prog, description=description, args=args)
    except SystemExit as end:
        if not end.code:
            raise
        # The parser draws a box, or two rules where it cannot: up to the next rule is the complaint, the rest is help.
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()[1:]]
        said = itertools.takewhile(lambda line: not _is_rule(line), itertools.dropwhile(_is_rule, lines))
        message = " ".join(said).removeprefix("Value error: ")
        raise ValueError(f"{message} (see --help)") from end


def _is_rule(line: str) -> bool:
    return bool(line) and set(line) <= set("─-╰╯")


def run_command(form: Any, *, prog: str, description: str | None = None, interrupted: str = "interrupted") -> int:
    """Parse the process's command line as `form`, call its `run()` and return the exit status.

    2, with one line on standard error, for bad input; 1 if a file could not be written, or a process or a device
    failed; 130, saying `interrupted`, for Ctrl-C; else what `run()` returns.
    """
    name = prog.removeprefix("python -m ")
    return guarded(lambda: parse(form, prog=prog, description=description).run(), name, interrupted)


def guarded(run: Callable[[], int], name: str, interrupted: str = "interrupted") -> int:
    """Return what `run` returns, or the exit status of what it raises, saying it in one line under `name`."""
    try:
        return run()
    except ValueError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who reads the output has had enough, as `head` does; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 130
