"""The exit status of a command, and what it says on standard error."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.processes import start
from ufm._support.console import guarded, run_command
from ufm._support.files import make_folder


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


_TEXT = "• λ = β², ─│╭ naïve – 日"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "* lambda = beta2, -|+ naive - ?"),
        ("cp1252", "• lambda = beta², -|+ naïve – ?"),
        ("latin-1", "* lambda = beta², -|+ naïve - ?"),
        ("cp437", "* lambda = beta², ─│+ naïve - ?"),
        ("utf-8", _TEXT),
    ],
)
def test_characters_that_a_terminal_lacks_are_printed_in_plain_letters(encoding: str, expected: str):
    code = (
        "import sys; from ufm._support.console import guarded\n"
        "text = sys.argv[1].encode('ascii').decode('unicode_escape')\n"
        "sys.exit(guarded(lambda: print(text) or print(text, file=sys.stderr) or 0, 'tool'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, _TEXT.encode("unicode_escape").decode("ascii")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.decode(encoding).strip()) == (0, expected)
    assert done.stderr.decode(encoding).strip() == expected


def test_notes_of_the_log_are_lines_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert guarded(lambda: make_folder(tmp_path / "new") and 0, "tool") == 0
    assert capsys.readouterr().err == f"tool: made the folder {tmp_path / 'new'}\n"
    make_folder(tmp_path / "other")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (RuntimeError("first\n  second\n"), 1, "tool: error: first; second\n"),
        (FileNotFoundError(2, "No such file", "x.json"), 1, "tool: error: x.json: No such file\n"),
        (BrokenPipeError(32, "Broken pipe", "pipe"), 1, "tool: error: pipe: Broken pipe\n"),
        (MemoryError("2 GB"), 1, "tool: error: out of memory (2 GB)\n"),
    ],
)
def test_whatever_ends_a_command_is_said_on_one_line(
    raised: Exception, status: int, said: str, capsys: pytest.CaptureFixture[str]
):
    def run() -> int:
        raise raised

    assert guarded(run, "tool") == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_both_signals_end_a_command_cleanly(number: signal.Signals, status: int, tmp_path: Path):
    code = f"""
        import sys, time
        from ufm._support.console import guarded
        from ufm._support.files import atomic_path
        def run():
            with atomic_path({str(tmp_path / "result")!r}) as path:
                path.write_text("half")
                print("ready", flush=True)
                time.sleep(60)
        sys.exit(guarded(run, "tool"))
    """
    process = start([sys.executable, "-c", textwrap.dedent(code)])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "tool: interrupted\n")
    assert process.returncode == status
    assert list(tmp_path.iterdir()) == []


def test_where_interrupts_are_ignored_sigterm_still_ends_a_command(tmp_path: Path):
    code = """
        import sys, time
        from ufm._support.console import guarded
        def run():
            print("ready", flush=True)
            while True:
                time.sleep(0.01)
        sys.exit(guarded(run, "tool"))
    """
    # As a shell starts a command in the background of a script.
    process = start([sys.executable, "-c", textwrap.dedent(code)], interrupts=signal.SIG_IGN)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[1] == "tool: interrupted\n"
    assert process.returncode == 143
