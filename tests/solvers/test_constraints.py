"""A bias and constraints: certificate, gradients and methods, against conic solvers, SciPy and differences."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from scipy import optimize, special

import ufm
from tests.helpers import oracles, strategies
from ufm.solvers.first_order import Variables
from ufm.solvers.method import Point, constrained

LOSSES = ("cross_entropy", "mean_squared_error")
# What a problem may have beyond the plain one; the first two only with a free and a fixed classifier, respectively.
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {},
    {"nonnegative": True},
    {"feature_norm": 1.3},
    {"row_norm": 0.8},
    {"row_norm": 0.8, "feature_norm": 1.3},
    {"row_norm": 0.8, "nonnegative": True},
)


def targets(rng: np.random.Generator, K: int, N: int) -> ufm.Targets:
    """Return unbalanced random targets, some of them one-hot; every class occurs."""
    y = rng.dirichlet(np.full(K, 0.4), N)
    y[::2] = np.eye(K)[rng.integers(K, size=len(y[::2]))]
    return ufm.Targets(0.95 * y + 0.05 / K, rng.dirichlet(np.ones(N)) * 0.9 + 0.1 / N)


@st.composite
def problems(draw: st.DrawFn) -> ufm.UFM:
    """Return a random problem with a random combination of bias, constraints and a fixed classifier."""
    rng = np.random.default_rng(draw(strategies.seeds))
    K, d, N = draw(st.integers(2, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 7))
    constraints = draw(st.sampled_from(CONSTRAINTS))
    fixed = "row_norm" not in constraints and draw(st.booleans())
    bias_decay = draw(st.sampled_from([None, 0.0, 0.01, 0.5]))
    return ufm.UFM(
        targets(rng, K, N),
        d,
        draw(strategies.decays),
        draw(strategies.decays),
        draw(strategies.losses),
        classifier=rng.normal(size=(K, d)) if fixed else None,
        bias_decay=bias_decay,
        **constraints,
    )


def point(problem: ufm.UFM, seed: int, size: float = 1.0) -> Point:
    """Return a random feasible point."""
    rng = np.random.default_rng(seed)
    K, N, d = problem.targets.num_classes, len(problem.targets), problem.dim
    W, H = torch.from_numpy(size * rng.normal(size=(K, d))), torch.from_numpy(size * rng.normal(size=(N, d)))
    b = torch.from_numpy(size * rng.normal(size=K)) if problem.has_bias else None
    return constrained(problem, Point(W if problem.classifier is None else torch.as_tensor(problem.classifier), H, b))


def certify(problem: ufm.UFM, at: Point) -> ufm.Certificate:
    assert at.features is not None
    return ufm.certify(problem, at.classifier, at.features, at.bias)


def objective(problem: ufm.UFM, at: Point) -> float:
    """Return F, written out in NumPy."""
    assert at.features is not None
    W, H = at.classifier.numpy(), at.features.numpy()
    y, pi, K = problem.targets.labels.numpy(), problem.targets.weights.numpy(), len(W)
    b = (0.0 if problem.loss == "cross_entropy" else 1 / K) if at.bias is None else at.bias.numpy()
    z = H @ W.T + b
    if problem.loss == "cross_entropy":
        losses = np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - (y * z).sum(1)
    else:
        losses = ((z - y) ** 2).sum(1) / 2
    penalty = problem.feature_decay / 2 * (pi @ (H**2).sum(1)) + problem.weight_decay / 2 * (W**2).sum()
    return float(pi @ losses + penalty + (problem.bias_decay or 0) / 2 * np.sum(np.square(b) * (at.bias is not None)))


@settings(max_examples=40)
@given(problems(), strategies.seeds, st.floats(-2, 1))
def test_bound_is_below_every_feasible_point(problem: ufm.UFM, seed: int, exponent: float):
    found = certify(problem, point(problem, seed, 10.0**exponent))
    others = [point(problem, seed + i, size) for i, size in ((0, 10.0**exponent), (1, 0.1), (2, 0.5), (3, 2.0))]
    values = [objective(problem, other) for other in others]
    assert found.objective == pytest.approx(values[0], rel=1e-12)
    # The descent from another point comes closer to the bound than random points do.
    near = ufm.solve(problem, "lbfgs", tol=1e-8, max_iter=20, seed=seed % 1000)
    rounding = 1e-12 * max(1, abs(found.objective))
    assert found.lower_bound <= min(*values, near.objective) + rounding
    assert near.certificate.lower_bound <= min(*values, near.objective) + rounding
    assert found.gap == pytest.approx(found.objective - found.lower_bound, abs=rounding)
    if problem.row_norm is None and (problem.feature_norm is None or problem.classifier is not None):
        assert np.isfinite(found.lower_bound)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias_decay", [0.0, 0.05])
@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_bound_stays_below_the_optimum_near_it(loss: str, bias_decay: float, size: float):
    """Near an optimum the bound is close to it, so that a factor in the wrong place would push it above."""
    rng = np.random.default_rng(5)
    for fixed in (False, True):
        W = rng.normal(size=(3, 4)) if fixed else None
        problem = ufm.UFM(targets(rng, 3, 5), 4, 0.03, 0.04, loss, classifier=W, bias_decay=bias_decay)
        best = ufm.solve(problem, "lbfgs", tol=1e-10, max_iter=3000)
        assert best.converged
        assert best.bias is not None
        for _ in range(30):
            moved = [x * torch.from_numpy(1 + size * rng.normal(size=x.shape)) for x in (best.features, best.bias)]
            w = best.classifier if fixed else best.classifier * (1 + size * rng.normal())
            bound = ufm.certify(problem, w, *moved).lower_bound
            assert best.objective - 30 * size <= bound <= best.objective + 1e-13


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias_decay", [0.0, 0.03])
def test_bias_against_the_conic_solver(loss: str, bias_decay: float):
    rng = np.random.default_rng(8)
    law = targets(rng, 3, 6)
    problem = ufm.UFM(law, 4, 0.04, 0.05, loss, bias_decay=bias_decay)
    expected, status = oracles.nuclear_norm_with_bias(
        law.labels.numpy(), law.weights.numpy(), 0.04, 0.05, loss, bias_decay
    )
    assert status == "optimal"
    for method in ("newton", "lbfgs"):
        solution = ufm.solve(problem, method, tol=1e-10, max_iter=5000)
        assert solution.converged
        # The conic solver is asked for 1e-9 in its own scaled residuals.
        assert solution.objective == pytest.approx(expected, abs=2e-7)
        # The gap is a sum of products of residuals with the distances that they leave: about the gradient's norm.
        assert abs(solution.certificate.gap) < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias_decay", [None, 0.0, 0.1])
def test_nonnegative_features_against_scipy(loss: str, bias_decay: float | None):
    rng = np.random.default_rng(2)
    W = rng.normal(size=(3, 4))
    problem = ufm.UFM(targets(rng, 3, 4), 4, 0.1, 0.03, loss, classifier=W, bias_decay=bias_decay, nonnegative=True)
    solution = ufm.solve(problem, "lbfgs", tol=1e-11, max_iter=3000)
    assert solution.converged
    assert (solution.features >= 0).all()
    assert (solution.features == 0).any()
    assert abs(solution.certificate.gap) < 1e-9
    biases = 0 if bias_decay is None else 3

    def value(x: np.ndarray) -> float:
        b = torch.from_numpy(x[16:].copy()) if biases else None
        return objective(problem, Point(torch.from_numpy(W), torch.from_numpy(x[:16].reshape(4, 4).copy()), b))

    bounds = [(0, None)] * 16 + [(None, None)] * biases
    options = {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 5000, "maxfun": 500_000}
    found = optimize.minimize(value, np.full(16 + biases, 0.1), bounds=bounds, method="L-BFGS-B", options=options)
    # SciPy's gradients are forward differences, good to 1e-8, and its value to about their square over 0.03.
    assert solution.objective <= found.fun + 1e-12
    assert solution.objective == pytest.approx(found.fun, abs=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_of_fixed_norm_are_tight_for_a_fixed_classifier(loss: str):
    rng = np.random.default_rng(3)
    W = rng.normal(size=(3, 4))
    problem = ufm.UFM(targets(rng, 3, 5), 4, 0.1, 0.3, loss, classifier=W, feature_norm=0.4)
    solution = ufm.solve(problem, "lbfgs", tol=1e-10, max_iter=3000)
    assert solution.converged
    # The length of W^T r is not smooth where it vanishes, so that the gap is about as small as the gradient.
    assert abs(solution.certificate.gap) < 1e-9


@given(strategies.seeds, strategies.losses)
def test_fixed_gap_of_nonnegative_features_is_fenchels(seed: int, loss: str):
    """Against the dual value itself, at points far from the optimum where both cases of the gap occur."""
    rng = np.random.default_rng(seed)
    W, law = rng.normal(size=(3, 4)), targets(rng, 3, 5)
    problem = ufm.UFM(law, 4, 0.1, 0.3, loss, classifier=W, nonnegative=True)
    at = point(problem, seed)
    assert at.features is not None
    y, pi, z = law.labels.numpy(), law.weights.numpy(), at.features.numpy() @ W.T
    q = special.softmax(z, 1) if loss == "cross_entropy" else z + 1 / 3
    r = q - y
    values = special.entr(q).sum(1) if loss == "cross_entropy" else -(r**2 / 2 + r * (y - 1 / 3)).sum(1)
    dual = pi @ (values - (np.minimum(r @ W, 0) ** 2).sum(1) / 0.6) + 0.05 * (W**2).sum()
    assert certify(problem, at).lower_bound == pytest.approx(dual, abs=1e-12 * (1 + objective(problem, at)))


def test_fixed_gap_of_nonnegative_features_keeps_its_digits():
    """The gap's own form against the difference of objective and bound, at larger and at tiny gaps."""
    rng = np.random.default_rng(6)
    W = rng.normal(size=(3, 4))
    problem = ufm.UFM(targets(rng, 3, 4), 4, 0.1, 0.5, classifier=W, nonnegative=True)
    best = ufm.solve(problem, "lbfgs", tol=1e-13, max_iter=3000)
    direction = torch.from_numpy(rng.normal(size=best.features.shape)) * (best.features > 0)
    gaps = []
    for step in (1e-3, 1e-6, 1e-9):
        found = ufm.certify(problem, W, best.features + step * direction)
        gaps.append(found.gap / step**2)
        # The bound leaves room for rounding, some ten ulp of what enters; the gap does not cancel.
        assert 0 <= found.objective - found.gap - found.lower_bound < 5e-14
    # The active features have gradients that are linear in the step, and the held ones add nothing.
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-2)
    assert gaps[2] == pytest.approx(gaps[1], rel=1e-2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias_decay", [None, 0.0])
def test_fixed_norms_have_the_etf_for_their_optimum(loss: str, bias_decay: float | None):
    K, d, rho, m = 5, 6, 0.7, 0.9
    law = ufm.Unmixed(K).targets()
    problem = ufm.UFM(law, d, 0.0, 0.0, loss, bias_decay=bias_decay, feature_norm=rho, row_norm=m)
    W = ufm.simplex_etf(K, d, m)
    rows = law.labels.argmax(1)
    bias = None if bias_decay is None else torch.full((K,), 0.0 if loss == LOSSES[0] else 1 / K, dtype=torch.float64)
    ideal = ufm.certify(problem, W, rho / m * W[rows], bias)
    # The bound is tight but for the allowance for rounding.
    assert 0 <= ideal.gap < 5e-14
    assert ideal.gradient_norm < 1e-14
    solution = ufm.solve(problem, "lbfgs", tol=1e-9, max_iter=3000)
    assert solution.converged
    assert solution.objective == pytest.approx(ideal.objective, rel=1e-12)
    assert abs(solution.certificate.gap) < 1e-9
    assert ufm.nearest_etf(solution.classifier).relative_error < 1e-6


def test_fixed_norms_that_overshoot_have_no_certificate():
    """Where shorter features would be better, the multiplier is negative and nothing is proved."""
    problem = ufm.UFM(ufm.Unmixed(3).targets(), 3, 0.0, 0.0, LOSSES[1], feature_norm=4.0, row_norm=4.0)
    W = ufm.simplex_etf(3, 3, 4.0)
    found = ufm.certify(problem, W, W[problem.targets.labels.argmax(1)])
    assert found.lower_bound == -np.inf
    assert found.gap == np.inf


def test_points_within_the_tolerance_of_a_norm_keep_the_bound_valid():
    problem = ufm.UFM(ufm.Unmixed(4).targets(), 4, 0.0, 0.0, feature_norm=0.7, row_norm=0.9)
    W = ufm.simplex_etf(4, 4, 0.9)
    H = 0.7 / 0.9 * W[problem.targets.labels.argmax(1)]
    best = ufm.certify(problem, W, H).objective
    for a, b in itertools.product((1 - 1e-8, 1.0, 1 + 1e-8), repeat=2):
        assert ufm.certify(problem, a * W, b * H).lower_bound <= best + 1e-14


METHODS = ("lbfgs", "gradient_descent", "momentum", "adam")


@pytest.mark.parametrize("fields", [*CONSTRAINTS[1:5], {"bias_decay": 0.0}, {"bias_decay": 0.1}], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_methods_reach_the_same_objective(fields: dict[str, Any], loss: str):
    """From the same start; with a free classifier (fixed norms of rows) they share the basin as well."""
    rng = np.random.default_rng(4)
    # Longer features could reach the labels exactly, in a minimum that is flat.
    fields = {**fields, "feature_norm": 0.5} if "feature_norm" in fields else fields
    W = None if "row_norm" in fields else ufm.simplex_etf(3, 3).numpy() + 0.2 * rng.normal(size=(3, 3))
    problem = ufm.UFM(targets(rng, 3, 4), 3, 0.1, 0.2, loss, classifier=W, **fields)
    first = ufm.solve(problem, "lbfgs", tol=1e-9, seed=1)
    for name in METHODS:
        method = ufm.Adam(learning_rate=0.03, schedule="cosine") if name == "adam" else name
        solution = ufm.solve(problem, method, tol=1e-6, max_iter=1000 if name == "adam" else 20_000, seed=1)
        # The objective is too high by the square of the gradient over the curvature. Adam's steps are given, so that it
        # need not get to the tolerance; the others do.
        assert solution.gradient_norm < (1e-3 if name == "adam" else 1e-6)
        assert solution.objective == pytest.approx(first.objective, abs=1e-5 if name == "adam" else 1e-9)
        found = certify(problem, Point(solution.classifier, solution.features, solution.bias))
        assert found.objective == pytest.approx(solution.objective, abs=1e-13)
        assert found.gradient_norm == pytest.approx(solution.gradient_norm, abs=1e-13)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("fields", "named"),
    [({"nonnegative": True}, "nonnegative"), ({"feature_norm": 1.0}, "feature_norm"), ({"row_norm": 1.0}, "row_norm")],
)
def test_newton_refuses_constraints(fields: dict[str, Any], named: str):
    problem = ufm.UFM(ufm.Unmixed(3).targets(), 3, 0.1, 0.1, **fields)
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.solve(problem)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fields", [{"bias_decay": 0.0}, *CONSTRAINTS[1:4]], ids=str)
def test_the_relaxation_refuses_what_it_does_not_have(fields: dict[str, Any]):
    """Its value is that of the plain problem only."""
    problem = ufm.UFM(ufm.Unmixed(3).targets(), 3, 0.1, 0.1, **fields)
    with pytest.raises(ValueError, match="problem"):
        ufm.nuclear_norm_optimum(problem)


@given(problems(), strategies.seeds)
def test_gradient_in_the_vector_is_that_of_the_objective(problem: ufm.UFM, seed: int):
    variables = Variables(problem)
    # Rows of a fixed norm are directions: their vector may be of any length.
    x = variables.pack(point(problem, seed))
    rng = np.random.default_rng(seed)
    if not problem.nonnegative:
        x = x * rng.uniform(0.5, 2)
    # All features can come out on the boundary, where there is no two-sided difference.
    assume(bool(x.any()))
    state = variables.state(x)
    direction = torch.from_numpy(rng.normal(size=len(x)))
    step = 1e-5
    ends = [variables.state(x + s * step * direction).objective for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    size = abs(state.objective) + state.gradient.norm().item() * direction.norm().item() + 1
    # Differences lose eps F/step = 1e-11 F to rounding, and step^2 = 1e-10 times third derivatives to truncation.
    lengths = min(1.0, x.abs().max().item()) ** 3 * min(problem.targets.weights.min().item(), 1)
    assert slope == pytest.approx((state.gradient @ direction).item(), abs=1e-8 * size / lengths)


@pytest.mark.parametrize("fields", [*CONSTRAINTS, {"bias_decay": 0.0}, {"bias_decay": 0.1}], ids=str)
@pytest.mark.parametrize("fixed", [False, True])
def test_batch_gradients_average_to_the_gradient(fields: dict[str, Any], fixed: bool, monkeypatch: pytest.MonkeyPatch):
    """Over all draws of two targets out of three, each with its probability: exactly unbiased."""
    rng = np.random.default_rng(9)
    W = rng.normal(size=(3, 2)) if fixed and "row_norm" not in fields else None
    problem = ufm.UFM(targets(rng, 3, 3), 2, 0.1, 0.2, classifier=W, **fields)
    variables = Variables(problem, batch_size=2)
    x = 1.2 * variables.pack(point(problem, 3))
    total = torch.zeros_like(x)
    for draw in itertools.product(range(3), repeat=2):
        monkeypatch.setattr(torch, "multinomial", lambda *_, chosen=draw, **__: torch.tensor(chosen))
        share = problem.targets.weights[list(draw)].prod()
        total += share * variables.batch_gradient(x)
    torch.testing.assert_close(total, variables.state(x).gradient, rtol=1e-12, atol=1e-13)


def test_batches_are_drawn_with_the_weights_and_the_seed():
    rng = np.random.default_rng(9)
    problem = ufm.UFM(targets(rng, 3, 3), 2, 0.1, 0.2)
    variables = Variables(problem, batch_size=5, seed=4)
    x = variables.pack(point(problem, 3))
    draws = torch.stack([variables.batch_gradient(x) for _ in range(3000)])
    again = Variables(problem, batch_size=5, seed=4)
    assert torch.equal(draws[0], again.batch_gradient(x))
    # Five standard deviations of the mean, for a seed that is fixed.
    allowed = 5 * draws.std(0) / len(draws) ** 0.5 + 1e-12
    assert ((draws.mean(0) - variables.state(x).gradient).abs() <= allowed).all()
