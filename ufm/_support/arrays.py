"""Conversion of arrays at the public boundary, and the argument checks that every room shares.

Torch is the only numerical backend. A public function accepts NumPy arrays, torch tensors or nested sequences,
computes with tensors, and returns the kind of array that it was given.
"""

import dataclasses
import math
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Array = Tensor | np.ndarray
# Of the sum of a label that was computed in float32.
_LEAST_TOLERANCE = 1e-5
Result = TypeVar("Result")


def to_tensor(name: str, value: Any, *, ndim: int | None = None, finite: bool = True) -> Tensor:
    """Return `value` as a floating-point tensor: float32 and float64 are kept, integers become float64.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    value : array, tensor, number or nested sequence
        What the caller passed. A tensor stays on its device and in its graph.
    ndim : int, optional
        Number of dimensions that the array must have.
    finite : bool
        Whether NaN and infinite entries are refused.

    Returns
    -------
    Tensor
        A float32 or float64 tensor, sharing memory with `value` where possible.

    Raises
    ------
    ValueError
        If `value` is not an array of real numbers, or has the wrong number of dimensions or entries that are
        not finite.
    """
    if isinstance(value, Tensor):
        tensor = value
    else:
        try:
            array = np.asarray(value)
            tensor = torch.as_tensor(np.ascontiguousarray(array).reshape(array.shape))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: got {type(value).__name__}, expected an array of real numbers") from error
    if not tensor.is_floating_point():
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise ValueError(f"{name}: got dtype {tensor.dtype}, expected real numbers")
        tensor = tensor.to(torch.float64)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: got dtype {tensor.dtype}, expected float32 or float64")
    if ndim is not None and tensor.ndim != ndim:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected {ndim} dimensions")
    if finite:
        check_finite(name, tensor)
    return tensor


def check_finite(name: str, value: Tensor) -> None:
    """Raise ValueError unless all entries of `value` are finite; needs no memory of the size of `value`."""
    # Both ends are NaN if any entry is.
    if value.numel() and not bool(torch.isfinite(torch.stack(value.detach().aminmax())).all()):
        raise ValueError(f"{name}: got NaN or infinite entries, expected finite numbers")


def power_of_two(x: Tensor) -> float:
    """Return the power of two at or below the largest absolute entry; 1 if all entries are zero.

    Divided by it, `x` keeps all its digits, and the squares of its large entries neither overflow nor vanish.

    Examples
    --------
    >>> power_of_two(torch.tensor([3.0, -5.0]))
    4.0
    """
    largest = x.detach().abs().max().item() if x.numel() else 0.0
    # At the ends of the range its inverse would leave it.
    return 2.0 ** min(max(math.frexp(largest)[1] - 1, -1022), 1022) if largest else 1.0


def in_kind(result: Result, *inputs: Any) -> Result:
    """Return `result` unchanged if any of `inputs` is a tensor; otherwise turn its tensors into NumPy arrays.

    `result` is a tensor or a dataclass; the fields of a dataclass are converted recursively.
    """
    return result if any(isinstance(value, Tensor) for value in inputs) else _to_numpy(result)


def _to_numpy(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.detach().cpu().numpy()
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        changes = {f.name: _to_numpy(getattr(result, f.name)) for f in dataclasses.fields(result)}
        return dataclasses.replace(result, **changes)
    return result


def check_number(
    name: str, value: Any, *, above: float = -math.inf, minimum: float = -math.inf, below: float = math.inf
) -> float:
    """Return `value` as a float, or raise ValueError unless it is finite, > `above`, >= `minimum` and < `below`."""
    allowed = [f"> {above:g}"] if above > -math.inf else []
    allowed += [f">= {minimum:g}"] if minimum > -math.inf else []
    allowed += [f"< {below:g}"] if below < math.inf else []
    message = f"{name}: got {value!r}, expected a finite number" + (" " + " and ".join(allowed) if allowed else "")
    if isinstance(value, str | bytes | bool):
        raise ValueError(message)
    try:
        number = float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error
    if not (math.isfinite(number) and number > above and minimum <= number < below):
        raise ValueError(message)
    return number


def check_integer(name: str, value: Any, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int, or raise ValueError unless it is a whole number from `minimum` to `maximum`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < minimum or (maximum is not None and value > maximum):
        upper = "" if maximum is None else f" and <= {maximum}"
        raise ValueError(f"{name}: got {value!r}, expected a whole number >= {minimum}{upper}")
    return int(value)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, choices))}")


def check_labels(labels: Float[Tensor, "... K"], name: str = "labels", *, rounding: float = 0.0) -> None:
    """Raise ValueError unless every row of `labels` lies on the simplex, up to rounding of its sum.

    The tolerance on a row's sum is the square root of the machine epsilon of the dtype, or of `rounding` if that is
    larger, and at least 1e-5. That accepts labels computed to half the digits, or in float32 and then widened, and
    still catches a forgotten normalisation.
    """
    if labels.ndim == 0 or labels.shape[-1] < 2:
        raise ValueError(f"{name}: got shape {tuple(labels.shape)}, expected rows with at least 2 classes")
    if labels.numel() == 0:
        raise ValueError(f"{name}: got shape {tuple(labels.shape)}, expected at least one row")
    if bool((labels < 0).any()):
        raise ValueError(f"{name}: got an entry {labels.min().item():.6g}, expected entries >= 0")
    deviation = (labels.sum(-1) - 1).abs().max().item()
    tolerance = max(math.sqrt(max(torch.finfo(labels.dtype).eps, rounding)), _LEAST_TOLERANCE)
    if deviation > tolerance:
        raise ValueError(
            f"{name}: got a row whose sum differs from 1 by {deviation:.3g}, expected at most {tolerance:.2g}"
        )
