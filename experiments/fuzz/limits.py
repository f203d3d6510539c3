"""How long a call may take, and which subjects are attacked: the same for every attack."""

import contextlib
import signal
from collections.abc import Collection, Iterator
from typing import Any

from ufm._support.arrays import check_choice

HUNG = 10.0


class HungError(BaseException):
    """A call took too long; no handler of errors takes it for one."""


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Raise HungError in the main thread after `HUNG` seconds."""

    def hung(*_: Any) -> None:
        raise HungError(f"no end within {HUNG:g} s")

    earlier = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, HUNG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def attacked(only: tuple[str, ...], subjects: Collection[str]) -> tuple[str, ...]:
    """Return the names of the subjects to attack, all if none is asked for; raise ValueError for an unknown one."""
    for name in only:
        check_choice("only", name, tuple(subjects))
    return only or tuple(subjects)
