"""Programs run in this process: their exit status, and what they say against their words."""

import re
from collections.abc import Callable


def status_of(main: Callable[[], int]) -> int | str | None:
    """Return the exit status of a program, which its parser ends for words that it cannot take."""
    try:
        return main()
    except SystemExit as end:
        return end.code


def complaint(errors: str) -> str:
    """Return a complaint on one line: the program's own, or the parser's without its box."""
    own = [line for line in errors.splitlines() if line and "epoch in" not in line]
    return own[0] if len(own) == 1 else re.sub(r"[│╭╮╰╯─\s]+", " ", errors)
