"""Soft labels are read back: classes, weights, smoothing, and the law of their coefficients."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import optimize, stats

import ufm
from tests.helpers import strategies


def drawn(K: int, samples: int, alpha: float, seed: int, smoothing: float = 0.0) -> ufm.PairTargets:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(K, size=(2, samples))
    return ufm.PairTargets(K, a, b, rng.beta(alpha, alpha, samples), smoothing=smoothing)


@given(strategies.seeds, st.integers(3, 9), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from(["float64", "float32"]))
def test_pairs_are_read_back(seed: int, K: int, smoothing: float, dtype: str):
    targets = drawn(K, 40, 1.0, seed, smoothing)
    found = ufm.decode_labels(targets.labels.numpy().astype(dtype))
    a, b, lam = targets.class_a, targets.class_b, targets.lam
    first, second = torch.minimum(a, b), torch.maximum(a, b)
    # A weight that float32 cannot tell from the smoothing is none.
    clear = (torch.minimum(lam, 1 - lam) > 1e-3) | (a == b)
    assert torch.equal(found.class_a[clear], first[clear])
    assert torch.equal(found.class_b[clear], second[clear])
    expected = torch.where(a == b, 1.0, torch.where(a <= b, lam, 1 - lam))
    np.testing.assert_allclose(found.lam, expected, atol=1e-5)
    assert found.smoothing == pytest.approx(smoothing, abs=1e-6)
    assert torch.equal(found.classes[clear], torch.where(a == b, 1, 2)[clear])
    assert bool(found.in_pair.all())


def test_ties_keep_both_classes():
    found = ufm.decode_labels(np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]))
    assert found.class_a.tolist() == [0, 1]
    assert found.class_b.tolist() == [2, 1]
    assert found.lam.tolist() == [0.5, 1.0]


def test_three_classes_are_told_from_pairs_and_from_smoothing():
    y = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]])
    found = ufm.decode_labels(y)
    assert found.smoothing == 0
    assert found.classes.tolist() == [3, 2, 1]
    assert found.in_pair.tolist() == [False, True, True]
    # The weights among the two heaviest.
    np.testing.assert_allclose(found.lam, [0.5 / 0.8, 0.6, 1.0])
    smoothed = ufm.decode_labels(0.9 * y + 0.1 / 3)
    assert smoothed.smoothing == pytest.approx(0.1)
    assert smoothed.classes.tolist() == [3, 2, 1]


def test_a_teachers_labels_have_no_smoothing():
    y = torch.softmax(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), 1)
    found = ufm.decode_labels(y)
    assert found.smoothing == 0
    assert not bool(found.in_pair.any())


def test_smoothing_may_be_given_where_it_cannot_be_read():
    y = 0.8 * np.array([[0.3, 0.7]]) + 0.1
    assert ufm.decode_labels(y, smoothing=0.2).lam.item() == pytest.approx(0.3)


def test_classes_are_labels_too():
    found = ufm.decode_labels(np.array([2, 0]), 4)
    assert (found.num_classes, found.class_a.tolist(), found.class_b.tolist()) == (4, [2, 0], [2, 0])
    assert found.lam.tolist() == [1, 1]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize(("smoothing", "dtype"), [(0.0, torch.float32), (0.1, torch.float64), (0.1, torch.bfloat16)])
def test_alpha_is_estimated_though_small_weights_are_not_seen(alpha: float, smoothing: float, dtype: torch.dtype):
    targets = drawn(10, 20_000, alpha, 3, smoothing)
    found = ufm.summarise_labels(targets.labels.to(dtype))
    assert found.alpha is not None
    assert found.alpha_error is not None
    assert found.alpha == pytest.approx(alpha, abs=4 * found.alpha_error)
    assert found.alpha_error < 0.05 * alpha
    assert found.per_batch is False
    assert found.smoothing == pytest.approx(smoothing, rel=2**-7)
    if dtype != torch.bfloat16:
        # SciPy's own fit of a Beta law, to the same samples.
        lam = targets.lam[(targets.class_a != targets.class_b)].numpy()
        lam = lam[(lam > 0) & (lam < 1)]
        reference = optimize.minimize_scalar(
            lambda x: -stats.beta.logpdf(lam, x, x).sum(), bounds=(0.05, 20), method="bounded"
        )
        assert found.alpha == pytest.approx(reference.x, rel=0.03)
        assert found.one == pytest.approx((targets.class_a == targets.class_b).double().mean().item(), abs=0.07)


def test_one_coefficient_a_batch_and_the_share_that_is_mixed_are_seen():
    rng = np.random.default_rng(0)
    rows = []
    for batch in range(200):
        a, b = rng.integers(10, size=(2, 32))
        lam = rng.beta(1, 1) if batch % 2 else 1.0
        rows.append(ufm.PairTargets(10, a, b, np.full(32, lam)).labels)
    found = ufm.summarise_labels(torch.cat(rows))
    assert found.per_batch is True
    assert found.mixed == pytest.approx(0.5, abs=0.02)
    assert "one per batch" in found.words()


def test_words_say_what_is_there():
    one = ufm.summarise_labels(np.eye(4))
    assert (one.one, one.alpha, one.per_batch) == (1, None, None)
    assert one.words() == "4 labels of one class each"
    y = ufm.LabelSmoothing(ufm.Mixup(4, ways=3), 0.1).targets(3).labels
    words = ufm.summarise_labels(y).words()
    assert "of more" in words
    assert "smoothing 0.1" in words


def test_extreme_laws_have_extreme_estimates():
    halves = ufm.PairTargets(3, np.array([0, 1]), np.array([1, 2]), np.array([0.5, 0.5])).labels
    assert ufm.summarise_labels(halves).alpha == math.inf


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("labels", "arguments", "named"),
    [
        (np.array([[0.5, 0.6]]), {}, "labels"),
        (np.array([[1.5, -0.5]]), {}, "labels"),
        (np.array([0.5, 1.5]), {}, "labels"),
        (np.array([0, 5]), {"num_classes": 4}, "labels"),
        (np.eye(3), {"num_classes": 4}, "labels"),
        (np.zeros((0, 3)), {}, "labels"),
        (np.array([], dtype=np.int64), {}, "labels"),
        (np.full((2, 3), 1 / 3), {}, "labels"),
        (np.eye(3), {"smoothing": 0.2}, "smoothing"),
        (np.eye(3), {"smoothing": 1.0}, "smoothing"),
        ("labels", {}, "labels"),
    ],
)
def test_bad_input_is_named(labels: object, arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.decode_labels(labels, **arguments)


def test_float32_labels_that_were_widened_are_taken():
    y = torch.softmax(torch.randn(2000, 1000, generator=torch.Generator().manual_seed(0)), 1)
    assert len(ufm.Targets(y.double())) == 2000
    with pytest.raises(ValueError, match="^labels"):
        ufm.Targets(y.double() * 1.001)


def test_every_pair_of_classes_of_every_size():
    for K in (2, 3, 30):
        pairs = list(itertools.combinations(range(K), 2))
        y = np.zeros((len(pairs), K))
        for row, (a, b) in zip(y, pairs, strict=True):
            row[[a, b]] = 0.25, 0.75
        found = ufm.decode_labels(y, smoothing=0.0)
        assert list(zip(found.class_a.tolist(), found.class_b.tolist(), strict=True)) == pairs
        assert set(found.lam.tolist()) == {0.25}
