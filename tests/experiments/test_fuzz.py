"""Samples of the attacks, what they notice, and what their committed results say."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.fuzz import files, limits
from experiments.fuzz.calls import SUBJECTS, Case, attack_calls, outcome
from experiments.fuzz.damage import changed_json
from experiments.fuzz.drawing import Subject
from experiments.fuzz.files import READERS, Reader, attack
from experiments.fuzz.kills import COMMANDS, content
from tests.helpers.public import CALLS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "fuzz"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused(name: str):
    for case, kind, _, wrong in attack(name, 1, range(12)):
        assert wrong is None, f"case {case}, {kind}"


@pytest.mark.usefixtures("unchecked")
def test_calls_are_answered_rightly_or_refused_by_name():
    tally = attack_calls(400, 1, tuple(SUBJECTS))
    assert tally.mishandled == []
    assert sum(counts.total() for counts in tally.tried.values()) == 400


def _spoils(x: np.ndarray) -> float:
    x[0] = 0.0
    return 0.0


def _seeds(x: np.ndarray) -> float:
    return float(torch.rand(1)) + x[0]


def _refuses(x: np.ndarray) -> float:
    raise ValueError(f"got {x[0]}")


def _breaks(x: np.ndarray) -> float:
    raise IndexError(f"x: {x[9]}")


def _overflows(x: np.ndarray) -> float:
    return float(np.exp(1e4 * x[0]))


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (_spoils, "changed the argument x"),
        (_seeds, "changed a global state"),
        (_refuses, "good arguments are refused"),
        (_breaks, "IndexError"),
        (_overflows, "warning: overflow"),
        (lambda x: x[0] * np.inf, "result is not finite"),
        (lambda x: x[0], "got 1.0 where 2.0 is right"),
    ],
)
def test_mishandled_calls_are_noticed(call: Callable[[np.ndarray], float], wrong: str):
    subject = Subject(call, lambda _: {"x": np.ones(3)}, lambda _, found: f"got {found} where 2.0 is right")
    _, said = outcome(subject, Case("good: plain", {"x": np.ones(3)}, {"x": np.ones(3)}, strict=True))
    assert said is not None
    assert said.startswith(wrong)


def test_a_refusal_that_names_nothing_is_noticed():
    case = Case("hostile: None", {"x": np.ones(3)}, None, strict=False)
    assert "no argument is named" in str(outcome(Subject(_refuses, lambda _: {}), case)[1])


def test_every_public_function_of_arrays_is_attacked():
    # Plots, methods of results, and what only `record` reads have their own tests.
    others = ("plotting.", "JointOptimum.", "Solution.", "Plane.", "CollapseMetric.", "record")
    assert {name for name in CALLS if not name.startswith(others)} <= set(SUBJECTS)


def _hangs(path: Path) -> None:
    path.read_bytes()


def _raises(path: Path) -> None:
    raise TypeError(f"{path}: what a command does not catch")


def _mumbles(path: Path) -> None:
    raise ValueError("it is damaged")


def _warns(path: Path) -> None:
    warnings.warn(f"{path} is odd", stacklevel=1)


def _works(path: Path) -> None:
    x = np.random.default_rng(0).random((400, 400))
    while True:
        x = x @ x / np.abs(x).max()


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (_hangs, "no end within"),
        (_raises, "TypeError"),
        (_mumbles, "no line that names the file"),
        (_warns, "warning: "),
        (_works, "no end within"),
    ],
)
def test_what_readers_do_wrong_is_noticed(read, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "HUNG", 0.3)
    os.mkfifo(tmp_path / "pipe")
    _, found = files._outcome(Reader(lambda folder: folder, read), tmp_path / "pipe")
    assert found is not None
    assert found.startswith(wrong)


def test_values_are_changed_and_nothing_else():
    rng = np.random.default_rng(0)
    texts = {changed_json('{"a": [1, 2], "b": {"c": "x"}}', rng) for _ in range(300)}
    assert len(texts) > 40
    assert any(text.count("[") > 1000 for text in texts)
    for text in texts:
        if text.count("[") < 1000:
            json.loads(text)


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.json", b'{"a": '), ("a.jsonl", b'{"a": 1}\n{"b"'), ("a.html", b"<html>"), ("a.png", b"\x89PNG")],
)
def test_half_files_are_noticed(name: str, data: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError):
        content(tmp_path / name)
    (tmp_path / "points.jsonl").write_bytes(b'{"seconds": 2, "a": 1}\n{"b"')
    assert content(tmp_path / "points.jsonl") == [{"a": 1}]


def _attacked(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.fuzz", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_and_starved_trainings_end_as_uninterrupted_ones(tmp_path: Path):
    out = tmp_path / "kills.json"
    assert "2 tried, 0 mishandled" in _attacked("kills", "--cases", "2", "--only", "train", "--out", str(out))
    assert "run/checkpoint.safetensors" in json.loads(out.read_text())["compared"]["train"]


@pytest.mark.slow
def test_processes_that_train_together_end_together(tmp_path: Path):
    assert ", 0 mishandled" in _attacked("ranks", "--cases", "4", "--out", str(tmp_path / "ranks.json"))


@pytest.mark.parametrize(
    ("name", "least", "subjects"),
    [
        ("calls", 100_000, set(SUBJECTS)),
        ("files", 5000, set(READERS)),
        ("kills", 50, set(COMMANDS)),
        ("ranks", 20, None),
    ],
)
def test_committed_results_say_what_was_tried(name: str, least: int, subjects: set[str] | None):
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert result["cases"] == sum(sum(counts.values()) for counts in result["tried"].values()) >= least
    assert result["mishandled"] == 0
    assert subjects is None or set(result["tried"]) == subjects
