"""Conversion of arrays at the public boundary, and the argument checks that every room shares.

Torch is the only numerical backend. A public function accepts NumPy arrays, torch tensors, nested sequences and
whatever NumPy can read (data frames, arrays of other frameworks), computes with tensors, and returns tensors or NumPy
arrays. Every array enters by `to_numbers`: real numbers through `to_tensor` or `to_labels`, classes through
`read_classes`.
"""

import dataclasses
import math
import os
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Array = Tensor | np.ndarray
# Of the sum of a label that was computed in float32.
_LEAST_TOLERANCE = 1e-5
# In error messages: characters, and bits.
_LONGEST_TEXT, _LONGEST_INTEGER = 100, 256
# Larger whole numbers are not exact in float64.
_LARGEST = 2**53
HALVES = (torch.bfloat16, torch.float16)
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
# Torch takes the first for a mask where it indexes, and has no minimum of the others.
_UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
Result = TypeVar("Result")
# Sums of squares of such entries, and their ratios, are numbers of float64.
_SMALL, _LARGE = 1e-70, 1e70


def to_numbers(name: str, value: Any, expected: str = "an array of real numbers") -> Tensor:
    """Return an array of any kind as an ordinary tensor of its own dtype: real numbers or integers.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    value : array, tensor, number or nested sequence
        What the caller passed. Byte order, strides and write protection do not matter. Objects must be real numbers;
        they become int64 if all are integers, otherwise float64.
    expected : str
        What the argument takes, for the error message.

    Returns
    -------
    Tensor
        Strided and real, sharing memory with `value` where possible. A tensor stays on its device and in its graph.

    Raises
    ------
    ValueError
        For anything else: text, truth values, complex numbers, decimals, masked arrays; and for sparse, nested,
        quantised and meta tensors.
    """
    tensor = value if isinstance(value, Tensor) else _from_numpy(name, value, expected)
    kinds = {
        "masked": isinstance(tensor, torch.masked.MaskedTensor),
        "nested": tensor.is_nested,
        "quantised": tensor.is_quantized,
        "sparse": tensor.layout != torch.strided,
        "meta": tensor.is_meta,
    }
    if unusual := [kind for kind, found in kinds.items() if found]:
        raise ValueError(f"{name}: got a {unusual[0]} tensor, expected {expected}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name}: got dtype {tensor.dtype}, expected {expected}")
    return tensor


def _from_numpy(name: str, value: Any, expected: str) -> Tensor:
    """Return what NumPy can read as a tensor."""
    message = f"{name}: got {type(value).__name__}, expected {expected}"
    parts = value if isinstance(value, list | tuple) else [value]
    # NumPy would drop the mask.
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise ValueError(f"{name}: got a masked array, expected {expected} without a mask")
    try:
        array = np.asarray(value)
        if array.dtype == object:
            array = _unboxed(array)
        if array.dtype.kind in "USMm":
            raise ValueError(message)
        # Torch warns of read-only memory, and reads neither foreign byte orders nor negative strides.
        # An axis of one entry may have one and count as contiguous.
        if not (array.dtype.isnative and array.flags.writeable and min(array.strides, default=0) >= 0):
            array = array.astype(array.dtype.newbyteorder("="), order="C")
        array = np.ascontiguousarray(array).reshape(array.shape)
        # The bfloat16 of other frameworks, which is no dtype of NumPy's own.
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.as_tensor(array)
    # RuntimeError: a list of tensors that require gradients.
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(message) from error


def _unboxed(array: np.ndarray) -> np.ndarray:
    """Return an array of Python objects as one of int64 or float64; raise TypeError unless all are real numbers."""
    entries = array.reshape(-1).tolist()
    if not all(_is_real(entry) for entry in entries):
        raise TypeError
    whole = all(isinstance(entry, Integral) and -(2**63) <= int(entry) < 2**63 for entry in entries)
    return np.array(entries, dtype=np.int64 if whole else np.float64).reshape(array.shape)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def to_tensor(name: str, value: Any, *, ndim: int | None = None, finite: bool = True) -> Tensor:
    """Return `value` as a float32 or float64 tensor: these are kept, shorter floats become float32, integers float64.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    value : array, tensor, number or nested sequence
        What the caller passed; see `to_numbers`.
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
    tensor = to_numbers(name, value)
    if tensor.dtype not in (torch.float32, torch.float64):
        try:
            tensor = tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)
        except RuntimeError as error:
            raise ValueError(f"{name}: got dtype {tensor.dtype}, expected an array of real numbers") from error
    if ndim is not None and tensor.ndim != ndim:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected {ndim} dimensions")
    if finite:
        check_finite(name, tensor)
    return tensor


def read_classes(
    name: str, value: Any, count: int, num_classes: int, *, device: torch.device | str = "cpu"
) -> Int[Tensor, "N"]:
    """Return `count` classes as an integer tensor; raise ValueError, naming them, unless in 0..num_classes-1."""
    classes = to_numbers(name, value, "an array of whole numbers").to(device)
    # An empty list has no integer dtype of its own.
    if classes.dtype in _UNSIGNED or (not isinstance(value, Tensor) and not classes.numel()):
        classes = classes.to(torch.int64)
    if tuple(classes.shape) != (count,):
        raise ValueError(f"{name}: got shape {tuple(classes.shape)}, expected {(count,)}")
    whole = classes.dtype in _INTEGERS
    if not whole or (count and (int(classes.min()) < 0 or int(classes.max()) >= num_classes)):
        ends = f" from {classes.min()} to {classes.max()}" if whole else ""
        raise ValueError(f"{name}: got {classes.dtype}{ends}, expected whole numbers in 0..{num_classes - 1}")
    return classes


def check_finite(name: str, value: Tensor) -> None:
    """Raise ValueError unless all entries of `value` are finite; needs no memory of the size of `value`."""
    # Both ends are NaN if any entry is.
    if value.numel() and not bool(torch.isfinite(torch.stack(value.detach().aminmax())).all()):
        raise ValueError(f"{name}: got NaN or infinite entries, expected finite numbers")


def check_squares(name: str, value: Tensor, *, small: bool = True) -> None:
    """Raise ValueError if the largest absolute entry is so large that sums of squares, and their ratios, overflow.

    Where `small`, also if it is so small that they vanish; zero is neither.
    """
    largest = _largest(value)
    least = _SMALL if small else 0.0
    if largest and not least <= largest <= _LARGE:
        raise ValueError(f"{name}: got {largest:.3g} for the largest entry, expected {least:g} to {_LARGE:g}")


def _largest(x: Tensor) -> float:
    """Return the largest absolute entry, 0 if there is none; needs no memory of the size of `x`."""
    return max(abs(end.item()) for end in x.detach().aminmax()) if x.numel() else 0.0


def power_of_two(x: Tensor) -> float:
    """Return the power of two at or below the largest absolute entry; 1 if all entries are zero.

    Divided by it, `x` keeps all its digits, and the squares of its large entries neither overflow nor vanish.

    Examples
    --------
    >>> power_of_two(torch.tensor([3.0, -5.0]))
    4.0
    """
    largest = _largest(x)
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
    words = "a finite number" + (" " + " and ".join(allowed) if allowed else "")
    if isinstance(value, Array):
        value = to_tensor(name, value, ndim=0, finite=False).item()
    try:
        number = float(value) if _is_real(value) else math.nan
    except OverflowError:
        number = math.nan
    if not (math.isfinite(number) and number > above and minimum <= number < below):
        raise ValueError(f"{name}: got {_brief(value)}, expected {words}")
    return number


def check_integer(name: str, value: Any, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int, or raise ValueError unless it is a whole number from `minimum` to `maximum`.

    By default the maximum is 2^53, beyond which whole numbers are not exact in float64.
    """
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    most = _LARGEST if maximum is None else maximum
    if number is None or not minimum <= number <= most:
        upper = f" and <= {most}" if maximum is not None or (number is not None and number > most) else ""
        raise ValueError(f"{name}: got {_brief(value)}, expected a whole number >= {minimum}{upper}")
    return number


def check_size(name: str, count: int, instead: str = "") -> None:
    """Raise ValueError, naming the argument, if so many float64 numbers need more than half the memory.

    The message ends with what to do instead, if anything helps.
    """
    size, memory = min(8 * count, 10**300), _memory() // 2
    if size > memory:
        raise ValueError(
            f"{name}: got sizes that need {size / 1e9:.3g} GB, expected at most {memory / 1e9:.3g} GB, half the memory"
            + (f"; {instead}" if instead else "")
        )


def _memory() -> int:
    """Return the bytes of memory of this machine, or a terabyte where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 10**12


def check_kind(name: str, value: Any, kinds: Any, expected: str) -> None:
    """Raise TypeError, naming the argument, unless `value` is an instance of `kinds`."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name}: got {type(value).__name__}, expected {expected}")


def _brief(value: Any) -> str:
    """Return a value in one short line, for an error message."""
    # Python refuses to write out integers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        return f"an integer of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: got {_brief(value)}, expected one of {', '.join(map(repr, choices))}")


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


def to_labels(value: Any, *, ndim: int | None = None) -> Float[Tensor, "... K"]:
    """Return soft labels as a tensor; raise ValueError, naming labels, unless their rows are on the simplex.

    Rows that came in half precision are divided by their sum, which rounding moves too far from one.
    """
    given = to_numbers("labels", value)
    labels = to_tensor("labels", given, ndim=ndim)
    rounding = half_rounding(given)
    check_labels(labels, rounding=rounding)
    return labels / labels.sum(-1, keepdim=True) if rounding else labels


def half_rounding(value: Tensor) -> float:
    """Return the machine epsilon of a tensor in half precision, and 0 for any other."""
    return torch.finfo(value.dtype).eps if value.dtype in HALVES else 0.0
