"""Dataclasses read back from the JSON that `ufm._support.files` wrote of them."""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np


def read_json(path: Path) -> Any:
    """Return what the JSON file `path` holds; raise ValueError, naming it, if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"runs: got {str(path)!r}, expected a JSON file ({error})") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; raise ValueError, naming it, if it cannot be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"runs: got {str(path)!r}, expected a file of JSON lines ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"runs: got {str(path)!r}, expected an object on each line")
    return rows


def structure(kind: Any, value: Any, where: str) -> Any:
    """Return `value`, as JSON has it, as a `kind`: a dataclass, a list or dictionary of one, a number, text, an array.

    Numbers that JSON has as null are NaN, unless None is one of the kinds. Keys that `kind` does not have are passed
    over; those that are missing get their default, or None where that is allowed. where: what to call the value in an
    error. Raises ValueError, saying where, for a value that does not fit.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union) and type(None) in arguments:
        [some] = [each for each in arguments if each is not type(None)]
        return None if value is None else structure(some, value, where)
    if origin is list:
        return [structure(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(_expect(list, value, where))]
    if origin is dict:
        items = _expect(dict, value, where).items()
        return {key: structure(arguments[1], item, f"{where}.{key}") for key, item in items}
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind), _expect(dict, value, where), where)
    if kind in (int, float):
        return _number(kind, value, where)
    return _expect(kind, value, where) if kind in (bool, str, dict) else _array(value, where)


def _dataclass(kind: type, value: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if field.name in value:
            found[field.name] = structure(hint, value[field.name], f"{where}.{field.name}")
        elif type(None) in typing.get_args(hint):
            found[field.name] = None
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: got no {field.name!r}, expected one")
    return kind(**found)


def _expect(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        names = {list: "a list", dict: "an object", bool: "true or false", str: "text"}
        raise ValueError(f"{where}: got {type(value).__name__}, expected {names[kind]}")
    return value


def _number(kind: type, value: Any, where: str) -> Any:
    if kind is float and value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ValueError(f"{where}: got {value!r}, expected {'a whole' if kind is int else 'a'} number")
    return kind(value)


def _array(value: Any, where: str) -> np.ndarray:
    def plain(item: Any) -> Any:
        return [plain(x) for x in item] if isinstance(item, list) else math.nan if item is None else item

    try:
        array = np.array(plain(_expect(list, value, where)))
    except ValueError as error:
        raise ValueError(f"{where}: got lists of different lengths, expected an array") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{where}: got {array.dtype} entries, expected numbers")
    return array
