"""Files that are either complete or absent: written under a temporary name, then renamed."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, and rename it to `path` if the block succeeds.

    If the block fails, the temporary file is removed and what was at `path` stays. Missing folders are made.

    Parameters
    ----------
    path : str or Path
        The file's final path.

    Yields
    ------
    Path
        A path in the same folder, to write to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # One temporary name per target: what a killed run leaves behind is overwritten by the next run.
    temporary = target.with_name(f".part.{target.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return `value` as JSON text.

    NumPy arrays, NumPy numbers and tensors become lists and numbers; NaN and infinite numbers become null.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON to `path`, atomically."""
    write_text(path, to_json(value) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV text, with the keys of all rows as columns in order of first appearance.

    None, NaN, infinite numbers and missing keys become empty cells.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows([_plain(dict(row)) for row in rows])
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and numbers, and tensors without importing torch
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
