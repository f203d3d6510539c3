import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import ufm
from tests.helpers import strategies
from ufm.theory.collapse import multiplier_of


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
    assert result.nc4 == 0


def test_nc1_by_hand():
    # Two classes on a line at means +-1 with variance 0.04: S_within/S_between = 0.04, over K = 2.
    features = np.array([[1.2], [0.8], [-1.2], [-0.8]]) + 5
    result = ufm.neural_collapse(features, np.array([0, 0, 1, 1]), np.array([[1.0], [-1.0]]))
    assert result.nc1 == pytest.approx(0.02)
    assert result.nc3 == pytest.approx(0, abs=1e-12)


def test_nc4_by_hand():
    # Means at -1, 0, 4 on a line, where the nearest mean changes at -1/2 and 2. The classifier's scores -h, 0 and h - 1
    # change at 0 and 1: it disagrees on -0.4 (class 0, nearest mean 1), and on 1.8 and 1.5 (class 2, nearest mean 1).
    line = np.array([[-1.6], [-0.4], [-1.0], [-1.9], [0.1], [1.8], [4.0], [1.5], [6.5]])
    classes = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    W, b = np.array([[-1.0], [0.0], [1.0]]), np.array([0.0, 0.0, -1.0])

    def nc4(classifier: np.ndarray, bias: np.ndarray) -> float:
        return ufm.neural_collapse(line * [1, 0], classes, classifier * [1, 0], bias).nc4

    assert nc4(W, b) == pytest.approx(3 / 9)
    # With the scores of the nearest mean, mu_k h - mu_k^2/2, they agree everywhere.
    mu = np.array([[-1.0], [0.0], [4.0]])
    assert nc4(mu, -(mu[:, 0] ** 2) / 2) == 0
    # A bias that outweighs the features sends all to class 2, which is the nearest mean of two of them.
    assert nc4(W, np.array([0.0, 0.0, 100.0])) == pytest.approx(7 / 9)


@given(strategies.seeds, st.floats(0, 3))
def test_nc4_by_distances_and_its_invariances(seed: int, noise: float):
    rng = np.random.default_rng(seed)
    K, d = 4, 5
    classes = np.concatenate([np.arange(K), rng.integers(K, size=40)])
    features = 3 * rng.normal(size=(K, d))[classes] + noise * rng.normal(size=(len(classes), d))
    W, b = rng.normal(size=(K, d)), rng.normal(size=K)
    means = np.stack([features[classes == k].mean(0) for k in range(K)])
    nearest = np.linalg.norm(features[:, None] - means, axis=2).argmin(1)
    expected = np.mean((features @ W.T + b).argmax(1) != nearest)
    found = ufm.neural_collapse(features, classes, W, b)
    assert found.nc4 == pytest.approx(expected)
    rows, order = rng.permutation(len(classes)), rng.permutation(K)
    renamed = np.argsort(order)[classes]
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    offset = 100 * rng.normal(size=d)
    for same in (
        ufm.neural_collapse(features[rows], classes[rows], W, b),
        ufm.neural_collapse(features, renamed, W[order], b[order]),
        ufm.neural_collapse(features @ Q, classes, W @ Q, b),
        ufm.neural_collapse(features + offset, classes, W, b - W @ offset),
        ufm.neural_collapse(features, classes, 7 * W, 7 * b + 3),
        ufm.neural_collapse(*(torch.from_numpy(x) for x in (features, classes, W, b))),
    ):
        assert same.nc4 == pytest.approx(expected)
    # The bias is seen by nc4 alone.
    without = ufm.neural_collapse(features, classes, W)
    assert (without.nc1, without.nc2, without.nc3) == (found.nc1, found.nc2, found.nc3)
    assert without.nc4 == ufm.neural_collapse(features, classes, W, np.zeros(K)).nc4


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


def test_multiplier_ignores_an_offset():
    assert multiplier_of(ufm.simplex_etf(6, 6, 2.5) + 7) == pytest.approx(2.5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.neural_collapse(np.ones((4, 2)), np.array([0, 0, 1, 1]), np.ones((3, 2))), "classes"),
        (lambda: ufm.neural_collapse(np.ones((4, 2)), np.array([0, 1]), np.ones((2, 2))), "classes"),
        (lambda: ufm.neural_collapse(np.ones((3, 2)), np.array([0, 1, 5]), np.ones((3, 2))), "classes"),
        (lambda: ufm.neural_collapse(np.eye(2), np.array([0, 1]), np.eye(2), np.ones(3)), "bias"),
        (lambda: ufm.neural_collapse(np.eye(2), np.array([0, 1]), np.eye(2), np.ones((2, 1))), "bias"),
        (lambda: ufm.neural_collapse(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, np.nan])), "bias"),
    ],
)
def test_bad_input_is_named(call, named: str):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e-305])
def test_measures_do_not_depend_on_the_scale(scale: float):
    rng = np.random.default_rng(4)
    classes = np.arange(30) % 3
    W, b = rng.normal(size=(3, 4)), rng.normal(size=3)
    features = rng.normal(size=(30, 4)) + 3 * W[classes]
    expected = ufm.neural_collapse(features, classes, W, b)
    for found in (
        ufm.neural_collapse(scale * features, classes, W, scale * b),
        ufm.neural_collapse(features, classes, scale * W, scale * b),
    ):
        for name in ("nc1", "nc2", "nc3", "nc4"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9)


@pytest.mark.parametrize(
    ("features", "classifier", "named"),
    [
        (np.eye(3), np.zeros((3, 3)), "classifier: got rows that are all equal"),
        (np.eye(3), np.full((3, 3), 0.1), "classifier: got rows that are all equal"),
        (np.full((3, 3), 0.1), np.eye(3), "features: got class means that are all equal"),
        (np.zeros((3, 3)), np.eye(3), "features: got class means that are all equal"),
    ],
)
def test_what_has_no_directions_is_named(features: np.ndarray, classifier: np.ndarray, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.neural_collapse(features, np.arange(3), classifier)


def test_more_classes_than_an_etf_has_room_for():
    """NC1 against its definition by NumPy; there is no simplex ETF of 6 rows in the plane."""
    rng = np.random.default_rng(1)
    classes = np.arange(60) % 6
    features = rng.normal(size=(60, 2)) + 2 * rng.normal(size=(6, 2))[classes]
    found = ufm.neural_collapse(features, classes, rng.normal(size=(6, 2)))
    means = np.stack([features[classes == k].mean(0) for k in range(6)])
    centred = means - means.mean(0)
    within = features - means[classes]
    expected = np.trace(within.T @ within / 60 @ np.linalg.pinv(centred.T @ centred / 6)) / 6
    assert found.nc1 == pytest.approx(expected, rel=1e-12)
    assert np.isnan(found.nc2)
    assert np.isfinite([found.nc3, found.nc4]).all()
