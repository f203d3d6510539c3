import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import special

import ufm
from tests.helpers import oracles, strategies


def mixed_label(lam: float, num_classes: int) -> np.ndarray:
    label = np.zeros(num_classes)
    label[0], label[1] = lam, 1 - lam
    return label


@given(st.integers(2, 7), strategies.seeds, st.floats(0.3, 3), st.floats(-4, 0).map(lambda e: 10.0**e))
def test_fixed_classifier_against_scipy(K: int, seed: int, multiplier: float, feature_decay: float):
    rng = np.random.default_rng(seed)
    W = ufm.simplex_etf(K, K + 1, multiplier, generator=torch.Generator().manual_seed(seed)).numpy()
    label = rng.dirichlet(np.ones(K))
    response = ufm.fixed_classifier(W, label[None], feature_decay)
    expected = oracles.optimal_feature(W, label, feature_decay)
    np.testing.assert_allclose(response.features[0], expected, atol=1e-9 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(response.logits, response.features @ W.T, atol=1e-12 * np.abs(response.logits).max())
    np.testing.assert_allclose(response.probabilities, special.softmax(response.logits, 1), atol=1e-14)
    assert (response.residual < 1e-12).all()


@given(st.data())
def test_fixed_classifier_residual_vanishes_for_any_label(data: st.DataObject):
    K, decay = data.draw(strategies.classes), data.draw(strategies.decays)
    W = ufm.simplex_etf(K, K, data.draw(st.floats(0.1, 10))).numpy()
    response = ufm.fixed_classifier(W, data.draw(strategies.labels(K)), decay)
    scale = np.abs(W).max() + decay * np.abs(response.features).max()
    assert (response.residual <= 1e-13 * scale * K).all()


@given(strategies.classes, strategies.lams, strategies.decays, strategies.seeds)
def test_features_lie_in_the_span_of_the_two_rows(K: int, lam: float, decay: float, seed: int):
    W = ufm.simplex_etf(K, K + 2, 1.3, generator=torch.Generator().manual_seed(seed)).numpy()
    h = ufm.fixed_classifier(W, mixed_label(lam, K)[None], decay).features[0]
    coefficients = np.linalg.lstsq(W[:2].T, h, rcond=None)[0]
    np.testing.assert_allclose(W[:2].T @ coefficients, h, atol=1e-12 * np.linalg.norm(h))
    p = ufm.fixed_classifier(W, mixed_label(lam, K)[None], decay).probabilities[0]
    expected = np.array([lam - p[0] + p[2], 1 - lam - p[1] + p[2]]) / decay
    np.testing.assert_allclose(coefficients, expected, rtol=1e-9, atol=1e-12 / decay)


@given(strategies.classes, strategies.lams, strategies.betas)
def test_lambda_and_its_complement_are_mirror_images(K: int, lam: float, beta: float):
    label = mixed_label(lam, K)
    mirrored = label.copy()
    mirrored[[0, 1]] = label[[1, 0]]
    z = ufm.prox_logsumexp(np.stack([label, mirrored]), beta).logits
    tolerance = 1e-15 * np.abs(z).max()
    np.testing.assert_allclose(z[0, [1, 0]], z[1, [0, 1]], rtol=0, atol=tolerance)
    np.testing.assert_allclose(z[0, 2:], z[1, 2:], rtol=0, atol=tolerance)


@given(strategies.classes, strategies.betas)
def test_same_class_logits_solve_their_equation(K: int, beta: float):
    z = ufm.prox_logsumexp(np.eye(K)[0], beta).logits
    x = z[0] - z[1]
    assert math.log(x) + np.logaddexp(x, math.log(K - 1)) == pytest.approx(math.log(K * beta), rel=1e-12, abs=1e-12)


def test_same_class_features_do_not_depend_on_lambda():
    targets = ufm.Mixup(4).targets(5)
    batch = ufm.Activations(
        torch.zeros(3, 4), torch.zeros(3, 4), torch.tensor([2, 2, 2]), torch.tensor([2, 2, 2]),
        torch.tensor([0.0, 0.3, 0.9]), torch.zeros(4, 4),
    )  # fmt: skip
    W = ufm.simplex_etf(4)
    h = torch.as_tensor(ufm.fixed_classifier(W, batch.labels, 0.01).features)
    assert torch.equal(h, h[:1].expand_as(h))
    same = torch.as_tensor(ufm.fixed_classifier(W, targets.labels[:4], 0.01).features)
    scale = same.norm() / W.norm()
    torch.testing.assert_close(same, scale * W)


@given(strategies.classes, strategies.seeds, strategies.decays)
def test_orthogonal_invariance(K: int, seed: int, decay: float):
    W = ufm.simplex_etf(K, K, 1.1).numpy()
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(K, K)))[0]
    labels = np.random.default_rng(seed).dirichlet(np.ones(K), 3)
    plain, turned = ufm.fixed_classifier(W, labels, decay), ufm.fixed_classifier(W @ rotation, labels, decay)
    np.testing.assert_allclose(turned.features, plain.features @ rotation, atol=1e-11 * np.abs(plain.features).max())
    np.testing.assert_allclose(turned.logits, plain.logits, rtol=1e-9, atol=1e-12 * np.abs(plain.logits).max())


@given(strategies.classes, strategies.decays, st.floats(0, 1))
def test_mean_squared_error_features_are_convex_combinations_of_class_means(K: int, decay: float, lam: float):
    W = ufm.simplex_etf(K, K, 1.4).numpy()
    labels = np.stack([*np.eye(K)[:2], mixed_label(lam, K)])
    response = ufm.fixed_classifier(W, labels, decay, loss="mean_squared_error")
    first, second, mixed = response.features
    np.testing.assert_allclose(mixed, lam * first + (1 - lam) * second, atol=1e-12 * np.abs(first).max())
    assert (response.residual < 1e-12).all()


def test_cross_entropy_features_are_not_convex_combinations_of_class_means():
    W = ufm.simplex_etf(10).numpy()
    labels = np.stack([*np.eye(10)[:2], mixed_label(0.5, 10)])
    first, second, mixed = ufm.fixed_classifier(W, labels, 1e-3).features
    assert np.linalg.norm(mixed) > 1.3 * np.linalg.norm((first + second) / 2)


def test_joint_optimum_known_values():
    optimum = ufm.joint_optimum(ufm.Mixup(5), 0.02, 0.02, nodes=9)
    assert optimum.beta == pytest.approx(96.73183356276184, rel=1e-13)
    assert optimum.multiplier == pytest.approx(1.2440696672631277, rel=1e-13)
    assert optimum.objective == pytest.approx(0.595857985966592, rel=1e-14)
    assert optimum.threshold == pytest.approx(2 / 15)
    squared = ufm.joint_optimum(ufm.Mixup(5), 0.05, 0.08, "mean_squared_error", nodes=9)
    assert squared.multiplier**2 == pytest.approx(0.3055042, abs=5e-8)
    assert squared.beta / (1 + squared.beta) == pytest.approx(0.8267949, abs=5e-8)


@given(
    strategies.classes, st.floats(0.1, 20), st.floats(-6, 2), st.sampled_from(["cross_entropy", "mean_squared_error"])
)
def test_joint_optimum_solves_its_equations(K: int, alpha: float, exponent: float, loss: str):
    law, product = ufm.Mixup(K, alpha), 10.0**exponent
    weight_decay, feature_decay = 2.0 * math.sqrt(product), math.sqrt(product) / 2
    optimum = ufm.joint_optimum(law, weight_decay, feature_decay, loss, nodes=7)
    r = (alpha + 1) / (2 * alpha + 1)
    assert optimum.threshold == pytest.approx(r / K)
    assert optimum.collapsed == (product >= optimum.threshold)
    targets = law.targets(7)
    response = optimum.response(targets.labels)
    p, weights = torch.as_tensor(response.probabilities), targets.weights
    if optimum.collapsed:
        assert optimum.beta == optimum.multiplier == 0
        torch.testing.assert_close(p, torch.full_like(p, 1 / K))
        assert not torch.as_tensor(response.features).any()
    else:
        error = (weights @ (targets.labels - p).square().sum(1)).item()
        assert error == pytest.approx((K - 1) * product, rel=1e-10)
        assert optimum.multiplier**2 == pytest.approx((K - 1) * feature_decay * optimum.beta / K)
    if loss == "cross_entropy":
        entropy = -(weights @ torch.special.xlogy(p, p).sum(1)).item()
        assert optimum.objective == pytest.approx(entropy, rel=1e-12)


def test_joint_optimum_objective_is_the_ufm_objective():
    for loss in ("cross_entropy", "mean_squared_error"):
        targets = ufm.Mixup(4, 2.0).targets(5)
        optimum = ufm.joint_optimum(ufm.Mixup(4, 2.0), 0.01, 0.03, loss, nodes=5)
        features = torch.as_tensor(optimum.response(targets.labels, 6).features)
        problem = ufm.UFM(targets, 6, 0.01, 0.03, loss)
        certificate = ufm.certify(problem, optimum.classifier(6), features)
        assert certificate.objective == pytest.approx(optimum.objective, rel=1e-13)
        assert abs(certificate.gap) < 1e-13
        assert certificate.gradient_norm < 1e-13


def test_collapsed_response_takes_a_dimension():
    optimum = ufm.joint_optimum(ufm.Unmixed(3), 1.0, 1.0)
    assert optimum.collapsed
    response = optimum.response(np.eye(3), 5)
    assert isinstance(response.features, np.ndarray)
    assert response.features.shape == (3, 5)
    assert not optimum.classifier(5).any()


def test_unmixed_threshold_and_relaxation_optimum():
    assert ufm.joint_optimum(ufm.Unmixed(6), 0.1, 0.1).threshold == pytest.approx(1 / 6)
    law = ufm.Mixup(3)
    targets = law.targets(3)
    value, status = oracles.nuclear_norm_optimum(targets.labels.numpy(), targets.weights.numpy(), 0.05, 0.1)
    assert status == "optimal"
    assert ufm.joint_optimum(law, 0.05, 0.1, nodes=3).objective == pytest.approx(value, abs=1e-7)


@given(strategies.classes, st.floats(0.2, 5), st.floats(-6, -2.5).map(lambda e: 10.0**e))
def test_beta_from_classifier_inverts_the_joint_optimum(K: int, alpha: float, decay: float):
    optimum = ufm.joint_optimum(ufm.Mixup(K, alpha), decay, decay, nodes=9)
    if optimum.beta > 20:  # on the falling branch, whose root is the one returned
        found = ufm.beta_from_classifier(ufm.Mixup(K, alpha), decay, optimum.multiplier, nodes=9)
        assert found == pytest.approx(optimum.beta, rel=1e-9)


def test_beta_from_a_small_classifier():
    optimum = ufm.joint_optimum(ufm.Mixup(10), 1e-5, 1e-8)
    assert optimum.multiplier < 0.5
    assert ufm.beta_from_classifier(ufm.Mixup(10), 1e-5, float(optimum.multiplier)) == pytest.approx(
        optimum.beta, rel=1e-9
    )


def test_beta_from_classifier_refuses_what_no_optimum_has():
    with pytest.raises(ValueError, match="multiplier"):
        ufm.beta_from_classifier(ufm.Mixup(10), 0.1, 100.0)


def test_channel_known_values():
    shape = ufm.channel(0.8, 1e4, 10)
    assert float(shape.depth) == pytest.approx(7.8421, abs=5e-5)
    assert float(shape.depth_asymptotic) == pytest.approx(7.8438, abs=5e-5)
    assert float(shape.width) == pytest.approx(1.3882, abs=5e-5)
    assert float(shape.width_asymptotic) == pytest.approx(1.3863, abs=5e-5)


@given(st.integers(3, 50), st.floats(0.01, 0.99), st.floats(6, 12))
def test_channel_approaches_its_asymptotics(K: int, lam: float, exponent: float):
    beta = 10.0**exponent
    shape = ufm.channel(np.array([lam]), beta, K)
    # The error of both falls like depth/(beta lam (1 - lam)).
    bound = 20 * shape.depth[0] / (beta * lam * (1 - lam))
    assert abs(shape.width[0] - shape.width_asymptotic[0]) < bound
    assert abs(shape.depth[0] - shape.depth_asymptotic[0]) < K * bound
    expected = special.lambertw(K * beta / 2 * math.sqrt(lam * (1 - lam))).real
    assert shape.depth_asymptotic[0] == pytest.approx(expected, rel=1e-12)


@given(strategies.classes, strategies.betas, st.floats(0.001, 0.999))
def test_channel_reads_the_logits(K: int, beta: float, lam: float):
    z = ufm.prox_logsumexp(mixed_label(lam, K), beta).logits
    shape = ufm.channel(lam, beta, K)
    assert float(shape.width) == pytest.approx(z[0] - z[1], rel=1e-9, abs=1e-12)
    assert float(shape.depth) == pytest.approx((z[0] + z[1]) / 2 - z[2], rel=1e-9, abs=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.fixed_classifier(np.full((3, 3), np.nan), np.eye(3), 0.1), "W"),
        (lambda: ufm.fixed_classifier(np.ones((3, 3)), np.eye(3), 0.1, bias=np.ones(2)), "bias"),
        (lambda: ufm.fixed_classifier(ufm.simplex_etf(3), np.eye(4), 0.1), "labels"),
        (lambda: ufm.fixed_classifier(ufm.simplex_etf(3), 2 * np.eye(3), 0.1), "labels"),
        (lambda: ufm.fixed_classifier(ufm.simplex_etf(3), np.eye(3), 0.0), "feature_decay"),
        (lambda: ufm.fixed_classifier(ufm.simplex_etf(3), np.eye(3), 0.1, "hinge"), "loss"),
        (lambda: ufm.joint_optimum(ufm.Mixup(3), -1.0, 0.1), "weight_decay"),
        (lambda: ufm.joint_optimum(ufm.Mixup(3), 0.1, 0.0), "feature_decay"),
        (lambda: ufm.beta_from_classifier(ufm.Mixup(3), 0.1, -1.0), "multiplier"),
        (lambda: ufm.channel(0.0, 1.0, 5), "lam"),
        (lambda: ufm.channel(np.nan, 1.0, 5), "lam"),
        (lambda: ufm.channel(0.5, 0.0, 5), "beta"),
        (lambda: ufm.channel(0.5, 1.0, 2), "num_classes"),
    ],
)
def test_bad_input_is_named(call, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        call()


def test_a_law_of_uniform_labels_has_a_collapsed_optimum():
    law = ufm.Mixup(2, 1.0, 2, "different")
    for nodes, loss, value in ((1, "cross_entropy", math.log(2)), (1, "mean_squared_error", 0.0)):
        optimum = ufm.joint_optimum(law, 0.1, 0.1, loss, nodes=nodes)
        assert optimum.collapsed
        assert optimum.threshold == 0
        assert optimum.objective == pytest.approx(value, abs=1e-15)
    # The continuous law of the same point, and an inverse problem that has no solution.
    assert ufm.joint_optimum(ufm.Mixup(2, math.inf, 2, "different"), 0.1, 0.1).collapsed
    with pytest.raises(ValueError, match="^law: got labels that are all uniform"):
        ufm.penalty_product(law, 5.0, nodes=1)


@pytest.mark.parametrize("alpha", [1e20, 1e29, 1e31, 1e308])
@pytest.mark.parametrize("ways", [2, 3])
def test_huge_concentrations_are_those_of_infinity(alpha: float, ways: int):
    found = ufm.joint_optimum(ufm.Mixup(3, alpha, ways), 0.01, 0.01, nodes=2)
    expected = ufm.joint_optimum(ufm.Mixup(3, math.inf, ways), 0.01, 0.01, nodes=2)
    assert found.beta == pytest.approx(expected.beta, rel=1e-12)
    assert found.objective == pytest.approx(expected.objective, rel=1e-12)
