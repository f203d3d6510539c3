"""Sweeps: the grid and its keys, and what is on disk after every kind of end."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import ufm
from experiments import sweep
from experiments.sweeps import point as point_module
from experiments.sweeps.grid import Grid, GridPoint, grid_of, parse_method
from experiments.sweeps.point import is_collapsed, reached, solve_point, thinned
from experiments.sweeps.store import read_lines
from experiments.sweeps.summary import agrees, summary
from experiments.sweeps.workers import Workers
from tests.helpers.processes import start, wait_until
from ufm.solvers.adam import Adam
from ufm.solvers.newton import Newton

ROOT = Path(__file__).parents[2]
SMALL = ["--num-classes", "3", "--nodes", "2", "--seed", "0", "1", "--alpha", "0.5", "None"]


def only(grid: Grid) -> GridPoint:
    (point,) = grid.points().values()
    return point


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def run(out: Path, *words: str) -> int:
        monkeypatch.setattr("sys.argv", ["sweep", "run", "--out", str(out), *words])
        return sweep.main()

    return run


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "points.jsonl").read_text().splitlines()]


def started(out: Path, *words: str, lines: int, **settings: Any) -> subprocess.Popen:
    """Return a sweep's process, with a session of its own, that has written some lines."""
    command = [sys.executable, "-m", "experiments.sweep", "run", "--out", str(out), *words]
    running = start(command, cwd=ROOT, start_new_session=True, **settings)
    points = out / "points.jsonl"
    wait_until(lambda: points.exists() and points.read_bytes().count(b"\n") >= lines)
    return running


def test_grid_is_the_product_and_keys_are_stable():
    grid = Grid(num_classes=(3, 5), alpha=(0.5, None), seed=(0, 1, 2), method=("newton", "adam:learning_rate=1e-3"))
    points = grid.points()
    assert len(points) == 2 * 2 * 3 * 2
    assert all(point.key == key for key, point in points.items())
    assert list(points) == list(grid_of(grid.written()).points())
    assert {point.method for point in points.values()} == {"newton", "adam:learning_rate=0.001"}
    # The key is part of the files on disk: it may not change.
    assert only(Grid()).key == "6702748feb63530c"
    # Each point once, however its values are written.
    assert only(Grid(weight_decay=(1, 1.0), method=("adam:learning_rate=1e-3", "adam:learning_rate=0.001")))
    assert only(Grid(threshold_fraction=(0.5,), feature_decay=(1.0, 2.0)))
    assert only(Grid(alpha=(math.inf,))).written()["alpha"] == "inf"
    assert grid_of({"alpha": "inf"}).alpha == (math.inf,)


def test_points_are_of_the_right_law_and_penalties():
    mixed = only(Grid(threshold_fraction=(0.5,), weight_decay=(0.2,), nodes=(2,)))
    assert mixed.law() == ufm.Mixup(5, 1.0)
    assert math.prod(mixed.penalties()) == pytest.approx(0.5 * (2 / 3) / 5, rel=1e-14)
    unmixed = mixed._replace(alpha=None, threshold_fraction=None, feature_decay=0.3)
    assert unmixed.law() == ufm.Unmixed(5)
    assert unmixed.penalties() == (0.2, 0.3)
    assert unmixed._replace(smoothing=0.1).law() == ufm.LabelSmoothing(5, 0.1)


def test_methods_are_spelled_with_settings():
    method, spelling, overrides = parse_method(
        "adam: learning_rate=1e-3, betas=[0.5, 0.9], max_iter=7, schedule=cosine"
    )
    assert method == Adam(learning_rate=1e-3, betas=(0.5, 0.9), schedule="cosine")
    assert overrides == {"max_iter": 7}
    assert parse_method(spelling)[0] == method
    assert parse_method("newton:subsets=false")[0] == Newton(subsets=False)
    found = only(Grid(method=("lbfgs:record=3,memory=5",), max_iter=(9,)))
    assert (found.method, found.record, found.max_iter) == ("lbfgs:memory=5", 3, 9)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--method", "adam:rate=1"], "rate"),
        (["--method", "adam:learning_rate=-1"], "learning_rate"),
        (["--method", "newton:subsets=3"], "subsets"),
        (["--method", "sgd"], "method"),
        (["--num-classes", "1"], "num_classes"),
        (["--alpha", "0"], "alpha"),
        (["--weight-decay", "nan"], "weight_decay"),
        (["--loss", "hinge"], "loss"),
        (["--seed"], "seed"),
        (["--jobs", "0"], "jobs"),
        (["--executor", "slurm"], "executor: got 'slurm', which needs"),
        (["--file", "nowhere.toml"], "file"),
        (["--file", "a.toml", "--seed", "1"], "file"),
    ],
)
def test_bad_arguments_exit_with_2_and_one_line(run, tmp_path: Path, capsys, monkeypatch, words: list[str], named: str):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert run(tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_files_describe_grids(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "grid.toml"
    path.write_text('num_classes = 3\nalpha = [0.5, "None"]\nnodes = [2]\nseed = [0, 1]\n')
    assert run(tmp_path / "file", "--file", str(path)) == 0
    assert run(tmp_path / "words", *SMALL) == 0
    keys = [{line["key"] for line in lines_of(tmp_path / name)} for name in ("file", "words")]
    assert keys[0] == keys[1]
    for content in ("classes = 3", "num_classes = 'x'", "dim = 2.5", "method = 3", "seed = [[1]]", "a =", "alpha = []"):
        path.write_text(content)
        capsys.readouterr()
        assert run(tmp_path / "bad", "--file", str(path)) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_restart_skips_what_is_done_and_mends_a_cut_line(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert run(tmp_path, *SMALL) == 0
    file, whole = tmp_path / "points.jsonl", lines_of(tmp_path)
    solved: list[str] = []
    monkeypatch.setattr(
        "experiments.sweeps.workers.solve_point", lambda point: solved.append(point.key) or solve_point(point)
    )
    content = file.read_bytes()
    assert run(tmp_path, *SMALL) == 0
    assert (solved, file.read_bytes()) == ([], content)
    file.write_bytes(content[:-100])
    assert run(tmp_path, *SMALL) == 0
    assert solved == [whole[-1]["key"]]
    assert [line["objective"] for line in lines_of(tmp_path)] == [line["objective"] for line in whole]
    # A larger grid goes on, a different one does not.
    assert run(tmp_path, *SMALL, "--num-classes", "3", "4") == 0
    assert len(lines_of(tmp_path)) == 8
    assert run(tmp_path, *SMALL, "--num-classes", "4") == 2
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["points"], len(config["commands"])) == (8, 2)
    assert config["versions"][0]["ufm"] == ufm.__version__


def test_a_damaged_file_and_a_second_writer_are_refused(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "points.jsonl").write_text('{"key": "a", "status": "failed"}\nnonsense\n')
    assert run(tmp_path, *SMALL) == 2
    assert "line 2" in capsys.readouterr().err
    (tmp_path / "points.jsonl").write_text("")
    with FileLock(tmp_path / ".lock"):
        assert run(tmp_path, *SMALL) == 2
    assert "another process writes" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"epochs": 3}')
    assert run(tmp_path, *SMALL) == 2
    assert "config.json" in capsys.readouterr().err
    assert run(tmp_path / "points.jsonl", *SMALL) == 2
    assert "out: " in capsys.readouterr().err


def test_failed_points_are_kept_with_their_message_and_retried_on_request(run, tmp_path: Path, monkeypatch):
    # Penalties so small that the closed form overflows, beside points that are fine.
    words = [*SMALL, "--weight-decay", "1e-305", "--feature-decay", "1e-3", "1e-305", "--max-iter", "5"]
    assert run(tmp_path, *words) == 1
    failed = [line for line in lines_of(tmp_path) if line["status"] == "failed"]
    assert len(failed) == 4
    assert all("ValueError" in line["message"] and "overflow" in line["message"] for line in failed)
    assert run(tmp_path, *words) == 1
    assert len(lines_of(tmp_path)) == 8
    monkeypatch.setattr(point_module, "_found", lambda point: {"status": "converged", "message": "now it works"})
    assert run(tmp_path, *words, "--retry-failed") == 0
    assert [line["message"] for line in lines_of(tmp_path)[8:]] == 4 * ["now it works"]
    assert run(tmp_path, *words, "--retry-failed") == 0
    assert len(lines_of(tmp_path)) == 12


def test_points_that_do_not_converge_say_why(run, tmp_path: Path):
    assert run(tmp_path, *SMALL, "--method", "lbfgs:max_iter=3", "newton") == 0
    for line in lines_of(tmp_path):
        short = line["parameters"]["method"] == "lbfgs"
        assert line["status"] == ("not converged" if short else "converged")
        assert ("limit" in line["message"]) == short
        assert line["iterations"] <= 3 or not short
        assert line["objective"] >= line["closed_form"]["objective"] - 1e-12
        assert line["lower_bound"] <= line["closed_form"]["objective"] + 1e-12
        if not short:
            assert line["etf_error"] < 1e-6
            norm = 3**0.5 * line["closed_form"]["multiplier"]
            assert line["classifier_norm"] == pytest.approx(norm, rel=1e-6)


def test_collapse_is_decided_by_proof_or_not_at_all():
    point = only(Grid(threshold_fraction=(0.999,), nodes=(2,)))
    for fraction, loss in ((0.999, "cross_entropy"), (1.001, "cross_entropy"), (0.9, "mean_squared_error")):
        line = solve_point(point._replace(threshold_fraction=fraction, loss=loss))
        assert line["collapsed"] is (fraction > 1)
        assert agrees(line)
    weight_decay, feature_decay = point._replace(threshold_fraction=1.5).penalties()
    problem = ufm.UFM(point.law().targets(2), 5, weight_decay, feature_decay)
    rough = ufm.solve(problem, "gradient_descent", max_iter=2).certificate
    assert is_collapsed(problem, rough, 1e-12) is None
    assert is_collapsed(problem, rough, 2 * abs(rough.relative_gap) + 2) is True
    # Fewer dimensions than the closed form's: the point is solved all the same.
    line = solve_point(point._replace(dim=2, threshold_fraction=0.3))
    assert (line["status"], line["closed_form"], line["etf_error"]) == ("converged", None, None)


@pytest.mark.slow
def test_histories_are_thinned_and_their_first_times_kept(run, tmp_path: Path):
    n = np.arange(5000.0)
    columns = {"iteration": n, "seconds": n / 10, "relative_gap": 1 / (1 + n), "gradient_norm": np.full(5000, np.inf)}
    found = thinned(columns)
    assert len(found["iteration"]) <= 200
    assert (found["iteration"][0], found["iteration"][-1], found["gradient_norm"][0]) == (0, 4999, None)
    assert reached(columns)["1e-02"] == {"seconds": 9.9, "iteration": 99}
    assert reached(columns)["1e-04"] is None
    words = ["--record", "1", "--gap-tol", "1e-11", "--method", "newton", "lbfgs", "adam:learning_rate=0.3,max_iter=40"]
    assert run(tmp_path, *SMALL, *words) == 0
    for line in lines_of(tmp_path):
        iterations, gaps = line["history"]["iteration"], line["history"]["relative_gap"]
        # The best iterate, which a solve without convergence ends with, is no part of the course.
        assert iterations == sorted(set(iterations))
        assert iterations[-1] <= line["iterations"]
        assert (abs(gaps[-1]) <= 1e-11) == (line["status"] == "converged")
    text = summary([tmp_path])
    assert text.count("| newton |") == text.count("| lbfgs |") == 4


def test_a_full_disk_names_the_file_and_loses_no_finished_point(run, tmp_path: Path):
    limit = 2500
    full = started(tmp_path, *SMALL, lines=1, file_limit=limit)
    _, said = full.communicate(timeout=60)
    assert full.returncode == 1, said
    assert "points.jsonl" in said
    assert "Traceback" not in said
    kept, _ = read_lines(tmp_path / "points.jsonl")
    assert 0 < len(kept) < 4
    assert run(tmp_path, *SMALL) == 0
    assert len(lines_of(tmp_path)) == 4
    assert lines_of(tmp_path)[: len(kept)] == list(kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_killed_or_interrupted_it_keeps_what_is_finished_and_goes_on(run, tmp_path: Path, how: signal.Signals):
    # More points than two workers can solve before the signal, each of about 50 ms.
    words = ["--num-classes", "4", "--nodes", "2", "--method", "adam:max_iter=150", "--tol", "1e-14", "--jobs", "2"]
    words += ["--seed", *map(str, range(100))]
    running = started(tmp_path, *words, lines=2)
    os.killpg(running.pid, how)
    _, said = running.communicate(timeout=60)
    assert running.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), said
    assert ("interrupted" in said) == (how == signal.SIGINT)
    assert "Traceback" not in said
    found = lines_of(tmp_path)
    assert 2 <= len(found) < 100
    assert all(line["status"] == "not converged" and "limit" in line["message"] for line in found)
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):  # no worker is left
        while time.monotonic() < deadline:
            os.killpg(running.pid, 0)
            time.sleep(0.01)
    assert run(tmp_path, *words) == 0
    assert lines_of(tmp_path)[: len(found)] == found
    assert [
        line["parameters"]["seed"] for line in sorted(lines_of(tmp_path), key=lambda line: line["parameters"]["seed"])
    ] == list(range(100))


def test_an_interrupted_solve_is_no_result(monkeypatch: pytest.MonkeyPatch):
    solve = ufm.solve
    message = point_module.Message.INTERRUPTED
    monkeypatch.setattr(ufm, "solve", lambda *args, **kwargs: replace(solve(*args, **kwargs), message=message))
    with pytest.raises(KeyboardInterrupt):
        solve_point(only(Grid()))


# Submitit's debugging executor leaves its log files open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_submitit_solves_the_same_points(tmp_path: Path):
    points = list(Grid(num_classes=(3,), nodes=(2,), seed=(0, 1, 2)).points().values())
    found = list(Workers(executor="submitit-debug", points_per_job=2, jobs=2).solve(points, tmp_path))
    assert {line["key"] for line in found} == {point.key for point in points}
    assert all(line["status"] == "converged" for line in found)
