"""Arrays from outside: every public function takes every kind of array, and refuses by name what is none."""

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as npst

import ufm
from tests.helpers.public import CALLS, arguments, has_array, public
from ufm._support.arrays import read_classes, to_labels, to_numbers, to_tensor

# Of the arguments of these nothing is read but by `record`, at the first measurement.
ELSEWHERE = {"Monitor": {"classifier", "bias"}, "Activations.of": {"layers"}}


def test_every_public_array_is_among_the_calls():
    for name, function in public():
        expected = arguments(function, has_array) - ELSEWHERE.get(name, set())
        # The constructor of activations takes tensors; labels may be named in several ways.
        given = set(CALLS[name][1]) if name in CALLS else set()
        assert expected <= given, f"{name} takes the arrays {expected - given}, which no call here has"


class Frame:
    """A column or table as pandas has it: read by NumPy, write-protected."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array.copy()
        self.array.flags.writeable = False

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


def protected(x: np.ndarray) -> np.ndarray:
    return Frame(x).array


def foreign(x: np.ndarray) -> np.ndarray:
    return x.astype(x.dtype.newbyteorder(">"))


def half(x: np.ndarray, dtype: type) -> np.ndarray:
    return x.astype(dtype) if x.dtype.kind == "f" else x


def tensor(x: np.ndarray, dtype: torch.dtype | None = None, integer: torch.dtype | None = None) -> torch.Tensor:
    return torch.tensor(x).to(dtype if x.dtype.kind == "f" else integer)


def integer(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x.astype(dtype) if x.dtype.kind == "i" else x


# Kinds of classes.
INTEGERS = ("int8", "uint8", "int16", "uint16", "uint32", "uint64", ">u4")
# What an array is turned into, and the ordinary array with the same numbers.
KINDS: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[np.ndarray], Any]]] = {
    "other byte order": (foreign, np.copy),
    "write-protected": (protected, np.copy),
    "reversed": (lambda x: x[::-1].copy()[::-1], np.copy),
    "every second": (lambda x: np.repeat(x, 2, axis=-1)[..., ::2], np.copy),
    "Fortran's order": (np.asfortranarray, np.copy),
    "objects": (lambda x: x.astype(object), np.copy),
    "lists": (lambda x: x.tolist(), np.copy),
    "data frame": (Frame, np.copy),
    "data frame of objects": (lambda x: Frame(x.astype(object)), np.copy),
    "float16": (lambda x: half(x, np.float16), lambda x: half(half(x, np.float16), np.float32)),
    "tensor of float16": (
        lambda x: tensor(x, torch.float16),
        lambda x: tensor(x, torch.float16).float() if x.dtype.kind == "f" else tensor(x),
    ),
    "tensor of bfloat16": (
        lambda x: tensor(x, torch.bfloat16),
        lambda x: tensor(x, torch.bfloat16).float() if x.dtype.kind == "f" else tensor(x),
    ),
    **{name: (integer(name), np.copy) for name in INTEGERS},
    "tensor of uint16": (lambda x: tensor(x, None, torch.uint16), tensor),
    "tensor of uint64": (lambda x: tensor(x, None, torch.uint64), tensor),
    "transposed tensor": (lambda x: torch.from_numpy(np.asfortranarray(x)), tensor),
}


def arrays_of(name: str) -> list[str]:
    return [key for key, value in CALLS[name][1].items() if isinstance(value, np.ndarray)]


def leaves(result: Any) -> list[np.ndarray]:
    """Return all numbers in a result."""
    if dataclasses.is_dataclass(result):
        return [x for f in dataclasses.fields(result) for x in leaves(getattr(result, f.name))]
    if isinstance(result, torch.Tensor):
        return [result.detach().numpy()]
    if isinstance(result, np.ndarray | float | int | tuple | list):
        try:
            return [np.asarray(result, dtype=float)]
        except (TypeError, ValueError):
            return []
    return []


def content(value: Any) -> Any:
    """Return the bytes of an array."""
    value = value.array if isinstance(value, Frame) else value
    if isinstance(value, torch.Tensor):
        return value.contiguous().view(torch.uint8).numpy().tobytes()
    return value.tobytes() if isinstance(value, np.ndarray) and value.dtype != object else str(value)


def half_sums(name: str, arguments: dict[str, Any]) -> bool:
    """Return whether half precision moves weights that must sum to one, or logits that must be W h + b."""
    return name in ("Activations.of", "PairTargets", "Targets") and bool({"weights", "logits"} & set(arguments))


def takes(name: str, kind: str) -> bool:
    """Return whether a kind of array, for classes alone or for any, concerns a function."""
    return kind not in INTEGERS or any(CALLS[name][1][key].dtype.kind == "i" for key in arrays_of(name))


def case(name: str, kind: str) -> Any:
    """Return a case of the test below; those that take long are slow but for some kinds."""
    long = name in ("compare", "plotting.PairPanel") and kind not in ("objects", "uint16")
    return pytest.param(name, kind, marks=[pytest.mark.slow] if long else [])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "kind"), [case(name, kind) for name in CALLS for kind in KINDS if takes(name, kind)])
def test_every_kind_of_array_gives_the_same_result_bit_for_bit(name: str, kind: str):
    function, good = CALLS[name]
    awkward, ordinary = KINDS[kind]
    if kind.endswith("float16") and half_sums(name, good):
        good = {key: value for key, value in good.items() if key not in ("weights", "logits")}
    named = [key for key, value in good.items() if isinstance(value, np.ndarray)]
    given = {key: awkward(good[key]) for key in named}
    before = {key: content(value) for key, value in given.items()}
    found = leaves(function(**good | given))
    expected = leaves(function(**good | {key: ordinary(good[key]) for key in named}))
    assert found
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        # Sums over memory in another order round differently.
        np.testing.assert_allclose(x, y, rtol=1e-12 if kind == "transposed tensor" else 0)
    assert {key: content(value) for key, value in given.items()} == before


def meta(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x).to("meta")


def quantised(x: np.ndarray) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.tensor(x).float(), 0.1, 0, torch.qint8)


# What is no array of real numbers and none of classes.
BAD: dict[str, Callable[[np.ndarray], Any]] = {
    "words": lambda x: np.full(x.shape, "1"),
    "a word": lambda _: "1",
    "bytes": lambda x: np.full(x.shape, b"1"),
    "decimals": lambda x: np.full(x.shape, Decimal(1)),
    "None in it": lambda x: np.full(x.shape, None),
    "too large": lambda x: np.full(x.shape, 10**400, dtype=object),
    "complex": lambda x: x + 0j,
    "complex tensor": lambda x: torch.tensor(x + 0j),
    "truth": lambda x: x > 0,
    "dates": lambda x: x.astype("datetime64[s]"),
    "masked": lambda x: np.ma.masked_array(x, np.zeros_like(x)),
    "ragged": lambda _: [[1.0], [1.0, 2.0]],
    "a dictionary": lambda x: {"x": x},
    "an object": lambda _: object(),
    "meta": meta,
    "sparse": lambda x: torch.tensor(x).to_sparse(),
    "nested": lambda x: torch.nested.nested_tensor(list(torch.tensor(x)) if x.ndim > 1 else [torch.tensor(x)] * 2),
    "quantised": quantised,
    "NaN": lambda x: np.full(x.shape, np.nan),
    "infinite": lambda x: torch.full(x.shape, torch.inf),
}


_GAPS = ("NaN", "infinite")
ALLOWED = {
    ("wright_omega", "x"): _GAPS,
    ("record", "classifier"): ("a word",),
    **{("plotting.Line", name): _GAPS for name in ("width", "depth", "confidence")},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.*(quantize|nested).*:UserWarning")
@pytest.mark.parametrize(("name", "argument"), [(name, key) for name in CALLS for key in arrays_of(name)])
def test_what_is_no_array_is_refused_by_name(name: str, argument: str):
    function, good = CALLS[name]
    for bad, spoil in BAD.items():
        # NaN has its own value there, and a word is the name of a module.
        if bad in ALLOWED.get((name, argument), ()):
            continue
        with pytest.raises(ValueError, match=rf"^(start: )?{argument}\b"):
            function(**good | {argument: spoil(good[argument])})


_NUMBERS = npst.integer_dtypes(endianness="?") | npst.unsigned_integer_dtypes(endianness="?")
_NUMBERS |= npst.floating_dtypes(sizes=(16, 32, 64), endianness="?")
_INDEX = st.sampled_from([slice(None), slice(None, None, -1), slice(None, None, 2), slice(1, None)])


@given(npst.arrays(_NUMBERS, npst.array_shapes(min_dims=0, max_dims=3)), _INDEX, st.booleans(), st.booleans())
def test_any_array_of_numbers_becomes_a_tensor_of_the_same_numbers(
    array: np.ndarray, index: slice, transposed: bool, writeable: bool
):
    array = array[index] if array.ndim else array
    array = array.T if transposed else array
    array.flags.writeable = writeable
    before = array.tobytes()
    found = to_tensor("x", array, finite=False)
    short = array.dtype.kind == "f" and array.dtype.itemsize < 8
    assert found.dtype == (torch.float32 if short else torch.float64)
    np.testing.assert_array_equal(found.numpy(), array.astype(np.float64))
    assert array.tobytes() == before
    if array.dtype.kind != "f" and array.ndim == 1 and array.size and array.min() >= 0 and array.max() < 2**31:
        np.testing.assert_array_equal(read_classes("x", array, len(array), 2**31).numpy(), array)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_labels_of_half_precision_are_put_on_the_simplex(dtype: torch.dtype):
    y = torch.distributions.Dirichlet(torch.ones(7)).sample((50,)).to(dtype)
    assert (y.float().sum(1) - 1).abs().max() > 1e-4
    found = to_labels(y)
    assert found.dtype == torch.float32
    assert (found.sum(1) - 1).abs().max() < 1e-6
    # Wide labels are as they were, and those that are off are refused.
    wide = found.double() / found.double().sum(1, keepdim=True)
    assert to_labels(wide) is wide
    with pytest.raises(ValueError, match="^labels: got a row whose sum differs from 1 by"):
        to_labels(y.double())


def test_a_list_of_masked_arrays_and_one_of_tensors_with_gradients_are_named():
    for value in ([np.ma.masked_array([1.0], [1])], [torch.ones(2, requires_grad=True)] * 2):
        with pytest.raises(ValueError, match="^x: got "):
            to_numbers("x", value)


def test_one_entry_on_a_reversed_axis():
    # NumPy counts it as contiguous, with a negative stride, which torch refuses.
    array = np.array([[2.0, 3.0]]).copy()[::-1]
    assert array.flags.c_contiguous
    assert array.strides[0] < 0
    np.testing.assert_array_equal(to_tensor("x", array).numpy(), [[2.0, 3.0]])


@pytest.mark.parametrize("large", [1e160, -1e160, 1e-160])
def test_numbers_whose_squares_are_none_are_named(large: float):
    x, lam = np.array([[1.0], [2.0], [4.0]]), np.array([0.2, 0.5, 0.9])
    with pytest.raises(ValueError, match="^mixed: got .* for the largest entry, expected 1e-70 to 1e\\+70"):
        ufm.interpolation_r2(large * x, x, x[::-1], lam)
    metric = ufm.CollapseMetric(3)
    with pytest.raises(ValueError, match="^features: got"):
        metric.update(large * x, np.arange(3))


def test_coefficients_of_no_sample_are_named():
    with pytest.raises(ValueError, match="^lam: got shape"):
        ufm.confidence(np.zeros(0), 10.0, 3)
