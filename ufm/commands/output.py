"""What commands print: JSON, names with values, tables."""

from typing import Any

from ufm._support.files import to_json


def print_json(value: Any) -> None:
    """Print `value` as JSON."""

    print(to_json(value))


def print_fields(fields: dict[str, Any]) -> None:
    """Print one name and value a line."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:<{width}}  {_text(value)}")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows under their keys: text to the left, numbers to the right."""
    print()
    columns = {name: [name, *(_text(row[name]) for row in rows)] for name in rows[0]}
    for i in range(len(rows) + 1):
        cells = []
        for name, column in columns.items():
            width = max(map(len, column))
            cells.append(f"{column[i]:<{width}}" if isinstance(rows[0][name], str) else f"{column[i]:>{width}}")
        print("  ".join(cells).rstrip())


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else "-" if value is None else str(value)
