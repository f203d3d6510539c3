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
    """Give a temporary path beside `path`, renamed to it if the block succeeds and removed if it does not."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # One name per target, so that what a killed run leaves is overwritten by the next and does not pile up.
    temporary = target.with_name(f".part.{target.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return `value` as JSON text; NumPy arrays and numbers become lists and numbers, NaN and infinity null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_json(value) + "\n", encoding="utf-8")


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV text under the keys of all of them, in order of first appearance; None becomes empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows([_plain(dict(row)) for row in rows])
    return text.getvalue()


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_csv(rows), encoding="utf-8")


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
