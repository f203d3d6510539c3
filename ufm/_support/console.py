"""Command lines: parsed by tyro, run with an exit status."""

import os
import sys
from collections.abc import Callable
from typing import Any

import tyro


def run_command(
    form: Any,
    *,
    prog: str,
    description: str | None = None,
    args: list[str] | None = None,
    interrupted: str = "interrupted",
) -> int:
    """Parse a command line as `form`, call its `run()` and return the exit status.

    Words that cannot be parsed never reach `run()`: tyro prints what is wrong with them on standard error and exits
    with status 2.

    Parameters
    ----------
    form : dataclass type, or union of them
        What to parse the words as. Its `run()` takes no argument and returns an exit status.
    prog : str
        Name of the program in the help, as in "python -m experiments.train".
    description : str or None
        Text at the top of the help.
    args : list of str or None
        The words; those of the process if None.
    interrupted : str
        What to say after Ctrl-C.

    Returns
    -------
    int
        What `run()` returns, or the status of what it raises, as in `guarded`.
    """
    name = prog.removeprefix("python -m ")
    return guarded(lambda: tyro.cli(form, prog=prog, description=description, args=args).run(), name, interrupted)


def guarded(run: Callable[[], int], name: str, interrupted: str = "interrupted") -> int:
    """Call `run`, and turn what it raises into an exit status and one line on standard error.

    Parameters
    ----------
    run : callable
        Takes no argument and returns an exit status.
    name : str
        Name of the program, with which the line begins.
    interrupted : str
        What to say after Ctrl-C.

    Returns
    -------
    int
        What `run` returns; 2 for bad input (ValueError); 1 if a file could not be written, or a process or a device
        failed (OSError, RuntimeError); 130 for Ctrl-C; 0 if the reader of the output stopped reading.
    """
    try:
        return run()
    except ValueError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, `head` for example, has closed the pipe. Python would fail again when it flushes its buffer at
        # exit, so the buffer goes to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 130
