"""Results that print as a short table of what matters, in a terminal and in a notebook."""

import html
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from torch import Tensor

Row = tuple[str, Any] | tuple[str, Any, str]


class Displayed:
    """Base class of results: `_shown` gives the rows, each a name, a value and, if any, a note."""

    def _shown(self) -> Iterable[Row]:
        raise NotImplementedError

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(name, shown(value), note[0] if note else "") for name, value, *note in self._shown()]

    def __repr__(self) -> str:
        """Return the rows below the class's name, in columns."""
        rows = self._rows()
        name = max((len(row[0]) for row in rows), default=0)
        value = max((len(row[1]) for row in rows if row[2]), default=0)
        lines = [f"  {row[0]:<{name}}  {row[1]:<{value if row[2] else 0}}  {row[2]}".rstrip() for row in rows]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        """Return the rows as an HTML table, which notebooks show."""
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._rows()]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table><caption>{type(self).__name__}</caption><tbody>{body}</tbody></table>"


def shown(value: Any) -> str:
    """Return a value in words: four digits of a number, the shape of an array."""
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Real):
        return "not a number" if math.isnan(value) else f"{float(value):.4g}"
    if hasattr(value, "shape"):
        return f"{' x '.join(map(str, value.shape))}, {str(value.dtype).removeprefix('torch.')}"
    return str(value)
