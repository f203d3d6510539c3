"""The results of a sweep on disk: a JSON line per point, appended, with the sweep's description beside them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.locking import only_writer
from ufm._support.files import to_json
from ufm._support.reading import check_file, parse_json, read_json

POINTS, CONFIG = "points.jsonl", "config.json"

Line = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The file of a sweep's lines, and the lines by key: of several with one key, the last."""

    path: Path
    lines: dict[str, Line]

    def append(self, line: Line) -> None:
        """Write a line and bring it to the disk; raise OSError with the file's name if the disk refuses."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_json(line, indent=None) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.lines[line["key"]] = line


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """Open a folder's sweep for writing, and keep other writers out until the block ends.

    A last line that an earlier process left unfinished is removed. Raises ValueError if the folder cannot be written
    to, another process writes to it, or its file is not a sweep's.
    """
    with only_writer(folder):
        path = folder / POINTS
        path.touch()
        lines, whole = read_lines(path)
        os.truncate(path, whole)
        yield Store(path, lines)


def read_lines(path: Path) -> tuple[dict[str, Line], int]:
    """Return the finished lines by key, and how many bytes they take; raise ValueError for one that is no sweep's."""
    content = check_file("folder", path, f"the {POINTS} of a sweep").read_bytes()
    whole = content.rfind(b"\n") + 1
    lines: dict[str, Line] = {}
    for number, text in enumerate(content[:whole].splitlines(), 1):
        try:
            line = parse_json(text.decode("utf-8"))
            if not isinstance(line["key"], str) or not isinstance(line["status"], str):
                raise TypeError
            lines[line["key"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: got a line {number} that is no sweep's, expected JSON with a key") from error
    return lines, whole


def read_config(folder: Path) -> dict[str, Any]:
    """Return the description of a folder's sweep; raise ValueError if there is none."""
    expected = f"the {CONFIG} of a sweep"
    config = read_json("folder", folder / CONFIG, expected)
    lists = isinstance(config, dict) and all(isinstance(config.get(name), list) for name in ("commands", "versions"))
    if not lists or not isinstance(config.get("grid"), dict) or type(config.get("points")) is not int:
        raise ValueError(f"folder: got {str(folder / CONFIG)!r}, expected {expected}, with grid, points and commands")
    return config
