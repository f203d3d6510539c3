"""Newton's method with the features eliminated: every part against dense algebra, SciPy or the plain problem."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from scipy import special

import ufm
from tests.helpers import oracles, strategies
from ufm.losses import SoftmaxCurvature, get_loss
from ufm.solvers import newton, reduced as reduced_module
from ufm.solvers.elimination import Gram, linear_response, response
from ufm.solvers.merging import merge_equal_labels
from ufm.solvers.method import Point, SolveOptions
from ufm.solvers.reduced import Reduced

EPS = float(np.finfo(float).eps)
losses = strategies.losses
small_decays = st.floats(-6, 0).map(lambda exponent: 10.0**exponent)
biases = st.sampled_from([None, 0.0, 0.3])


def classifier(rng: np.random.Generator, K: int, d: int, spread: float) -> torch.Tensor:
    """Return a classifier whose singular values fall from about one by the factor 10^-spread."""
    u, _, v = np.linalg.svd(rng.normal(size=(K, d)), full_matrices=False)
    return torch.from_numpy(u * 10.0 ** (-spread * np.linspace(0, 1, min(K, d))) @ v) * (0.3 + 3 * rng.random())


def soft_labels(rng: np.random.Generator, N: int, K: int) -> torch.Tensor:
    """Return labels, some of them one-hot."""
    y = rng.dirichlet(np.full(K, 0.4), N)
    y[::2] = np.eye(K)[rng.integers(K, size=len(y[::2]))]
    return torch.from_numpy(y)


@st.composite
def problems(draw: st.DrawFn, fixed: bool | None = None) -> ufm.UFM:
    """Return a random problem that the features can be eliminated from, and whose infimum is attained."""
    rng = np.random.default_rng(draw(strategies.seeds))
    K, d, N = draw(st.integers(2, 5)), draw(st.integers(1, 7)), draw(st.integers(2, 8))
    # A free bias would send the logit of a class that no label has to minus infinity.
    labels = 0.95 * soft_labels(rng, N, K) + 0.05 / K
    targets = ufm.Targets(labels, rng.dirichlet(np.ones(N)) * 0.9 + 0.1 / N)
    W = rng.normal(size=(K, d)) if (draw(st.booleans()) if fixed is None else fixed) else None
    decays = draw(st.floats(-3, 0)), draw(st.floats(-3, 0))
    return ufm.UFM(targets, d, 10 ** decays[0], 10 ** decays[1], draw(losses), classifier=W, bias_decay=draw(biases))


def start(problem: ufm.UFM, seed: int) -> Point:
    rng = np.random.default_rng(seed)
    K = problem.targets.num_classes
    W = torch.from_numpy(rng.normal(size=(K, problem.dim)))
    b = torch.from_numpy(rng.normal(size=K)) if problem.has_bias else None
    return Point(W if problem.classifier is None else torch.as_tensor(problem.classifier), None, b)


def state_of(problem: ufm.UFM, seed: int) -> newton.Eliminated:
    variables = newton._Variables(problem, start(problem, seed))
    return variables.evaluate(Reduced(problem, store=True, distributed=False), variables.start, 1e-13)


@given(st.integers(2, 8), strategies.seeds, small_decays, losses, st.floats(0, 3), st.floats(0, 6))
@example(K=5, seed=9, decay=1e-6, loss="cross_entropy", spread=1.0, sharpness=3.0)
def test_linear_response_against_a_dense_solve(
    K: int, seed: int, decay: float, loss: str, spread: float, sharpness: float
):
    rng = np.random.default_rng(seed)
    W = classifier(rng, K, K - seed % 2, spread)
    M = W @ W.T
    p = torch.softmax(torch.from_numpy(sharpness * rng.normal(size=(3, K))), 1)
    v = torch.from_numpy(rng.normal(size=(3, K)))
    gram = Gram(M, torch.zeros(K, dtype=torch.float64), decay, get_loss(loss))
    curvature = gram.loss.curvature(p)
    c = gram.scale
    first = (curvature.apply(v) * curvature.resolvent(decay, c)(v)).sum(1, keepdim=True)
    x = linear_response(gram, curvature, v, 1e-20 * first)
    for row in range(3):
        S = torch.diag(p[row]) - torch.outer(p[row], p[row])
        S = S if loss == "cross_entropy" else torch.eye(K, dtype=torch.float64)
        system = decay * torch.eye(K, dtype=torch.float64) + S @ M
        # The preconditioner is at most decay + c, so that what is left is 1e-10 sqrt(first (decay + c)), and rounding.
        size = torch.linalg.matrix_norm(M, 2) + decay
        allowed = 1e-10 * (first[row, 0] * (decay + c)).sqrt() + 200 * EPS * (size * x[row].norm() + v[row].norm())
        assert (system @ x[row] - S @ v[row]).norm() <= allowed
        expected = torch.linalg.solve(system, S @ v[row])
        error = allowed * torch.linalg.matrix_norm(torch.linalg.inv(system), 2)
        assert (x[row] - expected).norm() <= 2 * error


@given(st.integers(2, 8), strategies.seeds, st.floats(-12, 0), st.floats(0, 12))
def test_resolvent_is_the_inverse(K: int, seed: int, exponent: float, sharpness: float):
    rng = np.random.default_rng(seed)
    p = torch.softmax(torch.from_numpy(sharpness * rng.normal(size=(1, K))), 1)
    decay, c = 10.0**exponent, torch.tensor(rng.uniform(0.1, 5))
    invert = SoftmaxCurvature(p).resolvent(decay, c.double())
    v = torch.from_numpy(rng.normal(size=(1, K)))
    r = invert(v)
    image = decay * r + c * SoftmaxCurvature(p).apply(r)
    assert (image - v).norm() <= 50 * EPS * ((decay + c) * r.norm() + v.norm())
    # The ones vector, S's kernel, is an eigenvector; a denominator that cancels would lose digits of 1/decay.
    assert (decay * invert(torch.ones_like(v)) - 1).abs().max() < 50 * K * EPS


@given(st.integers(2, 8), strategies.seeds, small_decays, losses, st.floats(0, 3), st.integers(1, 10), st.booleans())
@example(K=8, seed=1, decay=1e-6, loss="cross_entropy", spread=3.0, d=8, cold=False)
@example(K=8, seed=2, decay=1e-6, loss="cross_entropy", spread=0.0, d=3, cold=True)
# Needs more than 200 inner steps.
@example(K=6, seed=3, decay=5.298016311154341e-06, loss="cross_entropy", spread=0.0, d=3, cold=True)
def test_response_is_that_of_the_fixed_classifier(
    K: int, seed: int, decay: float, loss: str, spread: float, d: int, cold: bool
):
    rng = np.random.default_rng(seed)
    W, y = classifier(rng, K, d, spread), soft_labels(rng, 5, K)
    b = torch.from_numpy(rng.normal(size=K))
    problem = ufm.UFM(ufm.Targets(y), d, 0.1, decay, loss, bias_decay=0.0)
    reduced = Reduced(problem, store=True, distributed=False)
    gram = reduced.gram(W, b)
    first = reduced.first_duals(gram, y) if cold else torch.zeros_like(y)
    found = response(gram, y, first, 1e-10)
    h = found.dual @ W
    gradient = get_loss(loss).residual(h @ W.T + b + problem.offset, y) @ W + decay * h
    # Rounding of the logits M a is that of their largest term.
    length = torch.linalg.matrix_norm(W, 2)
    floor = 50 * EPS * length * (1 + (length**2 * found.dual.norm(dim=1) + found.logits.norm(dim=1)))
    assert (gradient.norm(dim=1) <= 1e-10 + floor).all()
    assert ((found.squared_residual.sqrt() - gradient.norm(dim=1)).abs() <= 1e-10 + floor).all()
    expected = ufm.fixed_classifier(W, y, decay, loss, bias=b)
    # Strong convexity: both gradients together bound the distance.
    distance = (h - torch.as_tensor(expected.features)).norm(dim=1)
    rounding = 20 * EPS * length / decay
    assert (distance <= (gradient.norm(dim=1) + torch.as_tensor(expected.residual)) / decay + rounding).all()


@pytest.mark.parametrize("K", [2, 4])
def test_response_against_scipy(K: int):
    rng = np.random.default_rng(K)
    W, y, b = rng.normal(size=(K, 3)), soft_labels(rng, 4, K), rng.normal(size=K)
    problem = ufm.UFM(ufm.Targets(y), 3, 0.1, 0.01, bias_decay=0.0)
    gram = Reduced(problem, store=True, distributed=False).gram(torch.from_numpy(W), torch.from_numpy(b))
    h = response(gram, y, torch.zeros_like(y), 1e-13).dual.numpy() @ W
    for row in range(4):
        np.testing.assert_allclose(h[row], oracles.optimal_feature(W, y[row].numpy(), 0.01, b), rtol=0, atol=1e-9)


@settings(max_examples=30)
@given(problems(), strategies.seeds)
def test_reduced_gradient_and_hessian_product(problem: ufm.UFM, seed: int):
    """Against automatic differentiation through the implicit response, which shares no code with the elimination."""
    at = state_of(problem, seed)
    variables, point = at.variables, start(problem, seed)
    W = point.classifier.clone().requires_grad_()
    b = None if point.bias is None else point.bias.clone().requires_grad_()
    unknowns = [x for x, free in ((W, problem.classifier is None), (b, problem.has_bias)) if free]
    if not unknowns:
        assert not at.gradient.any()
        return
    y, pi = problem.targets.labels, problem.targets.weights
    h = torch.as_tensor(ufm.fixed_classifier(W, y, problem.feature_decay, problem.loss, bias=b).features)
    z = h @ W.T if b is None else h @ W.T + b + problem.offset
    objective = pi @ (problem.loss_function.value(z, y) + problem.feature_decay / 2 * h.square().sum(1))
    objective = objective + problem.weight_decay / 2 * W.square().sum()
    objective = objective if b is None else objective + (problem.bias_decay or 0.0) / 2 * b.square().sum()
    assert at.objective == pytest.approx(objective.item(), rel=1e-12)
    gradients = torch.autograd.grad(objective, unknowns, create_graph=True)

    direction = torch.from_numpy(np.random.default_rng(seed).normal(size=at.x.shape)) * variables.mask
    rows, column = variables.split(direction)
    basis = torch.eye(problem.dim, dtype=torch.float64) if variables.basis is None else variables.basis
    along = [x for x, free in ((rows @ basis, problem.classifier is None), (column, problem.has_bias)) if free]
    slope = sum((g * v).sum() for g, v in zip(gradients, along, strict=True))
    images = torch.autograd.grad(slope, unknowns)
    product = variables.product(at, direction, 1e-10)
    for found, expected in ((at.gradient, gradients), (product, images)):
        left = list(expected)
        wanted = torch.zeros_like(found)
        if problem.classifier is None:
            wanted[:, :-1] = left.pop(0) @ basis.T
        if problem.has_bias:
            wanted[:, -1] = left.pop(0)
        assert (found - wanted).norm() <= 1e-8 * (1 + wanted.norm())


@given(problems(fixed=False), strategies.seeds)
def test_balancing_never_raises_the_objective(problem: ufm.UFM, seed: int):
    before = state_of(problem, seed)
    after = before.variables.balanced(before)
    # Features that are not quite optimal cost at most the square of their gradient over twice the penalty.
    excess = after.reduction.feature_residual**2 / (2 * problem.feature_decay)
    assert after.objective <= before.objective + excess + 1e-13 * abs(before.objective)
    # The step ends where penalty and nuclear norm agree: a second one changes nothing but the features.
    moment, gram = before.reduction.second_moment, before.reduction.gram.matrix
    # As many as the logits' rank allows: the roots of what rounding leaves of the others are not small.
    squares = torch.linalg.eigvalsh(gram @ moment @ gram)[-problem.dim :].clamp(min=0)
    penalty = (problem.weight_decay * after.reduction.gram.matrix.trace()).item()
    scale = (problem.weight_decay * problem.feature_decay) ** 0.5
    assert penalty == pytest.approx(scale * squares.sqrt().sum().item(), rel=1e-6, abs=1e-12)


@given(problems(fixed=False), strategies.seeds, st.floats(0, 1))
def test_reduced_function_is_convex_in_the_gram_matrix(problem: ufm.UFM, seed: int, share: float):
    reduced = Reduced(problem, store=True, distributed=False)
    ends = [start(problem, s) for s in (seed, seed + 1)]
    between = torch.cat([(1 - share) ** 0.5 * ends[0].classifier, share**0.5 * ends[1].classifier], 1)
    factors = between, ends[0].classifier, ends[1].classifier
    values = [reduced.evaluate(reduced.gram(factor, ends[0].bias), 1e-12).value for factor in factors]
    excess = 1e-24 / problem.feature_decay + 1e-12
    assert values[0] <= (1 - share) * values[1] + share * values[2] + excess


def _same(one: ufm.Solution, other: ufm.Solution) -> None:
    """Compare two solves of one problem that end at tolerance 1e-11."""
    assert one.converged
    assert other.converged
    assert one.objective == pytest.approx(other.objective, abs=1e-13)
    # W W^T is unique; errors in it go with the gradient over the curvature.
    first, second = (s.classifier @ s.classifier.T for s in (one, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("bias_decay", [None, 0.2])
def test_merged_equal_labels_give_the_unmerged_answer(loss: str, bias_decay: float | None):
    rng = np.random.default_rng(3)
    labels = soft_labels(rng, 5, 3)[rng.integers(5, size=14)]
    targets = ufm.Targets(labels, rng.dirichlet(np.full(14, 3.0)))
    problem = ufm.UFM(targets, 4, 0.02, 0.03, loss, bias_decay=bias_decay)
    merged, inverse = merge_equal_labels(problem)
    assert len(merged.targets) == len(labels.unique(dim=0)) < 14
    assert torch.equal(merged.targets.labels[inverse], targets.labels)
    whole = ufm.solve(problem, tol=1e-11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton, "merge_equal_labels", lambda problem: (problem, None))
        apart = ufm.solve(problem, tol=1e-11)
    _same(whole, apart)
    for first, second in ((0, 0), *((i, j) for i in range(14) for j in range(i) if torch.equal(labels[i], labels[j]))):
        assert torch.equal(whole.features[first], whole.features[second])


def test_merging_keeps_weights_that_sum_to_one_only_nearly():
    """Weights may be off by the root of the precision: what is minimised has to be what is certified."""
    labels = np.eye(3)[[0, 0, 1, 2]]
    problem = ufm.UFM(ufm.Targets(labels, np.array([0.2, 0.3, 0.3, 0.2 + 1e-8])), 3, 0.01, 0.01)
    solution = ufm.solve(problem, tol=1e-11)
    assert solution.converged
    assert solution.certificate.gradient_norm <= 1e-11


def test_subsets_give_the_answer_of_all_targets_at_once():
    rng = np.random.default_rng(1)
    targets = ufm.Targets(rng.dirichlet(np.full(3, 0.5), 500), rng.dirichlet(np.full(500, 5.0)))
    problem = ufm.UFM(targets, 4, 0.02, 0.03)
    subsets = newton._subsets(problem, True, SolveOptions(100, 0, 1e-10))
    assert [sum(len(rows) for rows in subset.blocks) for subset in subsets] == [62]
    assert sum(weights.sum() for _, _, weights in subsets[0]._blocks()) == pytest.approx(1)
    _same(ufm.solve(problem, tol=1e-11), ufm.solve(problem, ufm.Newton(subsets=False), tol=1e-11))


@settings(max_examples=20)
@given(problems(), st.integers(0, 99))
def test_streaming_gives_the_same_optimum_and_a_bound_close_below(problem: ufm.UFM, seed: int):
    K = problem.targets.num_classes
    problem = problem if problem.classifier is not None else dataclasses.replace(problem, dim=max(problem.dim, K))
    with pytest.MonkeyPatch.context() as patch:
        # Several blocks, the last one shorter.
        patch.setattr(reduced_module, "_CPU_BLOCK", 3 * K)
        stored, streamed = (ufm.solve(problem, tol=1e-8, seed=seed, max_iter=200, stream=s) for s in (False, True))
    assert streamed.stored_features is None
    assert stored.converged
    assert streamed.converged
    assert streamed.objective == pytest.approx(stored.objective, abs=1e-12)
    one, other = streamed.certificate, stored.certificate
    assert one.lower_bound <= streamed.objective + 1e-13
    # The solves end at different points, each with a gradient of 1e-8, which the bounds follow to first order.
    assert one.lower_bound == pytest.approx(other.lower_bound, abs=1e-5)
    for name in ("classifier_residual", "bias_residual"):
        assert (getattr(one, name) is None) == (getattr(other, name) is None)
    # At one and the same point the chord is below the curve. What a free bias's mean residual costs is only bounded.
    variables = newton._Variables(problem, Point(stored.classifier, None, stored.bias))
    at = variables.evaluate(Reduced(problem, store=True, distributed=False), variables.start, 1e-12)
    assert at.reduction.duals is not None
    features = at.reduction.duals[0].dual @ stored.classifier
    exact = ufm.certify(problem, stored.classifier, features, stored.bias).lower_bound
    chord = at.reduced.bound(at.reduction)
    assert exact - 1e-5 <= chord <= exact + (1e-7 if problem.bias_decay == 0 else 1e-11)


def test_a_collapsed_problem_with_a_bias_converges():
    """Where the classifier vanishes, the gradients in the features do not tell whether the dual vectors are right."""
    targets = ufm.Targets(np.array([[0.0, 1.0], [0.7, 0.3]]), np.array([0.6, 0.4]))
    solution = ufm.solve(ufm.UFM(targets, 2, 1.0, 1.0, bias_decay=0.3), tol=1e-10)
    assert solution.converged
    assert abs(solution.certificate.gap) < 1e-14
    assert solution.classifier.norm() < 1e-9


@given(strategies.seeds, biases, losses, st.floats(0, 1))
def test_bound_in_one_pass_is_below_every_point(seed: int, bias_decay: float | None, loss: str, share: float):
    """Away from the optimum too, where the mean residual of a free bias has to be taken away."""
    rng = np.random.default_rng(seed)
    targets = ufm.Targets(soft_labels(rng, 6, 3), rng.dirichlet(np.ones(6)) * 0.9 + 0.1 / 6)
    W = rng.normal(size=(3, 4)) if seed % 2 else None
    problem = ufm.UFM(targets, 4, 0.05, 0.04, loss, classifier=W, bias_decay=bias_decay)
    reduced, variables = (
        Reduced(problem, store=True, distributed=False),
        newton._Variables(problem, start(problem, seed)),
    )
    optimum = ufm.solve(problem, tol=1e-6, max_iter=300)
    end = newton._Variables(problem, Point(optimum.classifier, None, optimum.bias)).start
    x = variables.start if W is None else end
    if W is not None:
        x = torch.cat([end[:, :-1], end[:, -1:] + share * variables.start[:, -1:]], 1)
    at = variables.evaluate(reduced, x, 1e-12)
    assert reduced.bound(at.reduction) <= optimum.objective + 1e-12


@given(strategies.seeds, st.booleans())
def test_bound_in_one_pass_of_a_free_bias_is_the_derived_one(seed: int, fixed: bool):
    """Written out in NumPy: the share of one distribution, its bounds on value and norms, and the chord."""
    rng = np.random.default_rng(seed)
    y, pi = 0.9 * rng.dirichlet(np.full(3, 0.4), 5) + 0.1 / 3, rng.dirichlet(np.ones(5)) * 0.9 + 0.02
    W = rng.normal(size=(3, 4))
    problem = ufm.UFM(ufm.Targets(y, pi), 4, 0.05, 0.04, classifier=W if fixed else None, bias_decay=0.0)
    reduced, b = Reduced(problem, store=True, distributed=False), rng.normal(size=3)
    at = reduced.evaluate(reduced.gram(torch.from_numpy(W), torch.from_numpy(b)), 1e-12)
    p = special.softmax(torch.as_tensor(ufm.fixed_classifier(W, y, 0.04, bias=b).logits).numpy(), 1)
    r = p - y
    mean = pi @ r
    share = max(0.0, (mean / (pi @ p)).max())
    norm = (1 - share) * np.linalg.norm(np.sqrt(pi)[:, None] * r, 2) + share * np.sqrt(2)
    whole, none = (1 - share) * (pi @ special.entr(p).sum(1)), pi @ special.entr(y).sum(1)
    if fixed:
        pulled = (1 - share) * np.sqrt(pi @ ((r @ W) ** 2).sum(1)) + share * np.sqrt(2) * np.linalg.norm(W, 2)
        expected = whole - pulled**2 / 0.08 + 0.025 * (W**2).sum()
    else:
        t = min(1.0, np.sqrt(0.002) / norm)
        expected = t * whole + (1 - t) * none
    assert reduced.bound(at) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pair_targets_are_solved_like_their_labels(stream: bool, smoothing: float):
    rng = np.random.default_rng(7)
    a, b = rng.integers(4, size=(2, 40))
    pairs = ufm.PairTargets(4, a, b, rng.random(40), rng.dirichlet(np.full(40, 5.0)), smoothing)
    one, other = (ufm.UFM(targets, 4, 0.02, 0.03, bias_decay=0.1) for targets in (pairs, pairs.written_out()))
    first, second = ufm.solve(one, tol=1e-11, stream=stream), ufm.solve(other, tol=1e-11)
    assert first.converged
    assert first.objective == pytest.approx(second.objective, abs=1e-13)
    gram, expected = (s.classifier @ s.classifier.T for s in (first, second))
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-6)
    assert first.bias is not None
    assert second.bias is not None
    torch.testing.assert_close(first.bias, second.bias, rtol=0, atol=1e-6)
