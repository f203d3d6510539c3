"""Commands work on terminals that lack characters, with no terminal, no home, and no colour."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "helpers" / "programs" / "every_command.py"
# Without what this process was started in.
_BARE = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
_BARE |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=_BARE | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp1252", "utf-8"])
def test_help_is_printed_in_every_encoding(encoding: str, tmp_path: Path):
    done = run("-m", "ufm", "--help", folder=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    bullet = {"ascii": "*", "latin-1": "*", "cp437": "*", "cp1252": "•", "utf-8": "•"}[encoding]
    assert f"{bullet} predict" in done.stdout.decode(encoding)
    assert done.stderr == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"},
        {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/x", "MPLCONFIGDIR": "/dev/null/x", "TERM": "dumb"},
    ],
    ids=["ascii", "cp1252", "C", "C without UTF-8", "no home"],
)
def test_every_command_runs_wherever_it_is_started(environment: dict[str, str], tmp_path: Path):
    done = run(str(PROGRAM), folder=tmp_path, **environment)
    assert done.returncode == 0, done.stderr[-3000:].decode("utf-8", "replace")
    assert b"Traceback" not in done.stderr
    made = sorted(path.name for path in (tmp_path / "new folder, λ").iterdir())
    assert made == ["compared", "page.html", "run", "s.safetensors", "summary.md", "sweep"]
