"""Files from outside: what is missing, damaged, no regular file, too long or nested too deeply is a ValueError."""

import json
import reprlib
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Bytes of a JSON or TOML file, and of a line of a file of JSON lines.
_LONGEST = 2**26
# Lists in lists; deeper ones exceed the stack of whoever walks through them.
_DEEPEST = 100

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def shown(value: Any) -> str:
    """Return the representation of a value from outside on one line of bounded length."""
    return _SHORT.repr(value)


def check_file(name: str, path: str | Path, expected: str) -> Path:
    """Return the path of a file to be read; raise ValueError if it is missing, or anything but a regular file.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    path : str or Path
        The file. Links are followed; pipes and devices, which may never end, are refused.
    expected : str
        What the file should be, for the message.
    """
    place = Path(path)
    try:
        if stat.S_ISREG(place.stat().st_mode):
            return place
        what = "is not a file"
    except FileNotFoundError:
        what = "does not exist"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    raise ValueError(f"{name}: got {str(path)!r}, which {what}; expected {expected}")


def read_json(name: str, path: str | Path, expected: str) -> Any:
    """Return the value of a JSON file.

    Parameters
    ----------
    name, path, expected
        As in `check_file`.

    Raises
    ------
    ValueError
        If it is no such file, damaged, too long or nested too deeply; the message names it.
    """
    return _parsed(name, path, expected, parse_json)


def read_toml(name: str, path: str | Path, expected: str) -> dict[str, Any]:
    """Return the tables of a TOML file; as `read_json`."""
    return _parsed(name, path, expected, lambda text: _shallow(tomllib.loads, text))


def read_json_lines(name: str, path: str | Path, expected: str) -> Iterator[dict[str, Any]]:
    """Yield the object on each line of a file of JSON lines; as `read_json`."""
    place = check_file(name, path, expected)
    try:
        with place.open("rb") as file:
            while line := file.readline(_LONGEST + 1):
                if len(line) > _LONGEST:
                    raise ValueError(f"a line longer than {_LONGEST} bytes")
                if not line.isspace():
                    value = parse_json(line.decode("utf-8"))
                    if not isinstance(value, dict):
                        raise ValueError(f"got {shown(value)}, expected an object on each line")
                    yield value
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: got {str(path)!r}, expected {expected} ({error})") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; raise ValueError if it is none, or nested too deeply."""
    return _shallow(json.loads, text)


def _parsed(name: str, path: str | Path, expected: str, parse: Any) -> Any:
    place = check_file(name, path, expected)
    try:
        with place.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} bytes")
        return parse(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: got {str(path)!r}, expected {expected} ({error})") from error


def _shallow(parse: Any, text: str) -> Any:
    """Return what a parser makes of a text; raise ValueError if that is nested too deeply."""
    try:
        value = parse(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {_DEEPEST} deep") from error
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        inner = (item for each in level for item in (each.values() if isinstance(each, dict) else each))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEEPEST} deep")
