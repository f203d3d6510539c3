"""Processes that tests start, wait for and signal, whatever the tests themselves were started by."""

import resource
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any


def start(
    command: Sequence[str],
    *,
    interrupts: signal.Handlers = signal.SIG_DFL,
    file_limit: int | None = None,
    **options: Any,
) -> subprocess.Popen:
    """Start a command whose Ctrl-C is handled by default: `make test &` hands down that it is ignored.

    Beyond `file_limit` bytes of a file, writing fails as on a full disk.
    """

    def prepare() -> None:
        signal.signal(signal.SIGINT, interrupts)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if file_limit is not None:
            # Instead of a signal that ends the process.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, preexec_fn=prepare, **options)  # noqa: PLW1509


def wait_until(condition: Callable[[], Any], process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    """Wait until a condition holds; fail if it does not in time, or if the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        assert process is None or process.poll() is None, "the process ended before"
        time.sleep(0.01)
