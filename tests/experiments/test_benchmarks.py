"""The measurements run, and their committed results say what the documents say."""

import json
from pathlib import Path

import numpy as np
import pytest
from flint import ctx

from experiments.benchmarks import exactness, joint, mutation, speed

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def worst_of(cases: int, seed: int) -> float:
    ctx.prec = exactness._BITS
    config = exactness.ExactnessConfig(cases=cases, seed=seed)
    epsilon = float(np.finfo(float).eps)
    return max(
        case["logits"] if case["finite"] else np.inf
        for kind, labels, beta in exactness.batches(config)
        for case in exactness.measure(kind, labels, beta, epsilon)
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_fresh_labels_are_exact_to_64_ulp(seed: int):
    assert worst_of(500, seed) <= 64


@pytest.mark.slow
def test_many_fresh_labels_are_exact_to_64_ulp():
    assert worst_of(20_000, 3) <= 64


def test_the_interval_oracle_agrees_with_mpmath():
    from tests.helpers import oracles

    ctx.prec = exactness._BITS
    for levels, counts, beta in (([0.3, 0.7, 0.0], [1, 1, 8], 1e6), ([1.0, 0.0], [1, 4], 1e-3)):
        found, _ = exactness.oracle(np.array(levels), np.array(counts), beta)
        expected = oracles.prox_logits(levels, counts, beta)
        assert [float(z) for z in found] == pytest.approx([float(z) for z in expected], rel=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 5, 10])
def test_joint_optima_agree_with_direct_solves(K: int):
    for row in joint.rows(joint.JointConfig(num_classes=(K,), nodes=3, seed=1)):
        assert row["converged"], row
        assert row["relative_difference"] < 1e-12, row
        assert row["gram_difference"] < 1e-6, row


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_baselines_of_the_speed_benchmark_compute_the_same():
    row = speed.dense(20, 5, 100.0, repeats=1)
    assert row["largest_difference_from_scipy"] < 1e-9
    assert row["largest_difference_from_lbfgs"] < 1e-4
    assert all(value > 0 for key, value in row.items() if key.startswith("seconds"))
    assert set(speed.orbits(10, 1)) > {"K"}


def test_a_survivor_is_shown_with_what_was_changed():
    config = mutation.MutationConfig(per_module=2)
    survivor = {"mutant": "ufm.a.x_f__mutmut_1", "status": "survived", "change": "-    a + 1\n+    a - 1"}
    text = mutation.page(config, {"ufm.a": {"possible": 9, "drawn": 2, "survivors": [survivor]}})
    assert "1 of 2 mutants are noticed" in text
    assert "+    a - 1" in text


def test_committed_results_keep_what_is_claimed():
    exact = json.loads((RESULTS / "exactness" / "exactness.json").read_text())
    assert sum(kind["cases"] for kind in exact["kinds"].values()) >= 100_000
    assert max(kind["logits_max_ulp"] for kind in exact["kinds"].values()) <= 64
    assert all(kind["all_finite"] for kind in exact["kinds"].values())
    worst = json.loads((RESULTS / "joint" / "joint.json").read_text())["worst"]
    assert worst["relative_difference"] < 1e-12
    assert worst["gram_difference"] < 1e-6
    mutants = json.loads((RESULTS / "mutation" / "mutation.json").read_text())
    survivors = sum(len(module["survivors"]) for module in mutants["modules"].values())
    assert mutants["killed"] == mutants["drawn"] - survivors >= 0.9 * mutants["drawn"]
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"{mutants['killed']} of {mutants['drawn']}" in page
