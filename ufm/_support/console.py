"""Command lines: parsed by tyro, run with an exit status."""

import codecs
import io
import logging
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    SIGTERM ends it as Ctrl-C does, except where torchrun, which waits for its processes to die, sends it. What the
    encoding of the terminal lacks is printed in plain letters. Notes of the library's log go to standard error.

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
        What `run` returns; 2 for bad input (ValueError); 1 if a file could not be written, a process or a device
        failed, or memory ran out (OSError, RuntimeError, MemoryError); 130 for Ctrl-C, 143 for SIGTERM; 0 if the
        reader of the output stopped reading.
    """
    with _noted(name), _terminable() as terminated:
        _degrade(sys.stdout, sys.stderr)
        try:
            return run()
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, BrokenPipeError) and error.filename is None:
                # The reader, `head` for example, has closed the pipe. Python would fail again when it flushes its
                # buffer at exit, so the buffer goes to the null device.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            said, status = f"error: {_reason(error)}", 2 if isinstance(error, ValueError) else 1
        except KeyboardInterrupt:
            said, status = interrupted, 128 + (signal.SIGTERM if terminated() else signal.SIGINT)
        print(f"{name}: {'; '.join(line.strip() for line in said.splitlines() if line.strip())}", file=sys.stderr)
        return status


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory ({error})"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def _noted(name: str) -> Iterator[None]:
    """Print the notes of the library's log on standard error, behind the program's name."""
    logger, handler = logging.getLogger("ufm"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def _terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM raise KeyboardInterrupt; yield a function that tells whether it came."""
    came: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        came.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread() and "TORCHELASTIC_RUN_ID" not in os.environ
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


_PLAIN = dict(zip("•─│╭╮╰╯–—−‖", "*-|++++---|", strict=True)) | {"α": "alpha", "β": "beta", "λ": "lambda"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that an encoding lacks, as a handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = (
        _PLAIN.get(each) or unicodedata.normalize("NFKD", each).encode("ascii", "ignore").decode() or "?"
        for each in error.object[error.start : error.end]
    )
    return "".join(letters), error.end


def _degrade(*streams: Any) -> None:
    codecs.register_error("ufm.plain", _plain)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ufm.plain")
