"""The exit status of a command, and what it says on standard error."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from ufm._support.console import run_command


@dataclass(frozen=True)
class Command:
    """Raise what is asked for."""

    raised: str = ""

    def run(self) -> int:
        if self.raised:
            raise {"value": ValueError, "os": OSError, "runtime": RuntimeError, "stop": KeyboardInterrupt}[self.raised](
                "it went wrong"
            )
        return 7


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 7, ""),
        (["--raised", "value"], 2, "some.tool: error: it went wrong\n"),
        (["--raised", "os"], 1, "some.tool: error: it went wrong\n"),
        (["--raised", "runtime"], 1, "some.tool: error: it went wrong\n"),
        (["--raised", "stop"], 130, "some.tool: stopped, and can go on\n"),
    ],
)
def test_what_ends_a_command_decides_its_status(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["tool", *arguments])
    assert run_command(Command, prog="python -m some.tool", interrupted="stopped, and can go on") == status
    assert capsys.readouterr().err == said


def test_words_that_cannot_be_parsed_are_named_by_the_parser(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as ended:
        run_command(Command, prog="python -m some.tool", args=["--unknown", "1"])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--unknown" in captured.err


def test_a_reader_that_has_had_enough_is_no_error():
    """`head -1` closes the pipe after a line: the rest of the output has nowhere to go."""
    run = "lambda: [print('x' * 99) for _ in range(9999)] and 0"
    code = f"from ufm._support.console import guarded; import sys; sys.exit(guarded({run}, 'tool'))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("xxx")
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
