"""One process at a time writes to a folder of results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ufm._support.files import make_folder


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other writers out of it until the block ends, however the process ends.

    Within one process it can be entered several times. Raises ValueError if another process writes to the folder, or
    if it cannot be written to.
    """
    try:
        lock = FileLock(make_folder(folder) / ".lock", is_singleton=True).acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"out: got {str(folder)!r}, to which another process writes, expected a folder of its own"
        ) from error
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise ValueError(f"out: got {str(folder)!r}, expected a folder that can be written to ({error})") from error
    with lock:
        yield
