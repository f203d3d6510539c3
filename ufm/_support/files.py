"""Files that are either complete or absent: written in a folder of their own beside the target, then renamed."""

import csv
import errno
import io
import json
import logging
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_LOGGER = logging.getLogger("ufm")
# Begins the names of the folders in which files are written.
_WORKING = ".ufm-part-"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, and rename it to `path` if the block succeeds.

    If the block fails, the temporary file is removed and what was at `path` stays. Missing folders are made. A link is
    followed, and stays. What is no regular file, such as a pipe or a device, is never replaced: the finished bytes are
    written into it, and into the file that standard output goes to, if that is `path`. A new file has the mode that
    the umask gives, a replaced one keeps its own.

    Parameters
    ----------
    path : str or Path
        The file's final path.

    Yields
    ------
    Path
        A path to write to, with the suffix of `path`.

    Raises
    ------
    OSError
        If the file cannot be written; it says which and why.
    """
    place = Path(path)
    try:
        found = _state(place)
        if found is not None and (not stat.S_ISREG(found.st_mode) or _standard_output(found) is not None):
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder) / place.name
                yield temporary
                _pour(temporary, place, found)
            return
        target = Path(os.path.realpath(place))
        make_folder(target.parent)
        with _working_folder(target.parent) as folder:
            temporary = folder / target.name
            temporary.touch()
            mode = stat.S_IMODE((found or temporary.stat()).st_mode)
            yield temporary
            # Whoever wrote it may have put another file in its place, with a mode of its own.
            if stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
    except OSError as error:
        reason = f"could not be written ({error.strerror or error}); what was there before is as it was"
        raise OSError(error.errno, reason, str(place)) from error


def make_folder(path: str | Path) -> Path:
    """Return the path of a folder, which is made, and said so by a line of the log, if it is missing."""
    folder = Path(path)
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _LOGGER.info("made the folder %s", folder)
    return folder


def check_target(name: str, path: str | Path) -> Path:
    """Return the path of a file to be written; raise ValueError, before any work, if it can be seen that it cannot be.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    path : str or Path
        The file's path. Its folder may be missing.
    """
    place = Path(path)
    try:
        found = _state(place)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{name}: got {str(path)!r}, which is a folder, expected the path of a file")
        if found is None or stat.S_ISREG(found.st_mode):
            above = Path(os.path.realpath(place)).parent
            while not above.exists():
                above = above.parent
            if not above.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            # Permissions do not tell: of the superuser's they are not asked, and a file system can be read-only.
            tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise ValueError(f"{name}: got {str(path)!r}, which cannot be written ({error.strerror})") from error
    return place


def _state(place: Path) -> os.stat_result | None:
    """Return what is at a path, links followed; None if that is nothing yet."""
    try:
        return place.stat()
    except FileNotFoundError:
        return None


def _standard_output(found: os.stat_result) -> int | None:
    """Return which of this process's standard outputs goes to a file, if one does."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _pour(source: Path, place: Path, found: os.stat_result) -> None:
    """Copy a file's bytes into what is at `place`; wait for the reader of a pipe."""
    sys.stdout.flush()
    standard = _standard_output(found)
    descriptor = _opened(place, found) if standard is None else os.dup(standard)
    with source.open("rb") as read, os.fdopen(descriptor, "wb") as write:
        shutil.copyfileobj(read, write)


def _opened(place: Path, found: os.stat_result) -> int:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO or not stat.S_ISFIFO(found.st_mode):
            raise
        _LOGGER.info("%s is a pipe: waiting for its reader", place)
        return os.open(place, os.O_WRONLY)
    os.set_blocking(descriptor, True)
    return descriptor


@contextmanager
def _working_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for one file, and remove it again, and those that killed processes left.

    A lock tells which are in use. Where the file system has no locks, nothing is taken for abandoned.
    """
    for other in parent.glob(f"{_WORKING}*"):
        with suppress(OSError):
            lock = _lock(other, wait=False)
            if lock is not None:
                shutil.rmtree(other, ignore_errors=True)
                os.close(lock)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_WORKING, dir=parent))
        with suppress(FileNotFoundError):
            lock = _lock(folder, wait=True)
            if folder.exists():
                break
            # Another process took it for abandoned before it was locked.
            if lock is not None:
                os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Return a descriptor that holds the folder's lock; None where another has it, or where there are no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return `value` as JSON text.

    NumPy arrays, NumPy numbers and tensors become lists and numbers; NaN and infinite numbers become null.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON to `path`, atomically."""
    write_text(path, to_json(value) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, atomically; bytes of file names that are no text become question marks."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


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
