import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import integrate, stats

import ufm
from ufm.labels.quadrature import dirichlet_rule
from ufm.labels.targets import pair_labels


def _beta_nodes(alpha: float, nodes: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    rule = dirichlet_rule(alpha, (1, 1), nodes)
    return rule.parts[:, 0], rule.weights


@given(st.integers(2, 8), st.floats(0.05, 50), st.integers(1, 12))
def test_mixup_targets_are_the_law(K: int, alpha: float, nodes: int):
    targets = ufm.Mixup(K, alpha).targets(nodes)
    assert len(targets) == K + nodes * K * (K - 1) // 2
    assert targets.num_classes == K
    weights, labels = targets.weights.numpy(), targets.labels.numpy()
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-15)
    # Every class is as likely as any other, and pairs of one class have probability 1/K.
    np.testing.assert_allclose(weights @ labels, 1 / K, rtol=1e-10)
    same = targets.class_a == targets.class_b
    assert targets.weights[same].sum().item() == pytest.approx(1 / K)
    if nodes > 1:
        # E ||y||^2 = 1/K + (K-1)/K r, with r = E[lam^2 + (1-lam)^2] = (alpha+1)/(2 alpha+1).
        r = (alpha + 1) / (2 * alpha + 1)
        assert weights @ (labels**2).sum(1) == pytest.approx(1 / K + (K - 1) / K * r)


@given(st.integers(2, 8), st.floats(0.05, 50), st.integers(1, 12))
def test_orbits_have_the_moments_of_the_targets(K: int, alpha: float, nodes: int):
    law = ufm.Mixup(K, alpha)
    targets, orbits = law.targets(nodes), law.orbits(nodes)
    assert orbits.weights.sum().item() == pytest.approx(1)
    np.testing.assert_allclose((orbits.counts * orbits.levels).sum(1), 1, atol=1e-15)
    np.testing.assert_allclose(orbits.counts.sum(1), K)
    for power in (2, 3, 5):
        full = (targets.weights @ targets.labels.pow(power).sum(1)).item()
        short = (orbits.weights @ (orbits.counts * orbits.levels.pow(power)).sum(1)).item()
        assert short == pytest.approx(full)


@given(st.floats(0.05, 50), st.integers(2, 30))
def test_beta_nodes_integrate_polynomials(alpha: float, nodes: int):
    lam, weights = (x.numpy() for x in _beta_nodes(alpha, nodes))
    assert ((lam > 0) & (lam < 1)).all()
    assert (weights > 0).all()
    for degree in (1, 2, 3):
        assert weights @ lam**degree == pytest.approx(stats.beta(alpha, alpha).moment(degree))


def test_beta_nodes_converge_for_smooth_functions():
    lam, weights = (x.numpy() for x in _beta_nodes(2.5, 20))
    density = stats.beta(2.5, 2.5).pdf
    expected = integrate.quad(lambda t: np.cos(3 * t) * density(t), 0, 1, epsabs=1e-13)[0]
    assert weights @ np.cos(3 * lam) == pytest.approx(expected, abs=1e-12)


def test_unmixed_targets():
    targets, orbits = ufm.Unmixed(4).targets(), ufm.Unmixed(4).orbits()
    assert torch.equal(targets.labels, torch.eye(4, dtype=torch.float64))
    assert torch.equal(targets.weights, torch.full((4,), 0.25, dtype=torch.float64))
    assert orbits.levels.tolist() == [[1, 0]]
    assert orbits.counts.tolist() == [[1, 3]]
    assert orbits.weights.tolist() == [1]


def test_pair_labels_of_one_class_are_exact():
    labels = pair_labels(torch.tensor([1, 0]), torch.tensor([1, 2]), torch.tensor([0.3, 0.3]), 3)
    torch.testing.assert_close(labels, torch.tensor([[0, 1, 0], [0.3, 0, 0.7]]), rtol=0, atol=0)


def test_own_targets_have_equal_weights_by_default():
    targets = ufm.Targets(np.array([[1.0, 0], [0.5, 0.5]]))
    assert targets.weights.tolist() == [0.5, 0.5]
    moved = ufm.Mixup(3).targets(2).to("cpu", torch.float32)
    assert moved.labels.dtype == moved.weights.dtype == torch.float32
    assert moved.class_a is not None
    assert moved.class_a.dtype == torch.int64


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("labels", "weights", "extra", "named"),
    [
        ([[0.5, 0.6]], None, {}, "labels"),
        ([[np.nan, 1.0]], None, {}, "labels"),
        ([0.5, 0.5], None, {}, "labels"),
        ([[0.5, 0.5]], [0.5, 0.5], {}, "weights"),
        ([[0.5, 0.5]], [0.9], {}, "weights"),
        ([[0.5, 0.5]] * 2, [1.5, -0.5], {}, "weights"),
        ([[0.5, 0.5]] * 2, [1.0, 0.0], {}, "weights"),
        ([[0.5, 0.5]] * 2, None, {"lam": [0.5]}, "lam"),
    ],
)
def test_bad_targets_are_named(labels: list, weights: list | None, extra: dict, named: str):
    with pytest.raises(ValueError, match=named):
        ufm.Targets(labels, weights, **extra)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ufm.Mixup(1), "num_classes"),
        (lambda: ufm.Mixup(3, 0.0), "alpha"),
        (lambda: ufm.Mixup(3, -1.0), "alpha"),
        (lambda: ufm.Mixup(3, float("nan")), "alpha"),
        (lambda: ufm.Unmixed(0), "num_classes"),
        (lambda: ufm.Mixup(3).targets(0), "nodes"),
        (lambda: ufm.Mixup(3).orbits(2.5), "nodes"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_laws_are_named(make, named: str):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.usefixtures("unchecked")
def test_weights_of_zero_and_of_a_wrong_sum_are_refused_and_a_rounded_one_is_not():
    labels = np.eye(2)
    ufm.Targets(labels, np.array([0.5, 0.5 + 1e-9]))
    for weights in ([0.5, 0.5 + 1e-6], [0.5, 0.4], [1.0, 0.0]):
        with pytest.raises(ValueError, match="weights"):
            ufm.Targets(labels, np.array(weights))


def test_levels_count_every_class_once():
    from ufm.labels.targets import pair_levels

    levels, counts = pair_levels(torch.tensor([0.25]), 7)
    assert levels.tolist() == [[0.25, 0.75, 0.0]]
    assert counts.tolist() == [[1.0, 1.0, 5.0]]
