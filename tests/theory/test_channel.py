import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import special

import ufm
from tests.helpers import strategies

SMALL = ufm.Targets(np.eye(3))


def mixed_logits(lam: float, beta: float, K: int) -> np.ndarray:
    label = np.zeros(K)
    label[0], label[1] = lam, 1 - lam
    return ufm.prox_logsumexp(label, beta).logits


@given(strategies.seeds, st.integers(3, 20))
def test_limit_shape_is_approached_like_one_over_log(seed: int, K: int):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet(np.ones(K), 3)
    labels[:, : K // 2] = 0
    labels /= labels.sum(1, keepdims=True)
    labels = np.concatenate([labels, np.eye(K)[:2]])
    limit = ufm.limit_shape(labels)
    np.testing.assert_allclose(limit.sum(1), 0, atol=1e-12)
    errors = []
    for beta in (1e30, 1e120):
        z = ufm.prox_logsumexp(labels, beta).logits
        errors.append(np.abs(z / math.log(beta) - limit).max())
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


@given(st.integers(3, 50), st.floats(0.1, 0.9))
def test_length_ratio_and_its_limit(K: int, lam: float):
    ratio = float(ufm.length_ratio(lam, 1e4, K))
    same = mixed_logits(1.0, 1e4, K)
    assert ratio == pytest.approx(np.linalg.norm(mixed_logits(lam, 1e4, K)) / np.linalg.norm(same))
    limit = math.sqrt(2 * (K - 2) / (K - 1))
    assert (
        abs(float(ufm.length_ratio(lam, 1e280, K)) - limit) < abs(float(ufm.length_ratio(lam, 1e20, K)) - limit) + 1e-3
    )
    assert float(ufm.length_ratio(lam, 1e280, K)) == pytest.approx(limit, abs=0.03)


@given(st.integers(3, 50), strategies.betas)
def test_length_ratio_at_the_ends_is_one(K: int, beta: float):
    np.testing.assert_allclose(ufm.length_ratio(np.array([0.0, 1.0]), beta, K), 1, rtol=1e-12)


@given(st.integers(3, 30), st.floats(-2, 8).map(lambda e: 10.0**e))
def test_amplification_is_the_ratio_of_slopes(K: int, beta: float):
    step = 1e-5
    shape = ufm.channel(np.array([0.5 - step, 0.5 + step]), beta, K)
    slope = (shape.width[1] - shape.width[0]) / (2 * step)
    z = mixed_logits(1.0, beta, K)
    line = 2 * (z[0] - z[1])
    assert ufm.amplification(beta, K) == pytest.approx(slope / line, rel=1e-5)


def test_amplification_tends_to_two_over_the_same_class_gap():
    beta, K = 1e12, 10
    z = mixed_logits(1.0, beta, K)
    assert ufm.amplification(beta, K) == pytest.approx(2 / (z[0] - z[1]), rel=1e-6)


@given(strategies.classes, strategies.betas, st.floats(0, 1))
def test_confidence_and_entropy_are_those_of_the_prediction(K: int, beta: float, lam: float):
    p = special.softmax(mixed_logits(lam, beta, K))
    assert float(ufm.confidence(lam, beta, K)) == pytest.approx(p.max(), rel=1e-12)
    assert float(ufm.entropy(np.array(lam), beta, K)) == pytest.approx(special.entr(p).sum(), rel=1e-9, abs=1e-14)


def test_two_classes_have_no_others():
    assert float(ufm.confidence(0.5, 100.0, 2)) == pytest.approx(0.5)
    assert float(ufm.entropy(0.5, 100.0, 2)) == pytest.approx(math.log(2))
    assert float(ufm.entropy(1.0, 1e6, 2)) < 1e-3


@pytest.mark.parametrize("law", [ufm.Mixup(5, 0.6), ufm.Unmixed(5), ufm.LabelSmoothing(ufm.Mixup(5), 0.1)], ids=repr)
def test_law_calibration_against_its_targets(law):
    beta, bins, nodes = 300.0, 7, 6
    found = ufm.law_calibration(law, beta, bins=bins, nodes=nodes)
    targets = law.targets(nodes)
    labels, weights = targets.labels.numpy(), targets.weights.numpy()
    p = np.asarray(ufm.prox_logsumexp(labels, beta).probabilities)
    top = p.max(1)
    hit = labels[np.arange(len(p)), p.argmax(1)]
    assert found.confidence == pytest.approx(weights @ top)
    assert found.entropy == pytest.approx(weights @ special.entr(p).sum(1))
    # Ties at lambda = 1/2 do not matter: both classes are as likely.
    assert found.accuracy == pytest.approx(weights @ hit)
    ece = sum(
        abs((weights * (hit - top))[np.minimum((top * bins).astype(int), bins - 1) == i].sum()) for i in range(bins)
    )
    assert found.ece == pytest.approx(ece, abs=1e-14)


def test_calibration_error_falls_with_beta_when_labels_follow_the_law():
    errors = [ufm.law_calibration(ufm.Mixup(10), beta).ece for beta in (10.0, 100.0, 1e3, 1e5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_mixup_is_less_confident_than_none_at_equal_penalties():
    mixed, plain = (ufm.calibration_at_penalties(law, 1e-3, 1e-3) for law in (ufm.Mixup(10), ufm.Unmixed(10)))
    assert plain.accuracy == mixed.accuracy == 1
    # The same penalties give a larger beta to the mixture's optimum: it is the softer labels that cost confidence.
    mixture = ufm.calibration_at_penalties(ufm.Mixup(10), 1e-3, 1e-3, evaluated_on=ufm.Mixup(10))
    assert mixture.confidence < plain.confidence
    with pytest.raises(ValueError, match="weight_decay"):
        ufm.calibration_at_penalties(ufm.Mixup(10), 1.0, 1.0)


@given(st.integers(2, 100), st.floats(1e-6, 1 - 1e-6))
def test_beta_for_confidence_inverts_the_same_class_prediction(K: int, fraction: float):
    wanted = 1 / K + fraction * (1 - 1 / K)
    beta = ufm.beta_for_confidence(wanted, K)
    p = ufm.prox_logsumexp(np.eye(K)[0], beta).probabilities
    assert p[0] == pytest.approx(wanted, rel=1e-9)


@given(st.integers(2, 30), st.floats(0.1, 10), st.floats(-1, 6).map(lambda e: 10.0**e), strategies.losses)
def test_penalty_product_inverts_the_joint_optimum(K: int, alpha: float, beta: float, loss: str):
    law = ufm.Mixup(K, alpha)
    product = ufm.penalty_product(law, beta, loss, nodes=5)
    found = ufm.joint_optimum(law, product, 1.0, loss, nodes=5)
    assert found.beta == pytest.approx(beta, rel=1e-8)


def test_both_penalty_conventions():
    expected = ufm.joint_optimum(ufm.Mixup(4), 0.01, 0.05)
    other = ufm.joint_optimum(ufm.Mixup(4), 0.01, 0.05 / 200, samples=200)
    assert other.beta == pytest.approx(expected.beta, rel=1e-12)
    assert other.feature_decay == pytest.approx(0.05)


def test_relaxation_agrees_with_the_closed_form_and_reports_its_status():
    for loss in ("cross_entropy", "mean_squared_error"):
        law = ufm.Mixup(3)
        problem = ufm.UFM(law.targets(3), 4, 0.05, 0.1, loss)
        result = ufm.nuclear_norm_optimum(problem)
        optimum = ufm.joint_optimum(law, 0.05, 0.1, loss, nodes=3)
        assert result.status == "optimal"
        assert result.value == pytest.approx(float(optimum.objective), abs=1e-6)
        logits = result.logits - result.logits.mean(1, keepdims=True)
        np.testing.assert_allclose(logits, optimum.response(problem.targets.labels).logits, atol=2e-3)
    short = ufm.nuclear_norm_optimum(problem, max_iter=3)
    assert short.status != "optimal"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.limit_shape(np.ones((2, 2))), "labels"),
        (lambda: ufm.length_ratio(1.5, 1.0, 5), "lam"),
        (lambda: ufm.length_ratio(0.5, 1.0, 2), "num_classes"),
        (lambda: ufm.amplification(-1.0, 5), "beta"),
        (lambda: ufm.confidence(-0.1, 1.0, 5), "lam"),
        (lambda: ufm.entropy(0.5, 0.0, 5), "beta"),
        (lambda: ufm.law_calibration(ufm.Mixup(3), 1.0, bins=0), "bins"),
        (lambda: ufm.law_calibration(ufm.Mixup(3), -1.0), "beta"),
        (lambda: ufm.beta_for_confidence(0.1, 5), "confidence"),
        (lambda: ufm.beta_for_confidence(1.0, 5), "confidence"),
        (lambda: ufm.penalty_product(ufm.Mixup(3), 0.0), "beta"),
        (lambda: ufm.joint_optimum(ufm.Mixup(3), 0.1, 0.1, samples=0), "samples"),
        (
            lambda: ufm.nuclear_norm_optimum(ufm.UFM(ufm.Targets(np.eye(3)), 3, 0.1, 0.1, classifier=np.eye(3))),
            "problem",
        ),
        (lambda: ufm.nuclear_norm_optimum(ufm.UFM(ufm.Mixup(60).targets(1), 3, 0.1, 0.1)), "problem"),
    ],
)
def test_bad_input_is_named(call, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        call()
