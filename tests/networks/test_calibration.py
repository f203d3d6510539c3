import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import optimize, special
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

import ufm
from tests.helpers import strategies
from ufm._support.pairs import bin_index


def drawn(seed: int, N: int = 300, K: int = 5, scale: float = 2.0, temperature: float = 1.0):
    """Logits, and classes drawn from softmax(logits/temperature)."""
    rng = np.random.default_rng(seed)
    z = scale * rng.normal(size=(N, K))
    p = special.softmax(z / temperature, axis=1)
    classes = np.minimum((p.cumsum(1) < rng.random((N, 1))).sum(1), K - 1)
    return z, classes


def of_confidence(confidence: np.ndarray) -> np.ndarray:
    """Two-class logits whose first class has these probabilities, all above 1/2."""
    return np.stack([special.logit(confidence), np.zeros(len(confidence))], 1)


def nll(z: np.ndarray, classes: np.ndarray, temperature: float) -> float:
    return -special.log_softmax(z / temperature, axis=1)[np.arange(len(z)), classes].mean()


def ece_of(sample_bin: np.ndarray, hit: np.ndarray, confidence: np.ndarray) -> float:
    groups = [sample_bin == i for i in np.unique(sample_bin)]
    return sum(g.mean() * abs(hit[g].mean() - confidence[g].mean()) for g in groups)


def test_by_hand():
    # Confidences 0.8, 0.6 (wrong: the second class is true), 0.7, 0.95 on two classes, five bins.
    result = ufm.measure_calibration(of_confidence(np.array([0.8, 0.6, 0.7, 0.95])), np.array([0, 1, 0, 0]), bins=5)
    assert result.accuracy == 0.75
    assert result.confidence == pytest.approx(3.05 / 4)
    assert result.nll == pytest.approx(-math.log(0.8 * 0.4 * 0.7 * 0.95) / 4)
    assert result.brier == pytest.approx(2 * (0.2**2 + 0.6**2 + 0.3**2 + 0.05**2) / 4)
    np.testing.assert_allclose(result.curve.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    assert result.curve.count.sum() == 4
    assert result.curve.count[4] == 1
    # Rounding decides on which side of an edge 0.6 and 0.8 lie: away from edges the error is plain.
    result = ufm.measure_calibration(of_confidence(np.array([0.78, 0.65, 0.7, 0.95])), np.array([0, 1, 0, 0]), bins=5)
    np.testing.assert_array_equal(result.curve.count, [0, 0, 0, 3, 1])
    np.testing.assert_allclose(result.curve.confidence, [np.nan] * 3 + [0.71, 0.95])
    np.testing.assert_allclose(result.curve.accuracy, [np.nan] * 3 + [2 / 3, 1])
    assert result.ece == pytest.approx(0.75 * (0.71 - 2 / 3) + 0.25 * 0.05)
    # In order: 0.65 (wrong), 0.7, 0.78, 0.95, each a bin of its own.
    assert result.ece_adaptive == pytest.approx((0.65 + 0.3 + 0.22 + 0.05) / 4)


def test_a_confidence_on_an_edge_belongs_below_it():
    # Uniform predictions on two and four classes, exactly 1/2 and 1/4; ties go to the lowest class.
    for K in (2, 4):
        result = ufm.measure_calibration(np.zeros((3, K)), np.array([0, 1, 1]), bins=4)
        np.testing.assert_array_equal(result.curve.count, np.eye(4)[4 // K - 1] * 3)
        assert result.accuracy == pytest.approx(1 / 3)
        assert result.nll == pytest.approx(math.log(K))
        assert result.brier == pytest.approx((1 - 1 / K) ** 2 + (K - 1) / K**2)
    certain = ufm.measure_calibration(np.array([[1000.0, 0.0]]), np.array([0]), bins=4)
    np.testing.assert_array_equal(certain.curve.count, [0, 0, 0, 1])
    assert certain.nll == certain.brier == certain.ece == 0
    wrong = ufm.measure_calibration(np.array([[1000.0, 0.0]]), np.array([1]))
    assert (wrong.nll, wrong.brier, wrong.ece, wrong.ece_adaptive) == (1000, 2, 1, 1)


@given(strategies.seeds, st.integers(2, 8), st.floats(0.1, 20))
def test_likelihood_and_brier_are_those_of_scikit_learn(seed: int, K: int, scale: float):
    z, classes = drawn(seed, 50, K, scale, temperature=3.0)
    p = special.softmax(z, axis=1)
    result = ufm.measure_calibration(z, classes)
    labels = list(range(K))
    one_versus_rest = sum(brier_score_loss(classes == k, p[:, k], pos_label=True) for k in labels)
    assert result.brier == pytest.approx(one_versus_rest, abs=1e-14)
    # The oracle clips at an ulp below 1 and takes logarithms of rounded probabilities.
    assert result.nll == pytest.approx(log_loss(classes, p, labels=labels), rel=1e-6, abs=1e-9)
    assert result.accuracy == (p.argmax(1) == classes).mean()
    assert result.confidence == pytest.approx(p.max(1).mean())


def test_binary_brier_is_twice_that_of_one_class():
    z, classes = drawn(1, 200, 2)
    oracle = brier_score_loss(classes, special.softmax(z, axis=1)[:, 1])
    assert ufm.measure_calibration(z, classes).brier == pytest.approx(2 * oracle)


@given(strategies.seeds, st.integers(2, 8), st.integers(1, 30), st.floats(0.1, 6))
def test_curve_is_that_of_scikit_learn(seed: int, K: int, bins: int, scale: float):
    z, classes = drawn(seed, 200, K, scale, temperature=2.0)
    confidence, hit = special.softmax(z, axis=1).max(1), z.argmax(1) == classes
    result = ufm.measure_calibration(z, classes, bins=bins)
    accuracy, mean = calibration_curve(hit, confidence, n_bins=bins, pos_label=True)
    count, curve = np.asarray(result.curve.count), result.curve
    np.testing.assert_allclose(np.asarray(curve.accuracy)[count > 0], accuracy, atol=1e-12)
    np.testing.assert_allclose(np.asarray(curve.confidence)[count > 0], mean, atol=1e-12)
    assert np.isnan(np.asarray(curve.accuracy)[count == 0]).all()
    assert count.sum() == 200
    filled = count[count > 0]
    assert result.ece == pytest.approx(filled @ np.abs(accuracy - mean) / 200, abs=1e-12)
    assert 0 <= result.ece <= 1
    assert 0 <= result.ece_adaptive <= 1


@given(strategies.seeds, st.integers(2, 6), st.integers(1, 20))
def test_adaptive_error_by_scikit_learns_quantiles(seed: int, K: int, bins: int):
    N = 20 * bins
    z, classes = drawn(seed, N, K, temperature=2.0)
    confidence, hit = special.softmax(z, axis=1).max(1), z.argmax(1) == classes
    accuracy, mean = calibration_curve(hit, confidence, n_bins=bins, strategy="quantile", pos_label=True)
    assert len(mean) == bins
    result = ufm.measure_calibration(z, classes, bins=bins)
    assert result.ece_adaptive == pytest.approx(np.abs(accuracy - mean).mean(), abs=1e-12)


@given(strategies.seeds, st.integers(1, 40), st.integers(1, 12), st.integers(1, 8))
def test_equal_confidences_share_an_adaptive_bin(seed: int, N: int, bins: int, distinct: int):
    rng = np.random.default_rng(seed)
    level = rng.integers(distinct, size=N)
    z, classes = of_confidence(0.53 + 0.05 * level), rng.integers(2, size=N)
    confidence = special.softmax(z, axis=1).max(1)
    smaller = (level[None, :] < level[:, None]).sum(1)
    expected = ece_of(smaller * bins // N, classes == 0, confidence)
    result = ufm.measure_calibration(z, classes, bins=bins)
    assert result.ece_adaptive == pytest.approx(expected, abs=1e-12)
    order = rng.permutation(N)
    assert ufm.measure_calibration(z[order], classes[order], bins=bins).ece_adaptive == pytest.approx(
        result.ece_adaptive, abs=1e-12
    )


@given(strategies.seeds, st.integers(1, 5), st.integers(1, 6))
def test_both_errors_agree_where_the_bins_coincide(seed: int, half: int, per_bin: int):
    # As many samples in each of the upper bins; the lower half of the bins is empty, and so are the other adaptive ones
    # when as many bins are asked for as are filled.
    rng = np.random.default_rng(seed)
    inside = rng.uniform(0.1, 0.9, (half, per_bin))
    confidence = (half + np.arange(half)[:, None] + inside).ravel() / (2 * half)
    classes = rng.integers(2, size=half * per_bin)
    wide = ufm.measure_calibration(of_confidence(confidence), classes, bins=2 * half)
    massive = ufm.measure_calibration(of_confidence(confidence), classes, bins=half)
    assert massive.ece_adaptive == pytest.approx(wide.ece, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_calibrated_predictions_have_an_error_that_falls_to_zero(seed: int):
    bins = 10
    for N in (1_000, 16_000, 256_000):
        result = ufm.measure_calibration(*drawn(seed, N), bins=bins)
        # sum_b |S_b|/N with Var S_b <= n_b/4: its mean is at most sqrt(bins/N)/2; by McDiarmid (a sample moves the sum
        # by 1/N at most) it exceeds that by t with probability exp(-2 N t^2), here 1e-9.
        bound = math.sqrt(bins / N) / 2 + math.sqrt(math.log(1e9) / (2 * N))
        assert result.ece < bound
        assert result.ece_adaptive < bound
    spoiled = drawn(seed, 16_000, temperature=4.0)
    assert ufm.measure_calibration(*spoiled, bins=bins).ece > 0.2


@given(strategies.seeds, st.integers(2, 6), st.floats(-2, 2).map(math.exp))
def test_temperature_is_that_of_a_direct_minimiser(seed: int, K: int, temperature: float):
    z, classes = drawn(seed, 80, K, temperature=temperature)
    found = ufm.fit_temperature(z, classes)

    def objective(t: float) -> float:
        return nll(z, classes, math.exp(t))

    grid = np.linspace(-11, 13, 49)
    best = int(np.argmin([objective(t) for t in grid]))
    if best in (0, len(grid) - 1):
        assert found.at_edge
        return
    oracle: Any = optimize.minimize_scalar(objective, bracket=grid[best - 1 : best + 2], options={"xtol": 1e-9})
    assert not found.at_edge
    # Values of a minimum fix its place to the root of their rounding only.
    assert math.log(found.value) == pytest.approx(oracle.x, abs=3e-5)
    assert nll(z, classes, found.value) <= oracle.fun + 1e-14


def test_temperature_by_hand():
    # Two classes, gap 1, three of four right: softmax must say 3/4, so 1/T = log 3.
    z, classes = np.array([[1.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    found = ufm.fit_temperature(z, classes)
    assert found.value == pytest.approx(1 / math.log(3), rel=1e-11)
    assert not found.at_edge


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_temperature_of_drawn_classes_is_recovered(temperature: float):
    N = 40_000
    z, classes = drawn(3, N, temperature=temperature)
    found = ufm.fit_temperature(z, classes)
    # Standard error of 1/T from the Fisher information, the mean variance of a logit under its prediction.
    p = special.softmax(z / temperature, axis=1)
    information = ((p * z**2).sum(1) - (p * z).sum(1) ** 2).mean()
    assert abs(1 / found.value - 1 / temperature) < 5 / math.sqrt(N * information)


@given(strategies.seeds, st.floats(-250, 250).map(lambda e: 10.0**e), st.sampled_from([0.5, 2.0]))
def test_temperature_scales_with_the_logits(seed: int, factor: float, temperature: float):
    z, classes = drawn(seed, 60, 4, temperature=temperature)
    one, other = ufm.fit_temperature(z, classes), ufm.fit_temperature(z * factor, classes)
    assert other.value == pytest.approx(one.value * factor, rel=1e-9)
    assert other.at_edge == one.at_edge


def test_temperature_at_the_edges():
    z, _ = drawn(0, 50)
    right, wrong = z.argmax(1), z.argmin(1)
    low, high = ufm.fit_temperature(z, right), ufm.fit_temperature(z, wrong)
    # Zero and infinity are told by what is small or large beside every difference to the true class's logit.
    gaps = [np.abs(z - z[np.arange(50), k][:, None]) for k in (right, wrong)]
    assert low.at_edge
    assert high.at_edge
    assert low.value == pytest.approx(1e-5 * gaps[0][gaps[0] > 0].min())
    assert high.value == pytest.approx(1e5 * gaps[1].max())
    # One mistake among many keeps the temperature above zero.
    right[0] = wrong[0]
    assert not ufm.fit_temperature(z, right).at_edge
    # Tied with the true class is not exceeding it.
    assert ufm.fit_temperature(np.array([[1.0, 1.0, 0.0]]), np.array([1])).at_edge
    constant = ufm.fit_temperature(np.full((3, 2), 7.0), np.array([0, 1, 1]))
    assert constant == ufm.Temperature(1.0, False)


@given(strategies.seeds, st.integers(2, 6), st.floats(-2, 2).map(math.exp), st.integers(2, 60))
def test_scaling_keeps_accuracy_and_never_raises_likelihood_loss_where_fitted(
    seed: int, K: int, temperature: float, N: int
):
    z, classes = drawn(seed, N, K, temperature=temperature)
    found = ufm.fit_temperature(z, classes)
    before, after = (ufm.measure_calibration(x, classes) for x in (z, z / found.value))
    assert after.accuracy == before.accuracy
    if found.value < 1e3:
        assert after.nll <= before.nll + 1e-12
    report = ufm.calibrate(z, classes, seed=seed)
    assert report.after.accuracy == report.before.accuracy


def test_one_half_is_fitted_and_the_other_measured():
    z, classes = drawn(5, 401, temperature=2.0)
    report = ufm.calibrate(z, classes, bins=12, seed=9)
    order = torch.randperm(401, generator=torch.Generator().manual_seed(9)).numpy()
    fit, rest = order[:200], order[200:]
    fitted = ufm.fit_temperature(z[fit], classes[fit])
    assert (report.temperature, report.at_edge) == (fitted.value, False)
    for found, scale in ((report.before, 1.0), (report.after, fitted.value)):
        expected = ufm.measure_calibration(z[rest] / scale, classes[rest], bins=12)
        for name in ("accuracy", "confidence", "ece", "ece_adaptive", "nll", "brier"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9), name
        np.testing.assert_array_equal(found.curve.count, expected.curve.count)
    assert report.after.ece < report.before.ece
    assert report.after.nll < report.before.nll
    assert ufm.calibrate(z, classes, seed=9).temperature == report.temperature
    assert ufm.calibrate(z, classes, seed=10).temperature != report.temperature


def test_a_temperature_at_the_edge_is_reported():
    z, _ = drawn(2, 60)
    report = ufm.calibrate(z, z.argmax(1))
    assert report.at_edge
    assert report.after.confidence == 1
    assert report.after.nll == 0


def test_scaling_of_close_and_of_huge_logits():
    # Neighbouring floats stay apart after scaling, and nothing overflows to NaN.
    base = np.random.default_rng(0).uniform(1, 4, 200)
    close = np.stack([base, np.nextafter(base, 5), -base], 1)
    assert ufm.calibrate(close, np.ones(200, int)).after.accuracy == 1
    gap, classes = np.array([[1.0, 0.0]] * 40), np.array([0, 0, 0, 1] * 10)
    plain, huge = ufm.calibrate(gap, classes), ufm.calibrate(1e305 * gap, classes)
    assert huge.temperature == pytest.approx(1e305 * plain.temperature)
    assert huge.after.nll == pytest.approx(plain.after.nll)


SCORES = ("accuracy", "confidence", "ece", "ece_adaptive", "nll", "brier")


@given(strategies.seeds, st.integers(2, 6), st.floats(-50, 50))
def test_constants_and_the_order_of_classes_do_not_matter(seed: int, K: int, shift: float):
    rng = np.random.default_rng(seed)
    z, classes = drawn(seed, 60, K, temperature=2.0)
    order = rng.permutation(K)
    shifted = z + shift * rng.normal(size=(60, 1))
    one = ufm.measure_calibration(z, classes)
    for other, names in ((shifted, classes), (z[:, order], np.argsort(order)[classes])):
        result = ufm.measure_calibration(other, names)
        for name in SCORES:
            assert getattr(result, name) == pytest.approx(getattr(one, name), abs=1e-10), name
        assert ufm.fit_temperature(other, names).value == pytest.approx(ufm.fit_temperature(z, classes).value, rel=1e-8)


def test_arrays_come_back_in_kind():
    z, classes = drawn(0, 40)
    tensor = ufm.measure_calibration(torch.from_numpy(z), torch.from_numpy(classes))
    array = ufm.measure_calibration(z, classes)
    for field in dataclasses.fields(array.curve):
        one, other = getattr(array.curve, field.name), getattr(tensor.curve, field.name)
        assert isinstance(one, np.ndarray)
        assert isinstance(other, torch.Tensor)
        np.testing.assert_array_equal(one, other.numpy())
    assert [getattr(array, name) for name in SCORES] == [getattr(tensor, name) for name in SCORES]
    assert isinstance(ufm.calibrate(z, classes).after.curve.edges, np.ndarray)
    learned = torch.from_numpy(z).requires_grad_()
    report = ufm.calibrate(learned, torch.from_numpy(classes))
    assert isinstance(report.after.curve.edges, torch.Tensor)
    assert not report.after.curve.confidence.requires_grad  # pyright: ignore


def test_float32_is_measured_in_float64():
    z, classes = drawn(0, 40)
    single = z.astype(np.float32)
    for one, other in (
        (ufm.measure_calibration(single, classes), ufm.measure_calibration(single.astype(float), classes)),
        (ufm.calibrate(single, classes).after, ufm.calibrate(single.astype(float), classes).after),
    ):
        assert [getattr(one, name) for name in SCORES] == [getattr(other, name) for name in SCORES]
        assert one.curve.confidence.dtype == np.float64
    small = ufm.measure_calibration(z[::-1], classes[::-1].astype(np.int8))
    assert small.nll == pytest.approx(ufm.measure_calibration(z, classes).nll)


@given(strategies.seeds, st.integers(2, 6), st.integers(1, 8))
def test_confidence_curve_by_loops(seed: int, K: int, bins: int):
    rng = np.random.default_rng(seed)
    z, lam = 2 * rng.normal(size=(60, K)), rng.random(60)
    a, b = rng.integers(K, size=60), rng.integers(K, size=60)
    a[0], b[0] = 0, 1
    curve = ufm.confidence_curve(z, a, b, lam, bins=bins)
    rows: list[list[tuple[float, float, float]]] = [[] for _ in range(bins)]
    for i in np.flatnonzero(a != b):
        p = np.exp(z[i]) / np.exp(z[i]).sum()
        label = np.zeros(K)
        label[a[i]], label[b[i]] = lam[i], 1 - lam[i]
        rows[min(int(lam[i] * bins), bins - 1)].append((lam[i], p.max(), float(label[p.argmax()])))
    for i, found in enumerate(rows):
        assert curve.count[i] == len(found)
        expected = np.mean(found, 0) if found else [np.nan] * 3
        got = [curve.lam[i], curve.confidence[i], curve.weight[i]]
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_confidence_curve_of_the_theorys_predictions():
    rng = np.random.default_rng(0)
    K, lam = 5, rng.random(500)
    a = rng.integers(K, size=500)
    b = (a + rng.integers(1, K, size=500)) % K
    labels = np.zeros((500, K))
    labels[np.arange(500), a], labels[np.arange(500), b] = lam, 1 - lam
    curve = ufm.confidence_curve(torch.as_tensor(ufm.prox_logsumexp(labels, 200.0).logits).numpy(), a, b, lam, bins=5)
    index, theory = bin_index(torch.from_numpy(lam), 5).numpy(), np.asarray(ufm.confidence(lam, 200.0, K))
    for i in range(5):
        assert curve.confidence[i] == pytest.approx(theory[index == i].mean())
        assert curve.weight[i] == pytest.approx(np.maximum(lam, 1 - lam)[index == i].mean())
    tensor = ufm.confidence_curve(*(torch.from_numpy(x) for x in (labels, a, b, lam)))
    assert isinstance(tensor.weight, torch.Tensor)


Z, Y, HALF = np.ones((4, 3)), np.array([0, 1, 2, 0]), np.full(4, 0.5)
SAMPLES: list[tuple[Any, Any, str]] = [
    (np.ones(4), Y, "logits"),
    (np.ones((4, 1)), Y, "logits"),
    (np.ones((0, 3)), np.ones(0, int), "logits"),
    (np.full((4, 3), np.nan), Y, "logits"),
    (np.full((4, 3), np.inf), Y, "logits"),
    ("logits", Y, "logits"),
    (Z, Y[:3], "classes"),
    (Z, np.array([0, 1, 2, 3]), "classes"),
    (Z, np.array([0, 1, 2, -1]), "classes"),
    (Z, np.array([0.0, 1, 2, 0]), "classes"),
    (Z, np.array([True, False, True, True]), "classes"),
    (Z, np.array(["a", "b", "c", "d"]), "classes"),
    (Z, [[0], [1, 2]], "classes"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("function", [ufm.measure_calibration, ufm.fit_temperature, ufm.calibrate])
@pytest.mark.parametrize(("logits", "classes", "named"), SAMPLES)
def test_bad_samples_are_named(function: Callable[[Any, Any], object], logits: Any, classes: Any, named: str):
    with pytest.raises(ValueError, match=f"^{named}: got .*, expected "):
        function(logits, classes)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.measure_calibration(Z, Y, bins=0), "bins"),
        (lambda: ufm.measure_calibration(Z, Y, bins=2.5), "bins"),  # pyright: ignore
        (lambda: ufm.calibrate(Z, Y, bins=0), "bins"),
        (lambda: ufm.calibrate(Z, Y, seed=-1), "seed"),
        (lambda: ufm.calibrate(Z[:1], Y[:1]), "logits: got 1 sample"),
        (lambda: ufm.fit_temperature(np.array([[1e308, -1e308]]), np.array([0])), "logits"),
        (lambda: ufm.confidence_curve(Z, Y, Y[::-1], HALF, bins=0), "bins"),
        (lambda: ufm.confidence_curve(Z, Y, Y, HALF), "class_a, class_b"),
        (lambda: ufm.confidence_curve(Z, Y + 1, Y, HALF), "class_a"),
        (lambda: ufm.confidence_curve(Z, Y, Y + 1, HALF), "class_b"),
        (lambda: ufm.confidence_curve(Z, Y, Y[:2], HALF), "class_b"),
        (lambda: ufm.confidence_curve(Z, Y, Y[::-1], HALF[:2]), "lam"),
        (lambda: ufm.confidence_curve(Z, Y, Y[::-1], HALF + 1), "lam"),
        (lambda: ufm.confidence_curve(Z, Y, Y[::-1], HALF * np.nan), "lam"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], named: str):
    with pytest.raises(ValueError, match=f"^{named}.*, expected "):
        call()


@pytest.mark.parametrize("masked", [-1e9, -1e300, -np.inf])
def test_logits_of_impossible_classes_do_not_change_the_temperature(masked: float):
    """As people mask unseen classes, and one sample that is right beyond doubt."""
    z, classes = drawn(11, temperature=3.0)
    plain = ufm.fit_temperature(z, classes)
    wide = np.c_[z, np.full((len(z), 2), masked)]
    found = ufm.fit_temperature(wide, classes)
    assert found.value == pytest.approx(plain.value, rel=1e-10)
    assert not found.at_edge
    # Against SciPy on a grid-free objective: the convex function of 1/T.
    oracle: Any = optimize.minimize_scalar(lambda b: nll(z, classes, 1 / b), bounds=(0.01, 5), method="bounded")
    assert found.value == pytest.approx(1 / oracle.x, rel=1e-4)
    # A sample that is right beyond doubt adds nothing at any temperature of the others' size.
    sure = np.r_[z, [[1e9, 0, 0, 0, 0]]]
    assert ufm.fit_temperature(sure, np.r_[classes, 0]).value == pytest.approx(plain.value, rel=1e-10)
    # All right, but for masked classes: zero, on the scale of the other classes.
    right = ufm.fit_temperature(wide, z.argmax(1))
    assert right.at_edge
    assert right.value < 1e-4
    one, other = ufm.measure_calibration(z, classes), ufm.measure_calibration(wide, classes)
    for name in ("accuracy", "confidence", "ece", "nll", "brier"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-12)
    assert ufm.calibrate(wide, classes).after.nll == pytest.approx(ufm.calibrate(z, classes).after.nll, rel=1e-9)


def test_infinite_logits_are_refused_where_they_mean_nothing():
    for bad in (np.inf, np.nan):
        with pytest.raises(ValueError, match="^logits: got NaN or infinite"):
            ufm.fit_temperature(np.array([[1.0, bad]]), np.array([0]))
    with pytest.raises(ValueError, match="^logits: got NaN or infinite"):
        ufm.fit_temperature(np.full((1, 2), -np.inf), np.array([0]))
    with pytest.raises(ValueError, match="^logits: got -inf for a sample's true class"):
        ufm.measure_calibration(np.array([[1.0, -np.inf]]), np.array([1]))
    with pytest.raises(ValueError, match="^bins: got 1000"):
        ufm.measure_calibration(np.eye(2), np.arange(2), bins=10**20)
