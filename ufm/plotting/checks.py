"""What the plots take, checked and turned into NumPy arrays; bad input raises ValueError that names it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufm._support.arrays import to_tensor
from ufm.networks.activations import check_pairs


def real_array(name: str, value: Any, ndim: int, *, finite: bool = True) -> np.ndarray:
    """Return a copy-free float64 array of `ndim` dimensions, detached and on the CPU; finite unless told otherwise."""
    return to_tensor(name, value, ndim=ndim, finite=finite).detach().cpu().double().numpy()


def series(name: str, value: Any, count: int) -> np.ndarray:
    """Return (count,) numbers of which some are finite; the others are for gaps."""
    array = real_array(name, value, 1, finite=False)
    if len(array) != count:
        raise ValueError(f"{name}: got shape {array.shape}, expected {(count,)}")
    if not np.isfinite(array).any():
        raise ValueError(f"{name}: got no finite entry, expected some")
    return array


def check_interval(name: str, array: np.ndarray) -> None:
    """Raise ValueError unless all entries that are not NaN are in [0, 1]."""
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"{name}: got {np.nanmin(array):.6g} to {np.nanmax(array):.6g}, expected 0 to 1")


def pairs(
    class_a: Any, class_b: Any, lam: Any, count: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class_a, class_b and lam, (count,) each, of mixed labels with classes in 0..num_classes-1."""
    a, b = _whole("class_a", class_a), _whole("class_b", class_b)
    weight = to_tensor("lam", lam, ndim=1).detach().cpu().double()
    check_pairs(a, b, weight, count, num_classes)
    return a.numpy(), b.numpy(), weight.numpy()


def check_titles(name: str, titles: Any, most: int) -> None:
    """Raise ValueError for more titles than there are places."""
    if len(titles) > most:
        raise ValueError(f"{name}: got {len(titles)}, expected at most {most}")


def _whole(name: str, value: Any) -> Tensor:
    """Return classes as a tensor; what is not of whole numbers stays, so that `check_pairs` refuses it."""
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        # An empty list has no dtype of its own.
        whole = array.dtype.kind in "iu" or not array.size
        return torch.from_numpy(array.astype(np.int64) if whole else array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {type(value).__name__}, expected an array of whole numbers") from error
