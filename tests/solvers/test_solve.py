import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import ufm
from tests.helpers import strategies
from ufm.solvers import METHODS, descent
from ufm.solvers.elimination import linear_response
from ufm.solvers.lbfgs import LBFGS
from ufm.solvers.reduced import Reduced

LAW, NODES = ufm.Mixup(5), 9
PROBLEM = ufm.UFM(LAW.targets(NODES), 8, 0.02, 0.02)
OPTIMUM = 0.595857985966592
# Adam at a constant rate ends in a cycle whose size is the rate's; it has tests of its own.
EXACT = [name for name in METHODS if name != "adam"]


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_free_classifier_reaches_the_known_optimum(method: str, seed: int):
    solution = ufm.solve(PROBLEM, method, seed=seed, tol=1e-12)
    assert solution.converged
    assert solution.message is ufm.Message.CONVERGED
    assert abs(solution.objective - OPTIMUM) < 1e-12
    assert abs(solution.certificate.gap) < 1e-11
    etf = ufm.nearest_etf(solution.classifier)
    gram, ideal = (w @ w.T for w in (solution.classifier, torch.as_tensor(etf.classifier)))
    assert (gram - ideal).abs().max() < 1e-6
    assert etf.multiplier == pytest.approx(1.2440696672631277, rel=1e-9)


@pytest.mark.parametrize("method", EXACT)
@settings(max_examples=8)
@given(seed=strategies.seeds, decay=st.floats(-2.5, 0).map(lambda e: 10.0**e))
def test_fixed_etf_reaches_the_closed_form(method: str, seed: int, decay: float):
    W = ufm.simplex_etf(4, 5, 1.2, generator=torch.Generator().manual_seed(seed % 100))
    targets = ufm.Mixup(4).targets(3)
    solution = ufm.solve(ufm.UFM(targets, 5, 0.0, decay, classifier=W), method, seed=seed, tol=1e-10)
    assert solution.converged
    expected = torch.as_tensor(ufm.fixed_classifier(W, targets.labels, decay).features)
    error = (solution.features - expected).norm(dim=1).max().item()
    assert error <= (solution.certificate.feature_error or 0) + 1e-12
    assert torch.equal(solution.classifier, W)


def test_mean_squared_error_reaches_the_closed_form():
    law = ufm.Mixup(4, 0.5)
    optimum = ufm.joint_optimum(law, 0.03, 0.02, "mean_squared_error", nodes=4)
    solution = ufm.solve(ufm.UFM(law.targets(4), 6, 0.03, 0.02, "mean_squared_error"), tol=1e-12)
    assert solution.objective == pytest.approx(optimum.objective, rel=1e-12)
    assert abs(solution.certificate.gap) < 1e-12


def test_above_the_threshold_everything_collapses():
    solution = ufm.solve(ufm.UFM(ufm.Mixup(3).targets(3), 4, 1.0, 1.0), tol=1e-12)
    assert solution.converged
    assert solution.objective == pytest.approx(math.log(3), rel=1e-14)
    assert solution.classifier.abs().max() < 1e-11


@pytest.mark.parametrize("method", EXACT)
def test_narrow_and_unbalanced_problems_converge(method: str):
    labels = np.eye(5)[[0, 0, 1, 2, 3, 4]] * 0.8 + 0.04
    weights = np.array([0.4, 0.2, 0.2, 0.1, 0.05, 0.05])
    solution = ufm.solve(ufm.UFM(ufm.Targets(labels, weights), 2, 0.01, 0.01), method, tol=1e-9, max_iter=20_000)
    assert solution.converged
    assert solution.certificate.gap > 1e-4  # two dimensions are too few for five classes: the bound is not tight


def test_same_seed_same_numbers_and_another_seed_another_start():
    first, again, other = (ufm.solve(PROBLEM, seed=s, max_iter=5) for s in (0, 0, 1))
    assert torch.equal(first.features, again.features)
    assert not torch.equal(first.features, other.features)


def test_history_and_iteration_limit():
    solution = ufm.solve(PROBLEM, "gradient_descent", max_iter=20, record=5)
    assert not solution.converged
    assert solution.message is ufm.Message.MAX_ITER
    assert solution.iterations == 20
    np.testing.assert_array_equal(solution.history.iteration, [0, 5, 10, 15, 20])
    assert (np.diff(solution.history.objective) < 0).all()
    assert (solution.history.gap > 0).all()
    assert solution.history.gradient_norm[-1] == solution.gradient_norm
    for method in METHODS:
        start = ufm.solve(PROBLEM, method, max_iter=0)
        assert start.iterations == 0
        assert len(start.history.iteration) == 1


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_too_tight_a_tolerance_stalls_and_says_so(method: str):
    solution = ufm.solve(PROBLEM, method, tol=1e-30, max_iter=2000)
    assert not solution.converged
    assert solution.message in (ufm.Message.STALLED, ufm.Message.MAX_ITER)
    assert abs(solution.objective - OPTIMUM) < 1e-14


def test_interruption_returns_the_best_so_far(monkeypatch: pytest.MonkeyPatch):
    calls = 0
    original = ufm.UFM.evaluate

    def evaluate(self: ufm.UFM, W: torch.Tensor, scaled: torch.Tensor, bias: torch.Tensor | None = None):
        nonlocal calls
        calls += 1
        if calls == 30:
            raise KeyboardInterrupt
        return original(self, W, scaled, bias)

    monkeypatch.setattr(ufm.UFM, "evaluate", evaluate)
    solution = ufm.solve(PROBLEM, "gradient_descent")
    assert solution.message is ufm.Message.INTERRUPTED
    assert not solution.converged
    assert math.isfinite(solution.objective)


def test_float32_reaches_its_own_accuracy():
    solution = ufm.solve(PROBLEM, dtype=torch.float32)
    assert solution.converged
    assert solution.features.dtype == torch.float32
    assert solution.objective == pytest.approx(OPTIMUM, rel=1e-5)


class Rosenbrock:
    """The Rosenbrock function; `bounded` keeps both coordinates non-negative."""

    batches = 1

    def __init__(self, bounded: bool = False) -> None:
        self.bounded = bounded

    def state(self, point: torch.Tensor) -> descent.State:
        with torch.enable_grad():
            x = point.clone().requires_grad_()
            value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
            gradient = torch.autograd.grad(value, x)[0]
        norm = gradient.norm() if not self.bounded else torch.where(point > 0, gradient, gradient.clamp(max=0)).norm()
        return descent.State(point, gradient, torch.stack([value.detach(), norm]))

    def project(self, point: torch.Tensor) -> torch.Tensor:
        return point.clamp(min=0) if self.bounded else point

    def free(self, state: descent.State) -> torch.Tensor | None:
        return 1 - ((state.point <= 0) & (state.gradient >= 0)).to(state.point) if self.bounded else None

    def batch_gradient(self, point: torch.Tensor) -> torch.Tensor:
        return self.state(point).gradient


@pytest.mark.parametrize("bounded", [False, True])
def test_lbfgs_on_the_rosenbrock_function(bounded: bool):
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64).clamp(min=0 if bounded else -10)
    state = None
    for iteration, state in enumerate(LBFGS().states(Rosenbrock(bounded), start, 100)):
        if state.gradient_norm < 1e-10:
            break
        assert iteration < 100
    assert state is not None
    torch.testing.assert_close(state.point, torch.ones(2, dtype=torch.float64))


def test_steps_are_judged_by_slope_where_the_objective_is_all_rounding():
    def state(objective: float) -> descent.State:
        figures = torch.tensor([objective, 1.0], dtype=torch.float64)
        return descent.State(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), figures)

    start = state(1.0)
    assert descent.accepts(start, state(0.5), -1.0, -0.5, 1.0)
    assert not descent.accepts(start, state(1.5), -1.0, 0.0, 1.0)
    # No measurable decrease: accepted if the slope has not turned too far, and the objective not risen for real.
    assert descent.accepts(start, state(1.0), -1e-20, 0.5e-20, 1.0)
    assert not descent.accepts(start, state(1.0), -1e-20, 0.9e-20, 1.0)
    assert not descent.accepts(start, state(1.0 + 1e-12), -1e-20, 0.0, 1.0)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("method", METHODS)
def test_gpu_agrees_with_cpu(method: str):
    gpu, cpu = (ufm.solve(PROBLEM, method, tol=1e-9, device=device) for device in ("cuda", "cpu"))
    assert gpu.features.is_cuda
    assert gpu.objective == pytest.approx(cpu.objective, rel=1e-13)


@pytest.mark.cuda
@needs_cuda
def test_inner_iterations_on_the_gpu_do_not_wait_for_it():
    problem = PROBLEM.to("cuda", torch.float64)
    reduced = Reduced(problem, store=True, distributed=False)
    gram = reduced.gram(torch.randn(5, 5, dtype=torch.float64, device="cuda"), None)
    labels = problem.targets.labels
    curvature = gram.loss.curvature(torch.full_like(labels, 0.2))
    # An infinite interval between looks leaves the fixed number of iterations alone.
    blind = dataclasses.replace(gram, check_every=10**9)
    torch.cuda.set_sync_debug_mode("error")
    try:
        linear_response(blind, curvature, labels, labels.new_zeros(len(labels), 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"method": "newtonian"}, "method"),
        ({"tol": 0.0}, "tol"),
        ({"tol": "small"}, "tol"),
        ({"max_iter": -1}, "max_iter"),
        ({"record": -1}, "record"),
        ({"dtype": torch.float16}, "dtype"),
        ({"device": "abacus"}, "device"),
        ({"device": "meta"}, "device"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.solve(PROBLEM, **arguments)


def test_an_unfinished_solve_returns_its_lowest_point_and_a_true_history():
    problem = ufm.UFM(ufm.Mixup(10).targets(3), 16, 1e-4, 1e-4)
    objectives = [ufm.solve(problem, "lbfgs", max_iter=n).objective for n in range(6)]
    assert objectives == sorted(objectives, reverse=True)
    whole = ufm.solve(problem, "lbfgs", max_iter=5, record=1)
    np.testing.assert_array_equal(whole.history.iteration[:6], range(6))
    np.testing.assert_allclose(whole.history.objective[:6], objectives, rtol=1e-14)
    assert whole.objective == whole.history.objective.min()


def test_numbers_that_are_not_finite_end_the_solve():
    labels = torch.eye(3, dtype=torch.float64)
    problem = ufm.UFM(ufm.Targets(labels), 3, 1e300, 1e300)
    solution = ufm.solve(problem, max_iter=10)
    assert not solution.converged
    assert solution.message in (ufm.Message.NOT_FINITE, ufm.Message.STALLED)


def test_default_tolerance_is_that_of_the_dtype():
    assert 1e-12 < ufm.solve(PROBLEM, "lbfgs").gradient_norm <= 1e-10
    assert 1e-10 < ufm.solve(PROBLEM, "lbfgs", dtype=torch.float32).gradient_norm <= 1.1e-5


def test_lbfgs_needs_far_fewer_iterations_than_gradient_descent():
    fast, slow = (ufm.solve(PROBLEM, method, tol=1e-10).iterations for method in ("lbfgs", "gradient_descent"))
    assert fast < slow / 3
