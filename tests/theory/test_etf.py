import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import ufm
from tests.helpers import strategies
from ufm.theory.etf import centred_basis


@given(st.integers(2, 30), st.integers(0, 5), st.floats(0.01, 100), strategies.seeds, st.booleans())
def test_simplex_etf_has_its_gram_matrix(K: int, extra: int, multiplier: float, seed: int, random: bool):
    generator = torch.Generator().manual_seed(seed) if random else None
    W = ufm.simplex_etf(K, K - 1 + extra, multiplier, generator=generator)
    assert W.shape == (K, K - 1 + extra)
    ideal = multiplier**2 * K / (K - 1) * (np.eye(K) - 1 / K)
    np.testing.assert_allclose(W @ W.T, ideal, atol=1e-13 * multiplier**2)


def test_simplex_etf_defaults_and_dtype():
    assert ufm.simplex_etf(4).shape == (4, 4)
    assert ufm.simplex_etf(4, dtype=torch.float32).dtype == torch.float32
    generators = [torch.Generator().manual_seed(s) for s in (0, 0, 1)]
    first, again, other = (ufm.simplex_etf(4, 6, generator=g) for g in generators)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_random_orientation_is_uniform():
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([ufm.simplex_etf(3, 2, generator=generator)[0] for _ in range(2000)])
    # The mean of 2000 uniform unit vectors has norm about 1/sqrt(2000); a fixed orientation would give 1.
    assert rows.mean(0).norm() < 5 / 2000**0.5


@pytest.mark.parametrize("K", [2, 3, 7])
def test_centred_basis_spans_the_sum_zero_vectors(K: int):
    B = centred_basis(K)
    np.testing.assert_allclose(B.T @ B, np.eye(K - 1), atol=1e-15)
    np.testing.assert_allclose(B @ B.T, np.eye(K) - 1 / K, atol=1e-15)


@given(st.integers(2, 12), strategies.seeds, st.floats(0.01, 100))
def test_nearest_etf_of_an_etf_is_itself(K: int, seed: int, multiplier: float):
    W = ufm.simplex_etf(K, K + 1, multiplier, generator=torch.Generator().manual_seed(seed))
    nearest = ufm.nearest_etf(W)
    torch.testing.assert_close(nearest.classifier, W, rtol=0, atol=1e-12 * multiplier)
    assert nearest.multiplier == pytest.approx(multiplier, rel=1e-12)
    assert nearest.relative_error < 1e-12


@given(st.integers(2, 8), strategies.seeds)
def test_no_other_etf_is_nearer(K: int, seed: int):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(K, K + 1))
    nearest = ufm.nearest_etf(W)
    assert isinstance(nearest.classifier, np.ndarray)
    best = np.linalg.norm(W - nearest.classifier)
    assert nearest.relative_error == pytest.approx(best / np.linalg.norm(W))
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.9, 1.0, 1.1):
        other = ufm.simplex_etf(K, K + 1, scale * nearest.multiplier, generator=generator).numpy()
        assert np.linalg.norm(W - other) >= best
        assert np.linalg.norm(W - scale * nearest.classifier) >= best
    # Small rotations of the nearest one: it is a local minimum over the orthogonal group too.
    skew = rng.normal(size=(K + 1, K + 1))
    rotation = torch.matrix_exp(torch.from_numpy(0.01 * (skew - skew.T))).numpy()
    assert np.linalg.norm(W - nearest.classifier @ rotation) >= best


@given(st.integers(3, 8), strategies.seeds)
def test_plane_is_isometric_and_an_etf_triple_equilateral(K: int, seed: int):
    W = ufm.simplex_etf(K, K + 2, 1.7, generator=torch.Generator().manual_seed(seed)).numpy()
    plane = ufm.classifier_plane(W[:3])
    np.testing.assert_allclose(plane.matrix @ plane.matrix.T, np.eye(2), atol=1e-12)
    corners = plane.project(W[:3])
    assert isinstance(corners, np.ndarray)
    np.testing.assert_allclose(corners.sum(0), 0, atol=1e-12)
    sides = [np.linalg.norm(corners[i] - corners[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    np.testing.assert_allclose(sides, 1.7 * np.sqrt(2 * K / (K - 1)), rtol=1e-12)
    # Class 0 to the right of class 1, class 2 on top.
    assert corners[0, 0] > corners[1, 0]
    assert corners[2, 1] > max(corners[0, 1], corners[1, 1])


@given(strategies.seeds)
def test_plane_of_any_triangle_keeps_distances_within_it(seed: int):
    rows = np.random.default_rng(seed).normal(size=(3, 5))
    corners = ufm.classifier_plane(rows).project(rows)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        assert np.linalg.norm(corners[i] - corners[j]) == pytest.approx(np.linalg.norm(rows[i] - rows[j]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1,), "num_classes"),
        ((3.5,), "num_classes"),
        ((True,), "num_classes"),
        ((5, 3), "dim"),
        ((5, 5, 0.0), "multiplier"),
        ((5, 5, float("nan")), "multiplier"),
        ((5, 5, "x"), "multiplier"),
    ],
)
def test_bad_etf_arguments_are_named(arguments: tuple, named: str):
    with pytest.raises(ValueError, match=named):
        ufm.simplex_etf(*arguments)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("W", [np.zeros((3, 3)), np.ones((5, 3)), np.ones(4), np.full((3, 3), np.nan), np.ones((1, 3))])
def test_bad_classifiers_are_named(W: np.ndarray):
    with pytest.raises(ValueError, match="W"):
        ufm.nearest_etf(W)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("rows", [np.ones((3, 4)), np.ones((2, 4)), np.arange(3.0)[:, None] * np.ones((3, 4))])
def test_bad_plane_rows_are_named(rows: np.ndarray):
    with pytest.raises(ValueError, match="rows"):
        ufm.classifier_plane(rows)


@pytest.mark.usefixtures("unchecked")
def test_a_narrow_triangle_is_no_line_and_three_coordinates_are_not_needed():
    thin = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1e-5]])
    corners = ufm.classifier_plane(thin).project(thin)
    assert np.linalg.norm(corners[0] - corners[1]) == pytest.approx(1)
    for size in (1e-4, 1.0, 1e4):  # the cut-off is relative
        assert ufm.classifier_plane(size * thin).project(size * thin).shape == (3, 2)
        with pytest.raises(ValueError, match="rows"):
            ufm.classifier_plane(size * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1e-8]]))
    with pytest.raises(ValueError, match="rows"):
        ufm.classifier_plane(np.ones((3, 1)))


@pytest.mark.parametrize("K", [2, 5])
def test_fewest_dimensions_are_enough_and_one_less_is_not(K: int):
    W = ufm.simplex_etf(K, K - 1)
    assert ufm.nearest_etf(W).relative_error < 1e-12
    if K > 2:
        with pytest.raises(ValueError, match="W"):
            ufm.nearest_etf(W[:, :-1])


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-69, 1e200, 1e307])
def test_nearest_etf_at_every_scale(scale: float):
    W = np.random.default_rng(2).normal(size=(4, 5))
    expected, found = ufm.nearest_etf(W), ufm.nearest_etf(scale * W)
    assert found.relative_error == pytest.approx(expected.relative_error, rel=1e-9)
    assert found.multiplier / scale == pytest.approx(expected.multiplier, rel=1e-9)
    np.testing.assert_allclose(np.asarray(found.classifier) / scale, np.asarray(expected.classifier), rtol=1e-8)
    # Entries of all sizes at once: the large one alone counts.
    mixed = ufm.nearest_etf(np.diag([1e-69, 1e308, 1.0]))
    alone = ufm.nearest_etf(np.diag([0.0, 1.0, 0.0]))
    assert mixed.relative_error == pytest.approx(alone.relative_error, rel=1e-12)
