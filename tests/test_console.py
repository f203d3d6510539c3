"""The exit status of a command, and what it says on standard error."""

from dataclasses import dataclass

import pytest

from ufm.console import run_command


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
        (["--raised", "os"], 2, "some.tool: error: it went wrong\n"),
        (["--raised", "runtime"], 1, "some.tool: error: it went wrong\n"),
        (["--raised", "stop"], 130, "some.tool: stopped, and can go on\n"),
        (["--unknown", "1"], 2, "some.tool: error: Unrecognized options: --unknown, 1 (see --help)\n"),
    ],
)
def test_what_ends_a_command_decides_its_status(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["tool", *arguments])
    assert run_command(Command, prog="python -m some.tool", interrupted="stopped, and can go on") == status
    assert capsys.readouterr().err == said
