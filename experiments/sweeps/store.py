"""The results of a sweep on disk: one JSON line per point, appended safely, and the sweep's description beside them."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from ufm._support.files import to_json, write_json

POINTS, CONFIG = "points.jsonl", "config.json"

Line = dict[str, Any]


class Store:
    """The file of points of one folder, open for one writer; a context manager.

    lines: what the file holds, by key; of several lines with a key the last. Every line is written whole and brought to
    the disk before `append` returns. A line that an earlier process left cut short is removed on opening.
    Raises ValueError if the folder cannot be written to or another process does so, or for a file of something else.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder's file, and make both if there are none."""
        self.path = folder / POINTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise ValueError(f"out: got {str(folder)!r}, expected a folder that can be written to ({error})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.lines, whole = read_lines(self.path)
            os.ftruncate(self._file, whole)
        except BaseException as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise ValueError(
                    f"out: got {str(folder)!r}, to which another sweep writes, expected one of its own"
                ) from error
            raise

    def __enter__(self) -> "Store":
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and with it end the lock."""
        os.close(self._file)

    def append(self, line: Line) -> None:
        """Write one line; if the disk refuses, leave the file as it was and raise an OSError with its name."""
        data = (to_json(line, indent=None) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            try:
                self._write(data)
            except KeyboardInterrupt:
                # What is finished is kept.
                os.ftruncate(self._file, before)
                self._write(data)
                raise
        except OSError as error:
            os.ftruncate(self._file, before)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.lines[line["key"]] = line

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)


def read_lines(path: Path) -> tuple[dict[str, Line], int]:
    """Return the lines by key, and how many bytes whole lines take: what follows is a line cut short.

    Raises ValueError for a whole line that is none of a sweep's.
    """
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    lines: dict[str, Line] = {}
    for number, text in enumerate(content[:whole].splitlines(), 1):
        try:
            line = json.loads(text)
            lines[line["key"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: got a line {number} that is no point of a sweep, expected JSON with a key"
            ) from error
    return lines, whole


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write the description of a folder's sweep; raise an OSError with its name if the disk refuses."""
    try:
        write_json(folder / CONFIG, config)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder / CONFIG)) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return the description of a folder's sweep; raise ValueError if there is none."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not {"grid", "points", "commands", "versions"} <= config.keys():
            raise ValueError("it is another program's")
        return config
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"folder: got {str(folder)!r}, expected one with the {CONFIG} of a sweep ({error})") from error
