"""Certificates hold in spite of rounding: against ball arithmetic, and each part of the proof by itself."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from flint import arb, arb_mat, ctx
from hypothesis import given, settings, strategies as st
from scipy import special

import ufm
from experiments.benchmarks import certificates
from tests.helpers import strategies
from ufm._support.summation import UNIT_ROUNDOFF, depth, largest_eigenvalue, pairwise_product, pairwise_sum, two_sum
from ufm.losses import get_loss
from ufm.solvers.certificate import relative_gap

RESULT = "experiments/results/exactness/certificates.json"


def test_no_bound_is_above_the_objective_as_a_ball():
    found = certificates.check(certificates.CertificatesConfig(cases=90, seed=7))
    assert sum(row["certificates"] for row in found.values()) == 90
    assert {kind: row["above"] for kind, row in found.items()} == dict.fromkeys(certificates.LABELS, 0)


def test_the_committed_certificates_are_below(pytestconfig: pytest.Config):
    found = json.loads((pytestconfig.rootpath / RESULT).read_text())
    rows = found["kinds"].values()
    assert sum(row["certificates"] for row in rows) == found["config"]["cases"] >= 10_000
    assert found["above"] == sum(row["above"] for row in rows) == 0
    # What the allowance costs where the bound is tight.
    assert all(row["tight"] >= 100 and row["median_ulp"] < 60 for row in rows)


@pytest.mark.parametrize("small", [0.3, 7e-8, 1e-15, 1e-200])
def test_small_labels_are_certified_to_their_own_digits(small: float):
    """With a free bias the optimum is the entropy of the one label, whatever its size: here in balls."""
    y = np.array([[small, 1 - small]])
    problem = ufm.UFM(ufm.Targets(y), 1, 0.1, 0.1, bias_decay=0.0)
    bias = torch.from_numpy(np.log(y[0]))
    found = ufm.certify(problem, torch.zeros(2, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64), bias)
    with ctx.workprec(1000):
        a, b = (arb(float(v)) for v in problem.targets.labels[0])
        a, b = a / (a + b), b / (a + b)
        entropy = -(a * a.log() + b * b.log())
        assert arb(found.lower_bound) < entropy
    assert found.lower_bound >= float(entropy) * (1 - 1e-13)
    assert found.objective == pytest.approx(float(entropy), rel=1e-13)
    if small > 1e-10:
        assert ufm.solve(problem, gap_tol=1e-10).converged


def test_an_optimum_of_zero_has_a_relative_gap_of_zero():
    problem = ufm.UFM(ufm.Targets(np.full((2, 3), 1 / 3)), 3, 1.0, 1.0, "mean_squared_error")
    solution = ufm.solve(problem, gap_tol=1e-10)
    assert solution.converged
    assert (solution.objective, solution.certificate.lower_bound, solution.certificate.relative_gap) == (0, 0, 0)
    # An objective of zero with a gap is as far from proved as can be.
    assert relative_gap(1e-300, 0.0) == math.inf


def test_points_whose_objective_overflows_are_named():
    problem = ufm.UFM(ufm.Targets(np.eye(3)), 3, 0.1, 0.1)
    with pytest.raises(ValueError, match="^classifier, features, bias: got numbers whose objective overflows"):
        ufm.certify(problem, np.eye(3) * 1e308, np.eye(3))


@given(strategies.seeds, st.integers(1, 300))
def test_sums_by_halves_are_within_their_bound(seed: int, count: int):
    x = np.random.default_rng(seed).normal(size=count) * 10.0 ** np.random.default_rng(seed).uniform(-8, 8, count)
    exact = sum(map(Fraction, x.tolist()), Fraction(0))
    off = abs(Fraction(pairwise_sum(torch.from_numpy(x)).item()) - exact)
    assert off <= Fraction(1.01 * depth(count) * UNIT_ROUNDOFF) * sum(map(abs, map(Fraction, x.tolist())), Fraction(0))
    total, left = two_sum(torch.from_numpy(x), torch.from_numpy(x[::-1].copy()))
    for pair in zip(x.tolist(), x[::-1].tolist(), total.tolist(), left.tolist(), strict=True):
        a, b, c, d = map(Fraction, pair)
        assert a + b == c + d


@given(strategies.seeds, st.integers(1, 100), st.integers(1, 5))
def test_products_by_halves_are_within_their_bound(seed: int, count: int, K: int):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, K)))
    found, roundings = pairwise_product(x, x)
    exact = [
        [sum((Fraction(a) * Fraction(b) for a, b in zip(u, v, strict=True)), Fraction(0)) for v in x.T.tolist()]
        for u in x.T.tolist()
    ]
    sizes = x.abs().T @ x.abs()
    for i in range(K):
        for j in range(K):
            off = abs(Fraction(found[i, j].item()) - exact[i][j])
            assert off <= Fraction(1.01 * roundings * UNIT_ROUNDOFF * sizes[i, j].item())


@settings(max_examples=60)
@given(strategies.seeds, st.integers(1, 12), st.sampled_from(["full", "rank", "centred", "tiny"]))
def test_largest_eigenvalue_is_a_bound_by_balls(seed: int, K: int, kind: str):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(K, max(1, K // 2) if kind == "rank" else K + 3))
    matrix = np.eye(K) - 1 / K if kind == "centred" else x @ x.T * (1e-250 if kind == "tiny" else 1)
    matrix = (matrix + matrix.T) / 2
    found = largest_eigenvalue(torch.from_numpy(matrix))
    with ctx.workprec(200):
        exact = arb_mat(matrix.tolist())
        # The bound lies above every eigenvalue exactly if all leading minors of found I - matrix are not negative.
        shifted = arb_mat([[arb(found) * (i == j) - exact[i, j] for j in range(K)] for i in range(K)])
        minors = [arb_mat([[shifted[i, j] for j in range(n)] for i in range(n)]).det() for n in range(1, K + 1)]
        assert not any(minor < 0 for minor in minors)
    assert found <= np.linalg.eigvalsh(matrix)[-1] * (1 + 1e-12) + 1e-300


@given(strategies.seeds, st.integers(2, 8), st.floats(-12, 0), st.sampled_from(["cross_entropy", "mean_squared_error"]))
def test_the_value_of_a_dual_point_is_below_its_exact_one(seed: int, K: int, exponent: float, loss: str):
    """In balls, at the residual that is meant: for cross entropy the last entry of q makes its sum one."""
    rng = np.random.default_rng(seed)
    y = rng.dirichlet(np.full(K, 0.2))
    q = special.softmax(np.log(y + 1e-30) + 10.0**exponent * rng.normal(size=K))
    at = get_loss(loss).dual_point(torch.from_numpy(q - y), torch.from_numpy(y))
    with ctx.workprec(200):
        whole = sum((arb(float(v)) for v in y), arb(0))
        target, r = [arb(float(v)) / whole for v in y], [arb(float(v)) for v in at.residual]
        if loss == "cross_entropy":
            top = int(at.error.argmax()) if bool(at.error.any()) else int((at.residual + torch.from_numpy(y)).argmax())
            exact = -sum((v for k, v in enumerate(r) if k != top), arb(0))
            assert abs(exact - r[top]) <= arb(float(at.error[top]) * (1 + 1e-15)) + arb(1e-320)
            r[top] = exact
            points = [u + v for u, v in zip(target, r, strict=True)]
            assert not any(v < 0 for v in points)
            value = -sum((v * v.log() for v in points if v != 0), arb(0))
        else:
            value = -sum((v * v / 2 + v * (u - arb(1) / K) for u, v in zip(target, r, strict=True)), arb(0))
        assert not arb(float(at.value)) > value
        assert float(value - arb(float(at.value))) <= 1e-13 * (abs(float(value)) + float(np.abs(q - y).sum()))
