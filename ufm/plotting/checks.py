"""Conversion of the plots' arguments to NumPy arrays, and their checks; bad input raises a ValueError that names it."""

from typing import Any

import numpy as np

from ufm._support.arrays import to_tensor


def real_array(name: str, value: Any, ndim: int, *, finite: bool = True) -> np.ndarray:
    """Return a float64 array of `ndim` dimensions, without a copy if possible; finite by default."""
    return to_tensor(name, value, ndim=ndim, finite=finite).detach().cpu().double().numpy()


def series(name: str, value: Any, count: int) -> np.ndarray:
    """Return (count,) numbers, at least one of them finite; the others leave gaps in a line."""
    array = real_array(name, value, 1, finite=False)
    if len(array) != count:
        raise ValueError(f"{name}: got shape {array.shape}, expected {(count,)}")
    if not np.isfinite(array).any():
        raise ValueError(f"{name}: got no finite entry, expected some")
    return array


def check_interval(name: str, array: np.ndarray) -> None:
    """Raise ValueError unless all entries other than NaN are in [0, 1]."""
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"{name}: got {np.nanmin(array):.6g} to {np.nanmax(array):.6g}, expected 0 to 1")


def check_titles(name: str, titles: Any, most: int) -> None:
    """Raise ValueError if there are more titles than places for them."""
    if len(titles) > most:
        raise ValueError(f"{name}: got {len(titles)}, expected at most {most}")
