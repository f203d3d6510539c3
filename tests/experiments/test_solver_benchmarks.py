"""The solver's measurements run, and their committed results say what the documents say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import minority
from experiments.benchmarks import precision, race, scaling

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def committed(name: str) -> dict:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def documented_row(words: str) -> str:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if words in line)


def test_precision_on_a_few_fresh_starts():
    for row in precision.rows(precision.PrecisionConfig(num_classes=(3, 4), decays=(2e-2,), nodes=3, seeds=2)):
        assert row["relative_gap"] <= precision.LIMIT
        assert row["relative_gradient"] <= precision.LIMIT
        assert abs(row["above_closed_form"]) <= precision.LIMIT


def test_committed_precision_is_what_the_documents_say():
    worst = committed("solver/precision.json")["worst"]
    within = [group for group in worst if group["decay"] >= 2e-3]
    assert all(group["stuck"] == 0 for group in worst)
    assert all(group["within"] == group["of"] == 20 for group in within)
    row = documented_row("`solver/precision.json`")
    for key in ("relative_gap", "relative_gradient"):
        assert f"{max(group[key] for group in within):.1e}" in row
        assert f"{max(group[key] for group in worst):.1e}" in row


def test_a_short_race_has_the_solver_first():
    rows = race.race(race.RaceConfig(case=("a",), limit=0.5, repeats=1))
    assert [row["method"] for row in rows] == ["ufm newton", *race.OPTIMISERS]
    assert rows[0]["reached"]
    assert all(np.isfinite(row["relative_gap"]) for row in rows)
    with pytest.raises(ValueError, match="^case"):
        race.problem("d")


@pytest.mark.slow
def test_a_baseline_that_reaches_the_gap_says_when():
    case = race.problem("a")
    row = race.baseline("torch Adam", case, 0.3, 30.0)
    assert row["reached"]
    assert row["relative_gap"] <= 0.3
    row = race.baseline("torch LBFGS", case, 1e-3, 30.0)
    assert {"1e-1", "1e-2", "1e-3"} <= row["seconds_to_gap"].keys()
    assert row["seconds_to_gap"]["1e-3"] == row["seconds"]


def test_committed_race_is_what_the_documents_say():
    for row in committed("solver/race.json")["rows"]:
        line = documented_row(f"({row['case']}) ")
        if row["method"] == "ufm newton":
            assert row["reached"]
            shown = f"{1000 * row['seconds']:.0f} ms" if row["seconds"] < 1 else f"{row['seconds']:.1f} s"
            assert shown in line
        else:
            bound = "" if row["reached"] else "> "
            assert f"{bound}{row['ratio']:.0f}" in line


def test_scaling_runs_and_memory_is_measured():
    rows = [scaling.run(nodes, 1, torch.get_num_threads(), True, False) for nodes in (1, 2)]
    assert [row and row["targets"] for row in rows] == [465, 900]
    assert scaling.slope([{"targets": 10, "seconds": 2.0}, {"targets": 100, "seconds": 20.0}], "seconds") == (
        pytest.approx(1)
    )


def test_committed_scaling_is_what_the_documents_say():
    result = committed("solver/scaling.json")
    row = documented_row("`solver/scaling.json`")
    streamed = [line["megabytes"] for line in result["rows"] if line["kind"] == "streamed"]
    assert streamed[-1] < 1.3 * streamed[2]
    for kind, value in result["slopes"].items():
        assert value <= 1.1, kind
        assert f"{value:.2f}" in row
    # The same iterate by four routes, whose inner solves stop at a tolerance; three iterations are not convergence.
    for nodes in {line["nodes"] for line in result["rows"]}:
        objectives = [line["objective"] for line in result["rows"] if line["nodes"] == nodes]
        assert np.ptp(objectives) <= 1e-10 * objectives[0]


def test_committed_minority_curve_follows_the_prediction():
    for point in committed("minority/minority.json")["points"]:
        predicted = minority.collapse_ratio(10, point["alpha"], point["decay"])
        assert point["predicted_collapse_ratio"] == pytest.approx(predicted)
        assert (point["spread_rare"] < 1e-6) == (point["ratio"] >= predicted)
        assert re.fullmatch("CONVERGED|STALLED", point["message"])
        assert abs(point["relative_gap"]) < 1e-10
