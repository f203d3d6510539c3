import io
import sys
import time
from collections.abc import Iterator

import pytest

from ufm._support import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps() -> Iterator[int]:
    for step in range(4):
        time.sleep(0.06)
        yield step


@pytest.mark.parametrize(("terminal", "delay", "seen"), [(True, 0.1, True), (True, 60, False), (False, 0, False)])
def test_long_work_is_shown_on_a_terminal_alone_and_only_once_it_is_long(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, delay: float, seen: bool
):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_DELAY", delay)
    assert list(progress.long_work(steps(), "work", unit="steps")) == [0, 1, 2, 3]
    assert ("work" in stream.getvalue()) == seen
