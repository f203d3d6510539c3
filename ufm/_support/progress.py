"""Progress of long work: a bar on a terminal, a line a minute elsewhere."""

import sys

from tqdm import tqdm


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
