import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ufm
from tests import strategies
from ufm.collapse import lambda_bin, multiplier_of


def collapsed(K: int, d: int, per_class: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    W = ufm.simplex_etf(K, d, 1.5, generator=torch.Generator().manual_seed(0)).numpy()
    classes = np.repeat(np.arange(K), per_class)
    return 3 * W[classes] + 0.7, classes, W


def test_full_collapse_scores_zero():
    features, classes, W = collapsed(5, 6, 4)
    result = ufm.neural_collapse(features, classes, W)
    assert result.nc1 == pytest.approx(0, abs=1e-12)
    assert result.nc2 == pytest.approx(0, abs=1e-12)
    assert result.nc3 == pytest.approx(0, abs=1e-12)


def test_nc1_by_hand():
    # Two classes on a line at means +-1 with variance 0.04: S_within/S_between = 0.04, over K = 2.
    features = np.array([[1.2], [0.8], [-1.2], [-0.8]]) + 5
    result = ufm.neural_collapse(features, np.array([0, 0, 1, 1]), np.array([[1.0], [-1.0]]))
    assert result.nc1 == pytest.approx(0.02)
    assert result.nc3 == pytest.approx(0, abs=1e-12)


@given(strategies.seeds, st.floats(0.01, 1))
def test_measures_notice_each_kind_of_defect(seed: int, size: float):
    rng = np.random.default_rng(seed)
    features, classes, W = collapsed(4, 5, 6)
    noisy = features + size * rng.normal(size=features.shape)
    assert ufm.neural_collapse(noisy, classes, W).nc1 > 0
    stretched = features * np.array([1 + size, 1, 1, 1, 1])
    assert ufm.neural_collapse(stretched, classes, W).nc1 < 1e-10
    assert ufm.neural_collapse(stretched, classes, W).nc2 > 1e-4
    assert ufm.neural_collapse(features, classes, np.roll(W, 1, 0)).nc3 == pytest.approx(np.sqrt(2 + 2 / 3))


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
    index = lambda_bin(lam[mixed], 5)
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
    np.testing.assert_array_equal(lambda_bin(np.array([0, 0.5, 0.999, 1.0]), 2), [0, 1, 1, 1])


def test_multiplier_ignores_an_offset():
    assert multiplier_of(ufm.simplex_etf(6, 6, 2.5) + 7) == pytest.approx(2.5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.neural_collapse(np.ones((4, 2)), np.array([0, 0, 1, 1]), np.ones((3, 2))), "classes"),
        (lambda: ufm.neural_collapse(np.ones((4, 2)), np.array([0, 1]), np.ones((2, 2))), "features"),
        (lambda: ufm.channel_curve(np.ones((2, 2)), [0, 1], [1, 0], [0.5, 0.5]), "logits"),  # pyright: ignore
        (lambda: ufm.neural_collapse(np.ones((3, 2)), np.array([0, 1, 5]), np.ones((3, 2))), "classes"),
        (lambda: ufm.channel_curve(np.ones((2, 3)), [0, 1], [1, 0], [0.5, 7.0]), "lam"),  # pyright: ignore
        (lambda: ufm.channel_curve(np.ones((2, 3)), [0, 1], [1, 0], [0.5, 0.5], bins=0), "bins"),  # pyright: ignore
        (lambda: ufm.channel_curve(np.ones((2, 3)), [0, 1], [0, 1], [0.5, 0.5]), "class_a"),  # pyright: ignore
    ],
)
def test_bad_input_is_named(call, named: str):
    with pytest.raises(ValueError, match=named):
        call()
