import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import ufm
from tests.helpers import oracles, strategies
from ufm.losses import LOSSES

losses = st.sampled_from(sorted(LOSSES))


@given(st.integers(2, 6), st.integers(1, 7), strategies.seeds, st.floats(-3, 0.5).map(lambda e: 10.0**e))
def test_any_classifier_against_scipy(K: int, d: int, seed: int, decay: float):
    rng = np.random.default_rng(seed)
    W, label, bias = rng.normal(size=(K, d)), rng.dirichlet(np.full(K, 0.3)), rng.normal(size=K)
    found = ufm.fixed_classifier(W, label[None], decay, bias=bias)
    assert not found.closed_form
    expected = oracles.optimal_feature(W, label, decay, bias)
    np.testing.assert_allclose(found.features[0], expected, atol=1e-9 * max(1.0, float(np.abs(expected).max())))
    np.testing.assert_allclose(found.logits, found.features @ W.T + bias, atol=1e-12)


@given(losses, strategies.classes, st.integers(1, 9), strategies.seeds, st.floats(-10, 1), st.floats(-2, 2))
def test_any_classifier_reaches_the_rounding_of_its_gradient(
    loss: str, K: int, d: int, seed: int, decay_exponent: float, scale_exponent: float
):
    rng = np.random.default_rng(seed)
    W = 10.0**scale_exponent * rng.normal(size=(K, d))
    labels = np.concatenate([rng.dirichlet(np.full(K, 0.2), 5), np.eye(K)])
    decay = 10.0**decay_exponent
    found = ufm.fixed_classifier(W, labels, decay, loss)
    # The prediction inherits the rounding of the logits, and W multiplies it.
    scale = np.linalg.norm(W) * (1 + np.abs(found.logits).max(1)) + decay * np.linalg.norm(found.features, axis=1)
    assert (found.residual <= 20 * np.finfo(float).eps * scale).all()
    np.testing.assert_allclose(found.error_bound, found.residual / decay)
    # Features lie in the row space of W.
    projector = np.linalg.pinv(W) @ W
    np.testing.assert_allclose(
        found.features @ projector, found.features, atol=1e-9 * max(1.0, float(np.abs(found.features).max()))
    )


@given(losses, strategies.classes, strategies.seeds, strategies.decays)
def test_newton_and_closed_form_agree_on_an_etf(loss: str, K: int, seed: int, decay: float):
    W = ufm.simplex_etf(K, K + 1, 1.3, generator=torch.Generator().manual_seed(seed))
    labels = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(K, 0.3), 4))
    closed = ufm.fixed_classifier(W, labels, decay, loss)
    newton = ufm.fixed_classifier(W.clone().requires_grad_(), labels, decay, loss)
    assert closed.closed_form
    assert not newton.closed_form
    for name in ("features", "logits", "probabilities"):
        one, other = getattr(closed, name), getattr(newton, name).detach()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10 * max(1.0, one.abs().max().item()))


def test_mean_squared_error_with_its_own_bias_is_the_default():
    rng = np.random.default_rng(0)
    W, labels = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(4), 5)
    plain = ufm.fixed_classifier(W, labels, 0.1, "mean_squared_error")
    biased = ufm.fixed_classifier(W, labels, 0.1, "mean_squared_error", bias=np.full(4, 0.25))
    np.testing.assert_allclose(plain.features, biased.features, atol=1e-14)
    np.testing.assert_allclose(biased.logits, plain.logits + 0.25, atol=1e-14)
    np.testing.assert_allclose(plain.probabilities, biased.logits, atol=1e-14)
    other = ufm.fixed_classifier(W, labels, 0.1, "mean_squared_error", bias=np.arange(4.0))
    ridge = np.linalg.solve(W.T @ W + 0.1 * np.eye(3), W.T @ (labels - np.arange(4.0)).T).T
    np.testing.assert_allclose(other.features, ridge, atol=1e-12)
    np.testing.assert_allclose(other.probabilities, ridge @ W.T + np.arange(4.0), atol=1e-12)


def test_zero_and_rank_one_classifiers():
    labels = np.eye(3)
    nothing = ufm.fixed_classifier(np.zeros((3, 2)), labels, 0.1)
    assert not nothing.features.any()
    np.testing.assert_allclose(nothing.probabilities, 1 / 3)
    line = ufm.fixed_classifier(np.outer([1.0, -1.0, 0.0], [1.0, 2.0]), labels, 0.1)
    np.testing.assert_allclose(line.features[:, 1], 2 * line.features[:, 0], atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_in_every_argument(loss: str):
    rng = np.random.default_rng(1)
    W, free, bias = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((4, 3), (5, 4), (4,)))
    decay = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)

    def features(W: torch.Tensor, free: torch.Tensor, decay: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(ufm.fixed_classifier(W, torch.softmax(free, 1), decay, loss, bias=bias).features)

    assert torch.autograd.gradcheck(features, (W, free, decay, bias))
    assert torch.autograd.gradgradcheck(features, (W, free, decay, bias))


@pytest.mark.parametrize("loss", LOSSES)
def test_closed_form_gradients_in_labels_and_decay(loss: str):
    W = ufm.simplex_etf(4, 5, 1.2)
    free = torch.tensor(np.random.default_rng(2).normal(size=(3, 4)), requires_grad=True)
    decay = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)

    def features(free: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
        response = ufm.fixed_classifier(W, torch.softmax(free, 1), decay, loss)
        assert response.closed_form
        return torch.as_tensor(response.features)

    assert torch.autograd.gradcheck(features, (free, decay))
    assert torch.autograd.gradgradcheck(features, (free, decay))


@pytest.mark.parametrize("loss", LOSSES)
def test_joint_optimum_gradients_in_the_penalties(loss: str):
    penalties = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.02, 0.03)]

    def optimum(weight_decay: torch.Tensor, feature_decay: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = ufm.joint_optimum(ufm.Mixup(4), weight_decay, feature_decay, loss, nodes=5)
        return tuple(torch.as_tensor(value) for value in (result.beta, result.multiplier, result.objective))

    assert torch.autograd.gradcheck(optimum, penalties)
    assert torch.autograd.gradgradcheck(optimum, penalties)
    # Envelope theorem: dF*/dlambda_W = ||W||^2 / 2.
    beta, multiplier, objective = optimum(*penalties)
    (slope,) = torch.autograd.grad(objective, penalties[0])
    assert slope.item() == pytest.approx(4 * multiplier.item() ** 2 / 2)
    assert beta.item() == pytest.approx(float(ufm.joint_optimum(ufm.Mixup(4), 0.02, 0.03, loss, nodes=5).beta))


def test_collapsed_optimum_has_zero_gradients():
    decay = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    result = ufm.joint_optimum(ufm.Mixup(3), decay, 1.0)
    assert result.collapsed
    (slope,) = torch.autograd.grad(torch.as_tensor(result.objective), decay)
    assert slope.item() == 0


def test_prox_under_vmap_and_compile():
    from ufm.prox import prox_logits

    y = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(5), (6, 3)))
    beta = torch.logspace(-2, 6, 6, dtype=torch.float64)
    ones = torch.ones(3, 5, dtype=torch.float64)
    mapped = torch.func.vmap(lambda y, b: prox_logits(y, b.expand(3), ones))(y, beta)
    expected = torch.stack(
        [torch.as_tensor(ufm.prox_logsumexp(rows, b).logits) for rows, b in zip(y, beta, strict=True)]
    )
    torch.testing.assert_close(mapped, expected, rtol=1e-14, atol=1e-15)
    slopes = torch.func.vmap(torch.func.grad(lambda b, y: prox_logits(y, b.expand(3), ones).square().sum()))(beta, y)
    assert (slopes > 0).all()
    jacobian = torch.func.jacrev(lambda y: prox_logits(y, beta[3].expand(3), ones))(y[3])
    assert jacobian.shape == (3, 5, 3, 5)
    # Newton's loop looks at its residual, so that it runs outside the compiled graph: same numbers.
    compiled = torch.compile(lambda y, b: prox_logits(y, b, ones).exp().sum(), backend="eager")
    assert compiled(y[0], beta[0].expand(3)).item() == pytest.approx(expected[0].exp().sum().item())


def test_float32_states_its_own_accuracy():
    rng = np.random.default_rng(0)
    W, labels = rng.normal(size=(5, 4)).astype(np.float32), rng.dirichlet(np.ones(5), 6).astype(np.float32)
    single = ufm.fixed_classifier(W, labels, 0.01)
    assert single.features.dtype == np.float32
    double = ufm.fixed_classifier(W.astype(float), labels.astype(float) / labels.sum(1, keepdims=True), 0.01)
    distance = np.linalg.norm(single.features - double.features, axis=1)
    assert (distance <= single.error_bound * 2 + 1e-4).all()
    assert single.error_bound.max() < 1e-2


def test_residual_is_the_gradient_of_the_features_returned():
    rng = np.random.default_rng(3)
    W, labels = 30 * rng.normal(size=(6, 4)).astype(np.float32), rng.dirichlet(np.ones(6), 8).astype(np.float32)
    found = ufm.fixed_classifier(W, labels, 0.01)
    z = found.features.astype(float) @ W.T.astype(float)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    gradient = np.linalg.norm((p - labels) @ W + 0.01 * found.features, axis=1)
    np.testing.assert_allclose(found.residual, gradient, atol=3e-6 * np.linalg.norm(W))
    assert (found.residual > 0).any()


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_whichever_of_classes_and_dimensions_is_larger(loss: str, shape: tuple[int, int]):
    W = torch.tensor(np.random.default_rng(4).normal(size=shape), requires_grad=True)
    labels = torch.softmax(torch.tensor(np.random.default_rng(5).normal(size=(2, shape[0]))), 1)

    def features(W: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(ufm.fixed_classifier(W, labels, 0.1, loss).features)

    assert torch.autograd.gradcheck(features, (W,))
    assert torch.autograd.gradgradcheck(features, (W,))


@pytest.mark.parametrize("scale", [1e-140, 1e-100, 1e100, 1e140])
@pytest.mark.parametrize("etf", [True, False])
def test_fixed_classifier_at_every_scale(scale: float, etf: bool):
    """c W with feature penalty c^2 lambda has the features of W over c."""
    W = ufm.simplex_etf(3).numpy() if etf else np.random.default_rng(0).normal(size=(3, 4))
    y = np.array([[0.7, 0.3, 0.0], [0.2, 0.2, 0.6]])
    for bias in (None, np.array([0.1, 0.2, 0.3])):
        expected = ufm.fixed_classifier(W, y, 0.1, bias=bias)
        found = ufm.fixed_classifier(scale * W, y, 0.1 * scale**2, bias=bias)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.features * scale, expected.features, rtol=1e-9, atol=1e-12)


def test_penalties_beyond_the_range_of_numbers_are_named():
    W, y = ufm.simplex_etf(3).numpy(), np.array([[0.7, 0.3, 0.0]])
    for w, decay in ((1e200 * W, 0.1), (1e308 * W, 0.1), (1e-200 * W, 0.1), (W, 1e-320)):
        for bias in (None, np.zeros(3)):
            with pytest.raises(ValueError, match="^W, feature_decay: got a penalty of"):
                ufm.fixed_classifier(w, y, decay, bias=bias)


def test_a_classifier_that_no_column_spans_is_named():
    with pytest.raises(ValueError, match=r"^W: got shape \(3, 0\)"):
        ufm.fixed_classifier(np.zeros((3, 0)), np.array([[0.7, 0.3, 0.0]]), 0.1)


def test_the_mean_row_has_no_curvature_and_is_not_needed():
    """Two classes at a penalty that vanishes beside ||W||^2: the probabilities are the labels."""
    W, y = np.array([[1.2, 0.7], [-2.5, 2.6]]), np.array([[0.02, 0.98]])
    found = ufm.fixed_classifier(1e41 * W, y, 1e-6)
    np.testing.assert_allclose(found.probabilities, y, rtol=1e-9)
    # The smallest features with those logits.
    difference = 1e41 * (W[1] - W[0])
    expected = np.log(0.98 / 0.02) * difference / 1e41 / (difference @ difference / 1e41)
    np.testing.assert_allclose(found.features, expected[None], rtol=1e-9)
