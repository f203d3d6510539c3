import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import ufm
from tests.helpers import strategies
from tests.helpers.networks import following_the_theory
from ufm.labels.targets import pair_labels


def short_of_information(beta: float, groups: int, samples: int = 40_000, K: int = 4) -> ufm.Activations:
    """Return a network at the optimum that sees lambda only up to one of `groups` equal parts of [0, 1]."""
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.integers(K, size=samples)) for _ in range(2))
    lam = torch.from_numpy(rng.random(samples))
    # What it fits is the mean of lambda in the group, taken over the samples themselves.
    group = (lam * groups).long().clamp(max=groups - 1)
    cell = (a * K + b) * groups + group
    mean = torch.bincount(cell, lam, K * K * groups) / torch.bincount(cell, minlength=K * K * groups)
    W = ufm.simplex_etf(K)
    decay = W.square().sum().item() / (K - 1) / beta
    response = ufm.fixed_classifier(W, pair_labels(a, b, mean[cell], K), decay)
    return ufm.Activations(*(torch.as_tensor(x) for x in (response.features, response.logits)), a, b, lam, W)


@pytest.mark.parametrize("groups", [2, 3, 8])
def test_a_network_short_of_information_follows_the_law(groups: int):
    beta = 200.0
    found = ufm.measure_departure(short_of_information(beta, groups), beta)
    assert found.calibration_slope == pytest.approx(1, abs=1e-10)
    assert found.excess_expected == pytest.approx(found.excess, rel=1e-10)
    assert found.lost > 0
    assert found.sharpness < 1


def test_the_less_it_sees_the_more_is_lost():
    lost = [ufm.measure_departure(short_of_information(200.0, groups), 200.0).lost for groups in (2, 4, 16)]
    assert lost[0] > 3 * lost[1] > 9 * lost[2]


def test_a_network_that_is_too_sure_breaks_the_law():
    network = following_the_theory(100.0, samples=4000, noise=1.0)
    louder = ufm.Activations(
        2 * network.features, 2 * network.logits, network.class_a, network.class_b, network.lam, network.classifier
    )
    assert ufm.measure_departure(louder, 100.0).calibration_slope < 0.95


def test_a_network_at_the_closed_form_loses_nothing():
    found = ufm.measure_departure(following_the_theory(300.0, samples=4000), 300.0)
    assert found.excess == pytest.approx(found.excess_theory, rel=1e-9)
    assert found.sharpness == pytest.approx(1, rel=1e-9)
    np.testing.assert_allclose(found.width_ratio, 1, rtol=1e-9)
    for name in ("width", "bias", "spread", "depth", "leak"):
        np.testing.assert_allclose(getattr(found.network, name), getattr(found.theory, name), rtol=1e-7, atol=1e-9)


@given(strategies.seeds, st.integers(3, 6), st.integers(1, 8), st.floats(0, 3).map(lambda e: 10.0**e))
def test_width_is_label_and_bias_and_spread(seed: int, K: int, bins: int, beta: float):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(200, K)) * 3
    a, b, lam = rng.integers(K, size=200), rng.integers(K, size=200), rng.random(200)
    network = ufm.Activations(*(torch.from_numpy(x) for x in (z, z, a, b, lam)), torch.eye(K).double())
    found = ufm.measure_departure(network, beta, bins=bins)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = network.labels.numpy()
    divergence = np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / p), 0).sum(1).mean()
    assert found.excess == pytest.approx(divergence, rel=1e-12)
    split = found.network
    np.testing.assert_allclose(np.add(np.add(split.label, split.bias), split.spread), split.width, atol=1e-12)
    one, other = np.where(lam >= 0.5, a, b), np.where(lam >= 0.5, b, a)
    heavier, rows = np.maximum(lam, 1 - lam), np.arange(200)
    for i in range(bins):
        inside = (a != b) & (np.minimum(((2 * heavier - 1) * bins).astype(int), bins - 1) == i)
        assert split.count[i] == inside.sum()
        if inside.any():
            assert split.width[i] == pytest.approx((z[rows, one] - z[rows, other])[inside].mean(), abs=1e-12)
            ratio = math.log(p[rows, one][inside].mean() / p[rows, other][inside].mean())
            assert split.spread[i] == pytest.approx(split.width[i] - ratio, abs=1e-12)
            assert split.leak[i] == pytest.approx((1 - p[rows, one] - p[rows, other])[inside].mean(), abs=1e-12)
        else:
            assert math.isnan(split.width[i])


def test_a_mean_label_without_a_rest_is_predicted_too():
    """Implied labels with nothing left for other classes: their sum may miss 1 by rounding, on either side."""
    rng = np.random.default_rng(0)
    a, lam = torch.zeros(3000, dtype=torch.int64), torch.from_numpy(rng.uniform(0.5, 1, 3000))
    heavier = torch.from_numpy(rng.uniform(0.6, 0.9, 3000))
    z = torch.stack([torch.log(heavier), torch.log(1 - heavier), torch.full((3000,), -40.0).double()], 1)
    for bins in (1, 3, 50):
        found = ufm.measure_departure(ufm.Activations(z, z, a, a + 1, lam, torch.eye(3).double()), 7.0, bins=bins)
        assert np.isfinite(found.predicted.width).all()


def test_without_mixed_samples_or_with_labels_of_one_class_the_words_are_finite():
    z = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, W = torch.zeros(12, dtype=torch.int64), torch.eye(4).double()
    same = ufm.measure_departure(ufm.Activations(z, z, a, a, torch.rand(12).double(), W), 5.0)
    assert np.isnan(same.network.width).all()
    assert "width" not in same.words()
    one = ufm.measure_departure(ufm.Activations(z, z, a, a + 1, torch.ones(12).double(), W), 5.0)
    assert one.network.label[-1] == math.inf
    assert "nan" not in one.words()
    # Logits of a thousand, whose probabilities are no numbers of float64.
    loud = ufm.measure_departure(ufm.Activations(1e3 * z, 1e3 * z, a, a + 1, torch.full((12,), 0.75).double(), W), 5.0)
    split = loud.network
    assert split.label[2] + split.bias[2] + split.spread[2] == pytest.approx(split.width[2])


@pytest.mark.parametrize("measure", [ufm.certify_network, ufm.measure_departure, ufm.measure_stationarity])
@pytest.mark.usefixtures("unchecked")
def test_numbers_of_any_kind_are_taken_and_no_samples_refused(measure):
    network = following_the_theory(10.0, samples=20)
    plain = measure(network, 0.25)
    for other in (torch.tensor(0.25), np.float32(0.25)):
        assert measure(network, other) == plain
        json.dumps(dataclasses.asdict(measure(network, other)))
    empty = ufm.Activations(*(getattr(network, name)[:0] for name in COLUMNS), network.classifier)
    with pytest.raises(ValueError, match="activations: got no samples"):
        measure(empty, 0.25)


COLUMNS = ("features", "logits", "class_a", "class_b", "lam")


def test_bad_arguments_are_refused():
    network = following_the_theory(10.0)
    with pytest.raises(ValueError, match="beta: got 0"):
        ufm.measure_departure(network, 0.0)
    with pytest.raises(ValueError, match="bins: got 0"):
        ufm.measure_departure(network, 1.0, bins=0)
    two = ufm.Activations(
        torch.zeros(4, 3), torch.zeros(4, 2), *torch.zeros(2, 4, dtype=torch.int64), torch.ones(4), torch.ones(2, 3)
    )
    with pytest.raises(ValueError, match="activations: got 2 classes"):
        ufm.measure_departure(two, 1.0)
