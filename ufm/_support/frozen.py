"""Fields of frozen dataclasses that are converted when they are set."""

from collections.abc import Callable
from typing import Any


class _Converted:
    """A descriptor that keeps the converted value where a plain field would keep the value itself."""

    def __init__(self, convert: Callable[[Any], Any], default: Any) -> None:
        self.convert, self.default = convert, default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        # Without an instance, the dataclass asks for the field's default.
        return self.default if instance is None else vars(instance)[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.name] = self.convert(value)


def converted(convert: Callable[[Any], Any], *, default: Any) -> Any:
    """Return a field of a frozen dataclass whose values go through `convert`, the default included.

    It rests on the descriptor-typed fields of `dataclasses`; `replace`, `fields` and `asdict` work as for any field.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Row:
    ...     numbers: tuple[float, ...] = converted(tuple, default=())
    >>> Row([1.0, 2.0])
    Row(numbers=(1.0, 2.0))
    """
    return _Converted(convert, default)
