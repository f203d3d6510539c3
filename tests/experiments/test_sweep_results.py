"""The committed sweeps are what their descriptions say, and their summary and figures what the code makes of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import sweep
from experiments.sweeps.grid import Grid, grid_of, read_grid
from experiments.sweeps.point import solve_point
from experiments.sweeps.summary import agrees, read_sweep, summary
from figures import collapse, methods
from figures.sweeps import title

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "experiments" / "results" / "sweeps"


@pytest.mark.parametrize(("name", "count"), [("collapse", 12 * 16 * 2), ("methods", 7)])
def test_committed_sweeps_are_what_their_config_says(name: str, count: int):
    config, lines = read_sweep(COMMITTED / name)
    grid = read_grid(ROOT / "experiments" / "sweeps" / f"{name}.toml")
    points = grid.points()
    assert grid_of(config["grid"]) == grid
    assert config["points"] == len(points) == len(lines) == count
    assert {line["key"] for line in lines} == set(points)
    assert all(line["parameters"] == points[line["key"]].written() for line in lines)
    assert all(line["status"] != "failed" for line in lines)
    assert not any("/work" in command or "/tmp" in command for command in config["commands"])
    assert (COMMITTED / name / "points.jsonl").stat().st_size < 1e6


def test_committed_phase_diagram_agrees_with_the_closed_form():
    _, lines = read_sweep(COMMITTED / "collapse")
    assert all(agrees(line) for line in lines)
    assert all(abs(line["objective"] / line["closed_form"]["objective"] - 1) < 1e-12 for line in lines)
    for line in lines:
        alpha, product = line["parameters"]["alpha"], line["weight_decay"] * line["feature_decay"]
        assert line["closed_form"]["threshold"] == pytest.approx((alpha + 1) / (2 * alpha + 1) / 5, rel=1e-13)
        assert line["collapsed"] == (product >= (alpha + 1) / (2 * alpha + 1) / 5)
    again = solve_point(
        Grid(**{k: (v,) for k, v in lines[100]["parameters"].items() if v is not None}).points().popitem()[1]
    )
    assert again["key"] == lines[100]["key"]
    assert again["objective"] == pytest.approx(lines[100]["objective"], rel=1e-12)


def test_committed_readme_is_the_summary_of_the_committed_sweeps():
    text = (COMMITTED / "README.md").read_text(encoding="utf-8")
    assert text == summary([COMMITTED / "collapse", COMMITTED / "methods"])


def test_summary_lists_points_that_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["sweep", *words])
        return sweep.main()

    words = ["--num-classes", "3", "--nodes", "2", "--seed", "0", "1", "--weight-decay", "1e-3", "1e-305"]
    assert run("run", "--out", str(tmp_path / "one"), *words, "--feature-decay", "1e-305", "--max-iter", "5") == 1
    lines: list[dict[str, Any]] = read_sweep(tmp_path / "one")[1]
    first, *rest = (line | {"collapsed": False} for line in lines)
    first["collapsed"] = True
    text = "\n".join(json.dumps(line) for line in (first, *rest)) + "\n"
    (tmp_path / "one" / "points.jsonl").write_text(text)
    assert run("summary", str(tmp_path / "one"), "--out", str(tmp_path / "README.md")) == 0
    said = (tmp_path / "README.md").read_text()
    assert "| newton | 2 | 1 | 1 | 0 |" in said
    assert "solver True, closed form False" in said
    assert said.count("failed: ValueError") == 2
    capsys.readouterr()
    assert run("summary", str(tmp_path / "two")) == 2
    assert "folder" in capsys.readouterr().err


def test_methods_are_called_by_their_names():
    assert title("momentum:learning_rate=0.1,momentum=0.9") == "SGD with momentum, rate 0.1"
    assert title("lbfgs:record=1") == "L-BFGS, record 1"


def test_figures_refuse_a_sweep_that_has_not_what_they_draw(tmp_path: Path):
    sweeps = tmp_path / "sweeps"
    shutil.copytree(COMMITTED / "collapse", sweeps / "methods")
    with pytest.raises(ValueError, match=r"sweep: .*histories"):
        methods.draw(tmp_path)
    lines = (COMMITTED / "collapse" / "points.jsonl").read_text().splitlines()
    other = json.loads(lines[0])
    other["parameters"]["num_classes"] = 7
    shutil.copytree(COMMITTED / "collapse", sweeps / "collapse")
    (sweeps / "collapse" / "points.jsonl").write_text("\n".join([lines[1], json.dumps(other)]) + "\n")
    with pytest.raises(ValueError, match=r"num_classes in \[5, 7\]"):
        collapse.draw(tmp_path)
