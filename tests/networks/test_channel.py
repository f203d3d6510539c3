"""Channel curves, points and boundary of logits, against the closed form, by hand, and under the symmetries."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import ufm
from tests.helpers import strategies
from ufm._support.pairs import bin_index

Samples = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def of_closed_form(K: int, beta: float, a: np.ndarray, b: np.ndarray, lam: np.ndarray) -> Samples:
    """Logits, classes and coefficients of samples that follow the closed form."""
    labels = np.zeros((len(lam), K))
    labels[np.arange(len(lam)), a] += lam
    labels[np.arange(len(lam)), b] += 1 - lam
    return np.asarray(ufm.prox_logsumexp(labels, beta).logits), a, b, lam


def gaussian(samples: int, seed: int, K: int = 4) -> Samples:
    """Logits whose width and depth are standard normal, whatever lambda."""
    rng = np.random.default_rng(seed)
    width, depth = rng.normal(size=(2, samples))
    logits = np.zeros((samples, K))
    logits[:, 0], logits[:, 2] = depth + width / 2, depth - width / 2
    return logits, np.zeros(samples, int), np.full(samples, 2), rng.random(samples)


@given(st.integers(3, 8), strategies.betas, strategies.seeds)
def test_channel_curve_reads_the_closed_form(K: int, beta: float, seed: int):
    rng = np.random.default_rng(seed)
    lam = rng.uniform(0.05, 0.95, 40)
    a, b = rng.integers(K, size=40), rng.integers(K, size=40)
    a[:2], b[:2] = 0, 1
    labels = np.zeros((40, K))
    labels[np.arange(40), a] += lam
    labels[np.arange(40), b] += 1 - lam
    curve = ufm.channel_curve(ufm.prox_logsumexp(labels, beta).logits, a, b, lam, bins=5)
    mixed = a != b
    assert curve.count.sum() == mixed.sum()
    exact = ufm.channel(lam[mixed], beta, K)
    index = bin_index(torch.from_numpy(lam[mixed]), 5).numpy()
    for i in range(5):
        if (index == i).any():
            assert curve.width[i] == pytest.approx(exact.width[index == i].mean(), rel=1e-6, abs=1e-9)
            assert curve.depth[i] == pytest.approx(exact.depth[index == i].mean(), rel=1e-6, abs=1e-9)
            assert curve.width_std[i] == pytest.approx(exact.width[index == i].std(), rel=1e-5, abs=1e-9)
            assert curve.lam[i] == pytest.approx(lam[mixed][index == i].mean())
        else:
            assert np.isnan(curve.width[i])


def test_confidence_and_bin_edges():
    logits = np.array([[np.log(6.0), np.log(3.0), 0.0]] * 2)
    curve = ufm.channel_curve(logits, np.array([0, 0]), np.array([1, 1]), np.array([0.0, 1.0]), bins=2)
    np.testing.assert_allclose(curve.confidence, 0.6)
    np.testing.assert_array_equal(bin_index(torch.from_numpy(np.array([0, 0.5, 0.999, 1.0])), 2).numpy(), [0, 1, 1, 1])


def test_bands_hold_the_mean_and_come_from_the_seed():
    samples = gaussian(500, 0)
    plain = ufm.channel_curve(*samples, bins=5)
    assert plain.width_band is None
    assert plain.depth_band is None
    curve, again, other = (ufm.channel_curve(*samples, bins=5, resamples=200, seed=seed) for seed in (3, 3, 4))
    for name in ("width", "depth"):
        band, mean = getattr(curve, f"{name}_band"), getattr(curve, name)
        assert band.shape == (2, 5)
        assert (band[0] < mean).all()
        assert (mean < band[1]).all()
        np.testing.assert_array_equal(band, getattr(again, f"{name}_band"))
        assert (band != getattr(other, f"{name}_band")).any()
        np.testing.assert_array_equal(mean, getattr(plain, name))
    assert (curve.width_band != curve.depth_band).all()


def test_bands_have_the_normal_width_and_shrink_with_the_root_of_the_samples():
    lengths = []
    for samples in (400, 6400):
        curve = ufm.channel_curve(*gaussian(samples, 1), bins=2, resamples=2000)
        assert curve.width_band is not None
        assert curve.depth_band is not None
        length = curve.width_band[1] - curve.width_band[0]
        np.testing.assert_allclose(length, 2 * 1.96 * curve.width_std / np.sqrt(curve.count), rtol=0.12)
        np.testing.assert_allclose(
            curve.depth_band[1] - curve.depth_band[0], 2 * 1.96 * curve.depth_std / np.sqrt(curve.count), rtol=0.12
        )
        lengths.append(length.mean())
    assert lengths[0] / lengths[1] == pytest.approx(4, rel=0.15)


def test_bands_cover_the_truth_about_95_times_in_100():
    hits = []
    for seed in range(150):
        curve = ufm.channel_curve(*gaussian(100, seed), bins=1, resamples=120)
        for band in (curve.width_band, curve.depth_band):
            assert band is not None
            hits.append(band[0, 0] <= 0 <= band[1, 0])
    assert 0.9 < np.mean(hits) < 0.975


def test_empty_and_lonely_bins():
    logits, a, b, _ = gaussian(40, 2)
    lam = np.full(40, 0.1)
    lam[0] = 0.9
    curve = ufm.channel_curve(logits, a, b, lam, bins=3, resamples=50)
    np.testing.assert_array_equal(curve.count, [39, 0, 1])
    for band, mean in ((curve.width_band, curve.width), (curve.depth_band, curve.depth)):
        assert band is not None
        assert np.isnan(band[:, 1]).all()
        np.testing.assert_array_equal(band[:, 2], mean[2])
        assert band[0, 0] < mean[0] < band[1, 0]
    assert np.isnan(curve.confidence[1])
    assert curve.width_std[2] == 0


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, "gradient"])
def test_tensors_do_as_well(kind: Any):
    logits, a, b, lam = gaussian(60, 3)
    expected = ufm.channel_curve(logits, a, b, lam), ufm.boundary(logits, a, b, lam)
    z = torch.from_numpy(logits)
    z = z.requires_grad_() if kind == "gradient" else z.to(kind)
    others = torch.from_numpy(a), torch.from_numpy(b).to(torch.int32), torch.from_numpy(lam)
    np.testing.assert_allclose(ufm.channel_curve(z, *others).width, expected[0].width, rtol=1e-5)
    assert ufm.channel_points(z, *others).count.sum() > 0
    assert ufm.boundary(z, *others).slope == pytest.approx(expected[1].slope, rel=1e-5)


@given(st.integers(3, 8), st.floats(-1, 6).map(lambda exponent: 10.0**exponent), strategies.seeds)
def test_points_are_those_of_the_theory(K: int, beta: float, seed: int):
    rng = np.random.default_rng(seed)
    at = (0.5, 0.625, 0.75, 0.9375)
    lam = np.repeat([0.5, 0.625, 0.25, 0.0625], 3)
    a = rng.integers(K, size=12)
    b = (a + rng.integers(1, K, size=12)) % K
    points = ufm.channel_points(*of_closed_form(K, beta, a, b, lam), at=at, half_window=1e-6)
    exact = ufm.channel(np.array(at), beta, K)
    np.testing.assert_array_equal(points.lam, at)
    np.testing.assert_array_equal(points.count, 3)
    np.testing.assert_allclose(points.width, exact.width, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(points.depth, exact.depth, rtol=1e-6, atol=1e-9)


def test_points_by_hand():
    # Heavier class first: widths 3 (lam 0.7), 5 (0.28, so 0.72 for class b), and -1 (0.8, outside of the window).
    logits = np.array([[3.0, 0, 1], [1, 6, 0.5], [0, 1, 0], [9, 0, 0]])
    a, b = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1])
    points = ufm.channel_points(logits, a, b, np.array([0.7, 0.28, 0.8, 0.7]), at=(0.7, 0.5), half_window=0.05)
    np.testing.assert_array_equal(points.count, [2, 0])
    np.testing.assert_allclose(points.width, [4, np.nan])
    np.testing.assert_allclose(points.depth, [(0.5 + 3) / 2, np.nan])


@settings(max_examples=30)
@given(strategies.seeds, st.floats(0, 1))
def test_the_order_of_a_pair_changes_nothing(seed: int, share: float):
    rng = np.random.default_rng(seed)
    K, N = 4, 60
    logits = 3 * rng.normal(size=(N, K))
    a, b = rng.integers(K, size=(2, N))
    a[:3], b[:3] = (0, 1, 1), (1, 0, 1)
    # Sixty-fourths, so that 1 - lam is exact; one half is among them.
    lam = rng.integers(65, size=N) / 64
    lam[0] = 0.5
    swap = rng.random(N) < share
    swapped = logits, np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - lam, lam)
    for measure in (ufm.channel_points, ufm.boundary):
        one, other = (dataclasses.asdict(measure(*x)) for x in ((logits, a, b, lam), swapped))
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("K", "beta"), [(3, 2.0), (5, 60.0), (10, 1e4)])
def test_boundary_tends_to_the_theory_as_the_window_shrinks(K: int, beta: float):
    lam = np.concatenate([(np.arange(20000) + 0.5) / 20000, np.full(K, 0.3)])
    a = np.concatenate([np.arange(20000) % K, np.arange(K)])
    b = np.concatenate([(a[:20000] + 1) % K, np.arange(K)])
    samples = of_closed_form(K, beta, a, b, lam)
    half = ufm.prox_logsumexp(np.array([[0.5, 0.5] + [0.0] * (K - 2)]), beta)
    derivative = 2 * beta / (1 + beta * half.probabilities[0, 0])
    errors = []
    for window in (0.2, 0.05, 0.0125):
        found = ufm.boundary(*samples, half_window=window)
        errors.append(abs(found.slope / derivative - 1))
        ratio = found.slope / derivative
        assert found.amplification == pytest.approx(ratio * ufm.amplification(beta, K), rel=1e-6)
    assert errors[2] < 1e-3
    # The error is of second order in the window.
    assert errors[2] < errors[1] / 10 < errors[0] / 100 or max(errors) < 1e-6
    # lambda is uniform: the density at width 0 is one over the slope.
    density = ufm.boundary(*samples, half_width=0.02).density
    assert density == pytest.approx(1 / derivative, rel=0.05)


def test_boundary_of_a_straight_line_by_hand():
    gamma, n = 8.0, 1600
    lam = (np.arange(n) + 0.5) / n
    labels = np.stack([lam, 1 - lam, np.zeros(n)], 1)
    logits = gamma * (np.concatenate([labels, np.eye(3)]) - 1 / 3) + 5
    a = np.concatenate([np.zeros(n, int), np.arange(3)])
    b = np.concatenate([np.ones(n, int), np.arange(3)])
    samples = logits, a, b, np.concatenate([lam, np.full(3, 0.5)])
    found = ufm.boundary(*samples)
    # Width 2 gamma (lam - 1/2) is uniform in -gamma..gamma; the same-class samples do not count.
    assert found.density == pytest.approx(1 / (2 * gamma), rel=1e-12)
    assert found.slope == pytest.approx(2 * gamma)
    assert found.amplification == pytest.approx(1)
    assert ufm.boundary(*samples, half_width=20.0).density == pytest.approx(1 / 40)


def test_slope_and_ends_by_hand():
    # Widths 1 at 0.5 + 0.1 and -0.4 at 0.5 - 0.05: slope (0.1 + 0.02)/(0.01 + 0.0025). Ends 4 and 2 - 1: mean 2.5.
    logits = np.array([[1.0, 0, 0], [0, 0.4, 0], [50, 0, 0], [0, 4, 0], [2, 2, 0]])
    a, b = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 1, 1, 1])
    lam = np.array([0.6, 0.45, 0.9, 0.2, 0.5])
    found = ufm.boundary(logits, a, b, lam, half_window=0.11)
    assert found.slope == pytest.approx(9.6)
    assert found.amplification == pytest.approx(9.6 / 5)
    assert found.density == pytest.approx(1 / 3)


def test_a_boundary_without_samples_near_is_not_a_number():
    logits, a, b, lam = gaussian(30, 4)
    far = ufm.boundary(logits, a, b, np.where(lam < 0.5, 0.1, 0.9))
    assert np.isnan(far.slope)
    assert far.density > 0
    # No same-class samples: there are no ends to compare with.
    near = ufm.boundary(logits, a, b, lam)
    assert np.isfinite(near.slope)
    assert np.isnan(near.amplification)
    # Same-class ends at 0, where there is no line to compare with.
    flat = ufm.boundary(np.zeros((4, 3)), np.array([0, 0, 0, 1]), np.array([1, 1, 0, 1]), np.array([0.4, 0.55, 1, 1]))
    assert flat.slope == 0
    assert np.isnan(flat.amplification)


_GOOD: dict[str, Any] = {
    "logits": np.ones((2, 3)),
    "class_a": np.array([0, 1]),
    "class_b": np.array([1, 0]),
    "lam": np.array([0.5, 0.5]),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("measure", [ufm.channel_curve, ufm.channel_points, ufm.boundary])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"logits": np.ones((2, 2))}, "logits"),
        ({"logits": np.ones(2)}, "logits"),
        ({"logits": np.array([[0.0, 1, np.nan]] * 2)}, "logits"),
        ({"class_a": np.array([0])}, "class_a"),
        ({"class_a": np.array([0, 3])}, "class_a"),
        ({"class_b": np.array([-1, 0])}, "class_b"),
        ({"class_b": np.array([1.0, 0.5])}, "class_b"),
        ({"class_b": np.array([0, 1])}, "class_a, class_b"),
        ({"lam": np.array([0.5, 7.0])}, "lam"),
        ({"lam": np.array([0.5, np.nan])}, "lam"),
        ({"lam": np.array([0.5])}, "lam"),
    ],
)
def test_bad_samples_are_named(measure, arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        measure(**_GOOD | arguments)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("measure", "arguments", "named"),
    [
        (ufm.channel_curve, {"bins": 0}, "bins"),
        (ufm.channel_curve, {"resamples": -1}, "resamples"),
        (ufm.channel_curve, {"resamples": 2.5}, "resamples"),
        (ufm.channel_curve, {"seed": -1}, "seed"),
        (ufm.channel_points, {"at": (0.5, 0.4)}, "at"),
        (ufm.channel_points, {"at": (1.0,)}, "at"),
        (ufm.channel_points, {"half_window": 0.0}, "half_window"),
        (ufm.boundary, {"half_width": 0.0}, "half_width"),
        (ufm.boundary, {"half_window": -0.1}, "half_window"),
        (ufm.boundary, {"half_window": np.nan}, "half_window"),
    ],
)
def test_bad_settings_are_named(measure, arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}:"):
        measure(**_GOOD | arguments)
