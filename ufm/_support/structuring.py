"""Dataclasses to JSON and back by cattrs: strict about types, with null for NaN, and errors that say where."""

import math
import types
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, Union, get_args, get_origin

import cattrs
import numpy as np
from cattrs.cols import (
    homogenous_tuple_structure_factory,
    is_mutable_sequence,
    is_sequence,
    list_structure_factory,
)

from ufm._support.reading import shown

Kind = TypeVar("Kind")
# Of a value that does not fit, that are told.
_REASONS = 3
# Characters of a reason.
_LONGEST = 500


def strict_converter() -> cattrs.Converter:
    """Return a converter that accepts each value only in the type that JSON has for it, and no unknown field.

    Where cattrs would make 2 of 2.7 and True of "false", it refuses. For a float, null is NaN, unless None is allowed;
    arrays are lists, NumPy's or annotated by jaxtyping alike.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, partial(_exactly, (kind,)))
    converter.register_structure_hook(float, _number)
    for matches, make in (
        (is_sequence, homogenous_tuple_structure_factory),
        (is_mutable_sequence, list_structure_factory),
    ):
        converter.register_structure_hook_factory(matches, _of_lists(make))
    converter.register_structure_hook_func(_is_array, lambda value, _: _array(value))
    converter.register_unstructure_hook_func(_is_array, lambda value: np.asarray(value).tolist())
    return converter


def structure(converter: cattrs.Converter, value: Any, kind: type[Kind]) -> Kind:
    """Return `value`, as JSON has it, as a `kind`.

    Raises
    ------
    ValueError
        If the value does not fit; the message says where and why.
    """
    try:
        return converter.structure(value, kind)
    except cattrs.BaseValidationError as error:
        reasons = cattrs.transform_error(error, path="value", format_exception=_reason)
        more = [f"and {len(reasons) - _REASONS} more"] if len(reasons) > _REASONS else []
        raise ValueError("; ".join([*reasons[:_REASONS], *more])) from error


def _exactly(kinds: tuple[type, ...], value: Any, kind: Any) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"got {shown(value)}, expected {' or '.join(each.__name__ for each in kinds)}")
    return kind(value)


def _of_lists(make: Callable[[Any, Any], Callable]) -> Callable[[Any, Any], Callable]:
    """Return a factory of hooks as `make`, whose hooks take lists alone: a text is no sequence of its letters."""

    def factory(kind: Any, converter: Any) -> Callable:
        inner = make(kind, converter)

        def hook(value: Any, kind: Any) -> Any:
            if not isinstance(value, list | tuple):
                raise ValueError(f"got {shown(value)}, expected a list")
            return inner(value, kind)

        return hook

    return factory


def _number(value: Any, _: Any) -> float:
    return math.nan if value is None else _exactly((float, int), value, float)


def _is_array(kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return all(_is_array(each) for each in get_args(kind))
    return kind is np.ndarray or hasattr(kind, "array_type")


def _without_null(item: Any) -> Any:
    return [_without_null(each) for each in item] if isinstance(item, list) else math.nan if item is None else item


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, list):
        raise ValueError(f"got {type(value).__name__}, expected a list")
    try:
        array = np.array(_without_null(value))
    except ValueError as error:
        raise ValueError("got lists of different lengths, expected an array") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"got {array.dtype} entries, expected numbers")
    return array


def _reason(error: BaseException, kind: Any) -> str:
    said = str(error) if isinstance(error, ValueError) else ""
    said = said or cattrs.v.format_exception(error, kind)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
