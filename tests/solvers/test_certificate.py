import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import special

import ufm
from tests.helpers import oracles, strategies
from ufm.losses import LOSSES

losses = st.sampled_from(sorted(LOSSES))


@st.composite
def problems(draw: st.DrawFn, fixed: bool = False) -> ufm.UFM:
    """Return a UFM with random labels, weights, penalties and dimension: nothing symmetric about it."""
    rng = np.random.default_rng(draw(strategies.seeds))
    K, d, N = draw(st.integers(2, 6)), draw(st.integers(1, 7)), draw(st.integers(1, 9))
    targets = ufm.Targets(rng.dirichlet(np.full(K, 0.3), N), rng.dirichlet(np.ones(N)) * 0.9 + 0.1 / N)
    W = rng.normal(size=(K, d)) if fixed else None
    return ufm.UFM(targets, d, draw(strategies.decays), draw(strategies.decays), draw(losses), classifier=W)


def point(problem: ufm.UFM, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    K, N, d = problem.targets.num_classes, len(problem.targets), problem.dim
    W = rng.normal(size=(K, d)) if problem.classifier is None else np.asarray(problem.classifier)
    return scale * W if problem.classifier is None else W, scale * rng.normal(size=(N, d))


@given(problems(), strategies.seeds, st.floats(-3, 2))
def test_gap_is_never_negative_and_the_bound_is_below_any_other_point(problem: ufm.UFM, seed: int, exponent: float):
    first = ufm.certify(problem, *point(problem, seed, 10.0**exponent))
    second = ufm.certify(problem, *point(problem, seed + 1, 0.3))
    assert first.gap >= -1e-13 * max(1, first.objective)
    assert first.lower_bound <= second.objective + 1e-13
    assert first.gap == pytest.approx(first.objective - first.lower_bound)


@given(problems(), strategies.seeds)
def test_objective_and_gradient_agree_with_autograd(problem: ufm.UFM, seed: int):
    W, H = (torch.from_numpy(x).requires_grad_() for x in point(problem, seed))
    pi, y = problem.targets.weights, problem.targets.labels
    losses = problem.loss_function.value(H @ W.T, y)
    objective = (
        pi @ (losses + problem.feature_decay / 2 * H.square().sum(1)) + problem.weight_decay / 2 * W.square().sum()
    )
    dW, dH = torch.autograd.grad(objective, (W, H))
    certificate = ufm.certify(problem, W.detach(), H.detach())
    assert certificate.objective == pytest.approx(objective.item(), rel=1e-12)
    assert certificate.classifier_residual == pytest.approx(dW.norm().item(), rel=1e-9)
    feature_norm = (dH / pi.sqrt()[:, None]).norm().item()
    assert certificate.feature_residual == pytest.approx(feature_norm, rel=1e-9)
    assert certificate.gradient_norm == pytest.approx(math.hypot(dW.norm().item(), feature_norm), rel=1e-9)


@given(problems(fixed=True), strategies.seeds)
def test_fixed_classifier_gap_and_error_bound(problem: ufm.UFM, seed: int):
    certificate = ufm.certify(problem, *point(problem, seed))
    best = ufm.solve(problem, "lbfgs", tol=1e-11, max_iter=3000)
    gap, error = certificate.gap, certificate.feature_error
    assert error is not None
    # Both sides of the proof: the optimum is above the lower bound, and the features within the error bound.
    assert best.objective >= certificate.lower_bound - 1e-12 * max(1, certificate.objective)
    assert gap >= 0
    _, H = point(problem, seed)
    distance = (torch.from_numpy(H) - best.features).norm(dim=1).max().item()
    assert distance <= error * (1 + 1e-9) + (best.certificate.feature_error or 0)


@given(strategies.classes, st.floats(0.2, 5), st.floats(-5, 0).map(lambda e: 10.0**e), losses)
def test_gap_vanishes_at_the_closed_form(K: int, alpha: float, product: float, loss: str):
    law, nodes = ufm.Mixup(K, alpha), 5
    optimum = ufm.joint_optimum(law, product, 1.0, loss, nodes=nodes)
    targets = law.targets(nodes)
    problem = ufm.UFM(targets, K, product, 1.0, loss)
    certificate = ufm.certify(problem, optimum.classifier(), optimum.response(targets.labels).features)
    assert abs(certificate.gap) < 1e-13
    assert certificate.gradient_norm < 1e-12


@pytest.mark.parametrize("product", [1e-4, 3e-3, 0.5])
def test_bound_against_the_conic_solver(product: float):
    rng = np.random.default_rng(3)
    labels, weights = rng.dirichlet(np.full(3, 0.4), 6), rng.dirichlet(np.ones(6))
    problem = ufm.UFM(ufm.Targets(labels, weights), 6, product, 1.0)
    solution = ufm.solve(problem, "lbfgs", tol=1e-11)
    expected, status = oracles.nuclear_norm_optimum(labels, weights, product, 1.0)
    assert status == "optimal"
    assert solution.objective == pytest.approx(expected, abs=2e-7)
    assert solution.certificate.lower_bound == pytest.approx(expected, abs=2e-7)


def test_certificate_is_invariant_under_splitting_a_target_and_rotating():
    rng = np.random.default_rng(0)
    W, H = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    labels = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    whole = ufm.certify(ufm.UFM(ufm.Targets(labels, np.array([0.4, 0.6])), 4, 0.1, 0.2), W, H)
    split = ufm.Targets(labels[[0, 1, 1]], np.array([0.4, 0.1, 0.5]))
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    parts = ufm.certify(ufm.UFM(split, 4, 0.1, 0.2), W @ rotation, H[[0, 1, 1]] @ rotation)
    for name in ("objective", "lower_bound", "gap", "gradient_norm"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 0}, "dim"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": 0.0}, "weight_decay"),
        ({"feature_decay": 0.0}, "feature_decay"),
        ({"feature_decay": float("nan")}, "feature_decay"),
        ({"targets": np.eye(3)}, "targets"),
        ({"classifier": np.ones((4, 4))}, "classifier"),
        ({"classifier": np.full((3, 4), np.nan)}, "classifier"),
        ({"classifier": np.ones((3, 4)), "weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_bad_problems_are_named(change: dict, named: str):
    good = {"targets": ufm.Mixup(3).targets(2), "dim": 4, "weight_decay": 0.1, "feature_decay": 0.1}
    ufm.UFM(**good)
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.UFM(**{**good, **change})


@pytest.mark.usefixtures("unchecked")
def test_bad_points_are_named():
    problem = ufm.UFM(ufm.Targets(np.eye(3)), 4, 0.1, 0.1)
    for W, H, named in (
        (np.ones((3, 3)), np.ones((3, 4)), "classifier"),
        (np.ones((3, 4)), np.ones((2, 4)), "features"),
        (np.ones((3, 4)), np.full((3, 4), np.nan), "features"),
    ):
        with pytest.raises(ValueError, match=f"^{named}"):
            ufm.certify(problem, W, H)
    fixed = ufm.UFM(ufm.Targets(np.eye(3)), 4, 0.1, 0.1, classifier=np.ones((3, 4)))
    with pytest.raises(ValueError, match="classifier"):
        ufm.certify(fixed, 2 * np.ones((3, 4)), np.ones((3, 4)))


@given(problems(), strategies.seeds)
def test_balancedness_vanishes_at_stationary_points_only(problem: ufm.UFM, seed: int):
    W, H = point(problem, seed)
    away = ufm.certify(problem, W, H)
    assert away.balancedness is not None
    one = problem.weight_decay * W.T @ W
    other = problem.feature_decay * (H.T * problem.targets.weights.numpy()) @ H
    norms = np.linalg.norm(one) + np.linalg.norm(other)
    assert away.balancedness == pytest.approx(np.linalg.norm(one - other) / norms)
    solution = ufm.solve(problem, tol=1e-9, max_iter=2000)
    if solution.converged and solution.classifier.norm() > 1e-3:
        assert (solution.certificate.balancedness or 0) < 1e-5


@pytest.mark.parametrize("size", [1e-3, 1e-2, 3e-2])
@given(seed=strategies.seeds, loss=losses, data=st.data())
def test_bound_stays_below_the_optimum_near_it(size: float, seed: int, loss: str, data: st.DataObject):
    """Near the optimum the bound is close to it, so that a factor in the wrong place would push it above."""
    law = ufm.Mixup(data.draw(st.integers(3, 5)), 1.0)
    optimum = ufm.joint_optimum(law, 0.02, 0.03, loss, nodes=3)
    targets = law.targets(3)
    problem = ufm.UFM(targets, 6, 0.02, 0.03, loss)
    rng = np.random.default_rng(seed)
    W = optimum.classifier(6).numpy()
    H = np.asarray(optimum.response(targets.labels, 6).features)
    shrink = data.draw(st.sampled_from([1.0, 1 - size, 1 + size]))
    certificate = ufm.certify(
        problem,
        shrink * W * (1 + size * rng.normal(size=W.shape) * data.draw(st.booleans())),
        shrink * H * (1 + size * rng.normal(size=H.shape) * data.draw(st.booleans())),
    )
    assert certificate.lower_bound <= optimum.objective + 1e-14
    assert certificate.lower_bound >= optimum.objective - 10 * size


@given(problems(fixed=True), strategies.seeds)
def test_fixed_classifier_gap_is_the_fenchel_gap(problem: ufm.UFM, seed: int):
    """Against the dual value itself: dual(q - y) - ||W^T (q - y)||^2 / (2 lambda_H) at q the prediction."""
    W, H = point(problem, seed)
    certificate = ufm.certify(problem, W, H)
    y, pi = problem.targets.labels.numpy(), problem.targets.weights.numpy()
    z = H @ W.T
    if problem.loss == "cross_entropy":
        q = special.softmax(z, 1)
        primal, conjugate = special.logsumexp(z, 1) - (y * z).sum(1), -special.entr(q).sum(1)
    else:
        q = z + 1 / y.shape[1]
        primal = ((q - y) ** 2).sum(1) / 2
        conjugate = ((q - y) ** 2).sum(1) / 2 + ((q - y) * (y - 1 / y.shape[1])).sum(1)
    penalty = problem.weight_decay / 2 * (W**2).sum()
    objective = pi @ (primal + problem.feature_decay / 2 * (H**2).sum(1)) + penalty
    dual = pi @ (-conjugate - (((q - y) @ W) ** 2).sum(1) / (2 * problem.feature_decay)) + penalty
    assert certificate.objective == pytest.approx(objective, rel=1e-12)
    assert certificate.lower_bound == pytest.approx(dual, rel=1e-9, abs=1e-9 * abs(objective))
    assert certificate.gap == pytest.approx(objective - dual, rel=1e-6, abs=1e-10 * (abs(objective) + abs(dual)))
    gradients = np.linalg.norm((q - y) @ W + problem.feature_decay * H, axis=1)
    assert certificate.feature_error == pytest.approx(gradients.max() / problem.feature_decay, rel=1e-9)


def test_labels_that_sum_to_one_in_half_the_digits_keep_the_bound_valid():
    for dtype, off in ((torch.float32, 3e-4), (torch.float64, 1e-8)):
        targets = ufm.Targets(torch.eye(3, dtype=dtype) * (1 + off))
        assert torch.equal(targets.labels, torch.eye(3, dtype=dtype))
        solution = ufm.solve(ufm.UFM(targets, 3, 1e-5, 1e-5), dtype=dtype, max_iter=2000)
        assert solution.certificate.gap > -1e-6 if dtype == torch.float32 else -1e-13


def test_mixed_precision_points_are_not_cast_down():
    problem = ufm.UFM(ufm.Targets(torch.eye(3, dtype=torch.float64)), 3, 0.05, 0.05)
    solution = ufm.solve(problem, tol=1e-12)
    assert abs(ufm.certify(problem, solution.classifier, solution.features).gap) < 1e-12
    single = ufm.certify(problem, solution.classifier.float(), solution.features)
    double = ufm.certify(problem, solution.classifier.float().double(), solution.features)
    assert single == double
