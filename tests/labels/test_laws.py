import itertools
import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import integrate, special, stats

import ufm
from ufm.labels.laws import Law
from ufm.labels.quadrature import dirichlet_rule, symmetric_rule, symmetric_size

LAWS = [
    ufm.Unmixed(4),
    ufm.Mixup(4, 0.7),
    ufm.Mixup(3, 2.0, ways=3),
    ufm.Mixup(5, 0.4, pairs="different"),
    ufm.Mixup(4, 1.5, pairs="same"),
    ufm.Mixup(3, 1.0, ways=3, pairs="different"),
    ufm.CutMix(4, 1.0),
    ufm.LabelSmoothing(5, 0.1),
    ufm.LabelSmoothing(ufm.Mixup(4, 1.0), 0.2),
    ufm.LabelSmoothing(ufm.Mixup(3, 0.5, ways=3), 0.05),
    ufm.Mixup(4, math.inf),
]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_orbits_are_the_targets_reduced(law: Law):
    targets, orbits = law.targets(3), law.orbits(3)
    assert isinstance(law, Law)
    assert targets.num_classes == orbits.num_classes == law.num_classes
    assert targets.weights.sum().item() == pytest.approx(1, abs=1e-14)
    assert orbits.weights.sum().item() == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose((orbits.counts * orbits.levels).sum(1), 1, atol=1e-14)
    np.testing.assert_allclose(orbits.counts.sum(1), law.num_classes)
    np.testing.assert_allclose(targets.weights @ targets.labels, 1 / law.num_classes, atol=1e-14)
    for power in (2, 3, 7):
        full = (targets.weights @ targets.labels.pow(power).sum(1)).item()
        short = (orbits.weights @ (orbits.counts * orbits.levels.pow(power)).sum(1)).item()
        assert short == pytest.approx(full, rel=1e-12)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_custom_law_of_the_same_targets_has_the_same_optimum(law: Law):
    targets = law.targets(2)
    custom = ufm.CustomLaw(targets.labels.numpy(), targets.weights.numpy())
    expected = ufm.joint_optimum(law, 0.01, 0.02, nodes=2)
    found = ufm.joint_optimum(custom, 0.01, 0.02)
    assert found.objective == pytest.approx(expected.objective, rel=1e-12)
    assert found.beta == pytest.approx(expected.beta, rel=1e-9)
    assert found.quadrature_error == 0


@pytest.mark.parametrize("ways", [2, 3, 4])
def test_coinciding_draws_have_their_probabilities(ways: int):
    K = 3
    law = ufm.Mixup(K, 1.0, ways=ways)
    orbits = law.orbits(2)
    draws = np.array(list(itertools.product(range(K), repeat=ways)))
    distinct = np.array([len(set(draw)) for draw in draws])
    blocks = (orbits.counts[:, :-1] > 0).sum(1).numpy()
    for b in range(1, min(K, ways) + 1):
        assert orbits.weights.numpy()[blocks == b].sum() == pytest.approx((distinct == b).mean())


def test_three_way_labels_against_sampling():
    K, alpha = 4, 0.8
    rng = np.random.default_rng(0)
    lam = rng.dirichlet([alpha] * 3, 400_000)
    labels = np.zeros((len(lam), K))
    for i in range(3):
        labels[np.arange(len(lam)), rng.integers(K, size=len(lam))] += lam[:, i]
    targets = ufm.Mixup(K, alpha, ways=3).targets(12)
    for power in (2, 3, 5):
        sampled = (labels**power).sum(1)
        exact = (targets.weights @ targets.labels.pow(power).sum(1)).item()
        assert abs(exact - sampled.mean()) < 5 * sampled.std() / math.sqrt(len(sampled))


def test_class_priors_weigh_the_targets_and_are_refused_by_closed_forms():
    priors = (0.5, 0.3, 0.2)
    for law in (ufm.Mixup(3, 1.0, priors=priors), ufm.Unmixed(3, priors), ufm.Mixup(3, 1.0, ways=3, priors=priors)):
        targets = law.targets(4)
        np.testing.assert_allclose(targets.weights @ targets.labels, priors, atol=1e-14)
        with pytest.raises(ValueError, match="priors: .*solve UFM"):
            law.orbits()
        with pytest.raises(ValueError, match="priors"):
            ufm.joint_optimum(law, 0.01, 0.01)
        assert ufm.solve(ufm.UFM(targets, 3, 0.01, 0.01), tol=1e-9).converged
    equal = ufm.Mixup(3, 1.0, priors=(1 / 3, 1 / 3, 1 / 3))
    assert ufm.joint_optimum(equal, 0.01, 0.01).beta == ufm.joint_optimum(ufm.Mixup(3), 0.01, 0.01).beta


def test_an_unsymmetric_custom_law_is_refused():
    labels = np.eye(3)
    with pytest.raises(ValueError, match="labels: .*classes 1 and 2"):
        ufm.CustomLaw(labels, np.array([0.25, 0.25, 0.5])).orbits()
    assert len(ufm.CustomLaw(labels, np.array([0.25, 0.25, 0.5])).targets()) == 3
    with pytest.raises(ValueError, match="labels: .*exchanging"):
        ufm.CustomLaw(np.array([[0.6, 0.4, 0], [0.4, 0.6, 0]])).orbits()


def test_extreme_alpha_tend_to_no_mixing_and_to_halves():
    plain = ufm.joint_optimum(ufm.Unmixed(10), 1e-3, 1e-3)
    rare = ufm.joint_optimum(ufm.Mixup(10, 1e-7), 1e-3, 1e-3)
    assert rare.beta == pytest.approx(plain.beta, rel=1e-5)
    assert rare.objective == pytest.approx(plain.objective, rel=1e-4)
    halves = ufm.joint_optimum(ufm.Mixup(10, math.inf), 1e-3, 1e-3)
    assert halves.quadrature_error == 0
    assert ufm.joint_optimum(ufm.Mixup(10, 1e7), 1e-3, 1e-3).beta == pytest.approx(halves.beta, rel=1e-6)
    assert ufm.Mixup(3, math.inf).targets(5).lam is not None


@given(st.floats(0.05, 60), st.floats(0.05, 60))
def test_continuous_rule_has_the_moments_of_beta(a: float, b: float):
    rule = dirichlet_rule(1.0, (a, b), None, level=5)
    assert (rule.weights >= 0).all()
    np.testing.assert_allclose(rule.parts.sum(1), 1, atol=1e-15)
    for k in (1, 2, 3):
        assert (rule.weights @ rule.parts[:, 0].pow(k)).item() == pytest.approx(stats.beta(a, b).moment(k), rel=1e-12)
    # A function that varies where x is tiny: E log x = digamma(a) - digamma(a + b).
    expected = float(mp.digamma(a) - mp.digamma(a + b))
    finite = rule.parts[:, 0] > 0
    found = (rule.weights[finite] @ rule.parts[finite, 0].log()).item()
    assert found == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=3), st.integers(2, 5))
def test_dirichlet_rules_have_the_moments(shapes: list[float], nodes: int):
    total = sum(shapes)
    for rule in (dirichlet_rule(1.0, tuple(shapes), nodes), dirichlet_rule(1.0, tuple(shapes), None, level=4)):
        np.testing.assert_allclose(rule.parts.sum(1), 1, atol=1e-14)
        for i, shape in enumerate(shapes):
            assert (rule.weights @ rule.parts[:, i]).item() == pytest.approx(shape / total, rel=1e-10)
            second = shape * (shape + 1) / (total * (total + 1))
            assert (rule.weights @ rule.parts[:, i].square()).item() == pytest.approx(second, rel=1e-10)


@pytest.mark.parametrize(
    ("alpha", "product"), [(0.05, 1e-9), (0.05, 1e-4), (0.3, 1e-4), (1.0, 1e-9), (7.0, 1e-4), (50.0, 1e-9)]
)
def test_continuous_law_against_adaptive_quadrature(alpha: float, product: float):
    """The scalar equation at the returned beta, its average taken by mpmath, independent of every rule here."""
    K = 10
    optimum = ufm.joint_optimum(ufm.Mixup(K, alpha), product, 1.0)
    beta = float(optimum.beta)
    assert optimum.quadrature_error <= 1e-11

    def square(lam: float) -> float:
        z = ufm.prox_logsumexp(np.array([lam, 1 - lam, 0.0]), beta, counts=np.array([1.0, 1.0, K - 2.0])).logits
        return float((np.array([1.0, 1.0, K - 2.0]) * z**2).sum()) / beta**2

    # In u = log lam the integrand is smooth, with the density lam^alpha (1 - lam)^(alpha - 1) / B.
    norm = float(mp.beta(alpha, alpha))
    points = np.linspace(max(-745.0, -40 / alpha - 5), math.log(0.5), 40)
    half = sum(
        integrate.quad(
            lambda u: square(math.exp(u)) * math.exp(alpha * u + (alpha - 1) * math.log1p(-math.exp(u))) / norm,
            a, b, epsabs=1e-300, epsrel=1e-12,
        )[0]
        for a, b in itertools.pairwise(points)
    )  # fmt: skip
    found = square(1.0) / K + (K - 1) / K * 2 * half
    assert found == pytest.approx((K - 1) * product, rel=1e-9)


@given(st.integers(2, 10**6), st.floats(0.05, 50), st.floats(-12, -1))
def test_any_number_of_classes(K: int, alpha: float, exponent: float):
    optimum = ufm.joint_optimum(ufm.Mixup(K, alpha), 10.0**exponent / K, 1.0)
    assert not optimum.collapsed
    assert 0 < optimum.beta < math.inf
    assert 0 < optimum.objective < math.log(K) + 1e-12
    assert optimum.quadrature_error < 1e-10


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ufm.Mixup(3, ways=1), "ways"),
        (lambda: ufm.Mixup(3, ways=4, pairs="different"), "ways"),
        (lambda: ufm.Mixup(3, pairs="some"), "pairs"),
        (lambda: ufm.Mixup(3, priors=(0.5, 0.5)), "priors"),
        (lambda: ufm.Mixup(3, priors=(0.5, 0.6, -0.1)), "priors"),
        (lambda: ufm.Unmixed(3, (0.5, 0.4, 0.2)), "priors"),
        (lambda: ufm.CutMix(3, 0.0), "alpha"),
        (lambda: ufm.LabelSmoothing(3, 1.0), "smoothing"),
        (lambda: ufm.LabelSmoothing(3, -0.1), "smoothing"),
        (lambda: ufm.LabelSmoothing(1, 0.1), "law"),
        (lambda: ufm.CustomLaw(np.array([[0.5, 0.6]])), "labels"),
    ],
)
def test_bad_laws_are_named(make, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        make()


def test_infinite_alpha_gives_equal_shares_that_add_up():
    orbits = ufm.Mixup(4, math.inf, ways=3).orbits(3)
    shares = {tuple(sorted(row.round(9).tolist())) for row in orbits.levels[:, :3].numpy()}
    assert shares == {(0, 0, 1), (0, round(1 / 3, 9), round(2 / 3, 9)), (round(1 / 3, 9),) * 3}
    limit = ufm.joint_optimum(ufm.Mixup(4, math.inf, ways=3), 1e-3, 1e-3).beta
    assert ufm.joint_optimum(ufm.Mixup(4, 1e4, ways=3), 1e-3, 1e-3, nodes=5).beta == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("alpha", [1e-20, 1e9, 1e16])
def test_alpha_out_of_reach_of_gauss_nodes_is_named_or_right(alpha: float):
    try:
        targets = ufm.Mixup(3, alpha).targets(16)
    except ValueError as error:
        assert str(error).startswith("alpha, nodes")
    else:
        assert torch.isfinite(targets.labels).all()
    assert math.isfinite(ufm.joint_optimum(ufm.Mixup(3, alpha), 1e-3, 1e-3).beta)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("sizes", [(1,), (1, 1), (1, 1, 1), (2, 1), (2, 1, 1), (2, 2), (1, 1, 1, 1), (1, 1, 1, 2)])
def test_symmetric_rules_have_the_means_of_symmetric_functions(sizes: tuple[int, ...], alpha: float):
    """Mean entropy and mean product of the parts of a Dirichlet law, from its gamma functions."""
    level = 3 if len(sizes) < 4 else 2
    rule = symmetric_rule(alpha, sizes, level)
    assert len(rule.weights) == symmetric_size(sizes, level)
    shapes, total = alpha * np.array(sizes, float), alpha * sum(sizes)
    rtol = 1e-6 if len(sizes) < 4 else 2e-3
    entropy = -(rule.weights @ torch.special.xlogy(rule.parts, rule.parts).sum(1)).item()
    expected = special.digamma(total + 1) - (shapes / total) @ special.digamma(shapes + 1)
    assert entropy == pytest.approx(expected, rel=rtol, abs=1e-12)
    product = (rule.weights @ rule.parts.prod(1)).item()
    expected = np.prod(shapes) * math.exp(special.gammaln(total) - special.gammaln(total + len(sizes)))
    assert product == pytest.approx(expected, rel=rtol)
    np.testing.assert_allclose(rule.parts.sum(1), 1, rtol=1e-14)


@pytest.mark.parametrize(
    ("alpha", "beta", "objective"),
    [
        (1.0, 1278.6444767859944, 0.9929372223441025),
        (0.2, 1226.4792326103118, 0.5586320366145139),
    ],
)
def test_four_ways_take_a_bounded_rule_whose_error_is_told(alpha: float, beta: float, objective: float):
    """Held against the rule of half the step, of eight times the cost."""
    law = ufm.Mixup(10, alpha, ways=4)
    assert all(len(law.orbits(None, level=level).weights) <= 2**19 for level in (3, 5, 12))
    optimum = ufm.joint_optimum(law, 2e-3, 2e-3)
    assert 0 < optimum.quadrature_error < 1e-4
    assert optimum.beta == pytest.approx(beta, rel=min(optimum.quadrature_error, 1e-6))
    assert optimum.objective == pytest.approx(objective, rel=min(optimum.quadrature_error, 1e-9))


def test_more_ways_have_less_exact_rules_and_then_none():
    assert ufm.joint_optimum(ufm.Mixup(10, ways=3), 2e-3, 2e-3).quadrature_error < 1e-12
    assert 1e-3 < ufm.joint_optimum(ufm.Mixup(10, ways=5), 2e-3, 2e-3).quadrature_error < 0.1
    with pytest.raises(ValueError, match="^ways: got 6 for the continuous law, expected fewer, or the argument nodes"):
        ufm.joint_optimum(ufm.Mixup(10, ways=6), 2e-3, 2e-3)
    assert ufm.joint_optimum(ufm.Mixup(10, ways=6), 2e-3, 2e-3, nodes=2).quadrature_error == 0


@pytest.mark.usefixtures("unchecked")
def test_fields_of_laws_are_of_plain_numbers():
    priors = np.array([0.5, 0.25, 0.25]).astype(">f8")
    assert ufm.Mixup(3, priors=priors) == ufm.Mixup(3, priors=(0.5, 0.25, 0.25))  # pyright: ignore[reportArgumentType]
    assert ufm.Unmixed(3, priors).targets().weights.tolist() == [0.5, 0.25, 0.25]  # pyright: ignore[reportArgumentType]
