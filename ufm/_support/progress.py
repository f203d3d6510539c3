"""Progress of long work: a bar on a terminal, a line a minute elsewhere."""

import sys

from tqdm import tqdm


def progress_bar(total: int, description: str, *, unit: str, initial: int = 0, enabled: bool = True) -> tqdm:
    """Return a progress bar on standard error; where that is no terminal it writes one line a minute instead."""
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
