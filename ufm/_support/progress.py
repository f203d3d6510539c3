"""Progress of long work: a bar on a terminal, a line a minute elsewhere."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

_T = TypeVar("_T")
# Seconds of work before there is a bar.
_DELAY = 2.0


def long_work(steps: Iterable[_T], description: str, *, unit: str) -> Iterable[_T]:
    """Return the steps; on a terminal a bar counts them once they have taken two seconds, and goes at the end.

    Elsewhere, as in logs, nothing is shown.

    Parameters
    ----------
    steps : iterable
        What is worked through; their number is shown where `len` tells it.
    description, unit : str
        Text in front of the bar, and the name of a step.
    """
    # tqdm switches a bar off for None where standard error is no terminal.
    return tqdm(steps, description, unit=f" {unit}", disable=None, delay=_DELAY, leave=False)


def progress_bar(total: int, description: str, *, unit: str, initial: int = 0, enabled: bool = True) -> tqdm:
    """Return a progress bar on standard error.

    Where standard error is not a terminal, the bar writes one line a minute instead.

    Parameters
    ----------
    total, initial : int
        Number of steps in all, and number of steps done before.
    description, unit : str
        Text in front of the bar, and the name of a step.
    enabled : bool
        Whether anything is shown.

    Returns
    -------
    tqdm
        The bar; its `update` is called once a step.
    """
    if sys.stderr.isatty():
        return tqdm(total=total, initial=initial, desc=description, unit=unit, disable=not enabled)
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        disable=not enabled,
        mininterval=60,
        bar_format="{desc}: {n_fmt}/{total_fmt} {unit} in {elapsed}, {remaining} left{postfix}\n",
    )
