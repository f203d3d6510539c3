"""What `--out` may be: a new folder, said on one line; a link, a pipe; what cannot be written is refused first."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import sweep
from tests.helpers.commands import status_of
from ufm.commands import main as commands

SOLVE = ["solve", "--num-classes", "3", "--dim", "3", "--nodes", "2"]
GRID = ["--num-classes", "3", "--nodes", "2"]


@pytest.fixture
def ufm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int | str | None]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: commands.main(list(words))


def test_a_new_folder_is_said_on_one_line_by_every_command(
    ufm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert ufm(*SOLVE, "--out", "a/b/solution.safetensors") == 0
    assert capsys.readouterr().err == f"ufm: made the folder {tmp_path / 'a' / 'b'}\n"
    assert ufm(*SOLVE, "--out", "a/b/solution.safetensors") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.argv", ["sweep", "run", "--out", "c/d", *GRID])
    assert status_of(sweep.main) == 0
    assert capsys.readouterr().err.splitlines()[0] == "experiments.sweep: made the folder c/d"
    monkeypatch.setattr("sys.argv", ["sweep", "summary", "c/d", "--out", "e/summary.md"])
    assert status_of(sweep.main) == 0
    assert capsys.readouterr().err == f"experiments.sweep: made the folder {tmp_path / 'e'}\n"


@pytest.mark.parametrize("out", ["folder", "file/x", "n" * 300, "loop", ""])
def test_what_cannot_be_written_is_refused_before_the_work(
    ufm, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it has begun to work")

    monkeypatch.setattr("ufm.solvers.solve", work)
    monkeypatch.setattr("ufm.reports.read_run", work)
    for words in (SOLVE, ["report", "run"]):
        assert ufm(*words, "--out", out) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"ufm: error: out: got {out!r}, which ")
        assert said.count("\n") == 1


def test_a_link_keeps_its_place_and_a_pipe_is_filled(ufm, tmp_path: Path):
    (tmp_path / "link").symlink_to("target")
    assert ufm(*SOLVE, "--out", "link") == 0
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert ufm(*SOLVE, "--out", "pipe") == 0
    reader.join(30)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert len(found[0]) == (tmp_path / "target").stat().st_size


def test_a_pipe_to_resume_from_is_refused_at_once(ufm, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(tmp_path / "pipe")
    assert ufm(*SOLVE, "--resume", "pipe") == 2
    assert capsys.readouterr().err.startswith("ufm: error: path: got 'pipe', which is not a file")


def test_a_full_device_is_named(ufm, capsys: pytest.CaptureFixture[str]):
    assert ufm(*SOLVE, "--out", "/dev/full") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("ufm: error: /dev/full: could not be written (No space left on device)")
    assert printed.err.count("\n") == 1
    # The figures are not lost with the file.
    assert "converged" in printed.out
