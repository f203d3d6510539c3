import dataclasses

import numpy as np
import pytest
import torch

import ufm
from tests.networks import following_the_theory


def test_a_network_that_follows_the_theory_is_recognised():
    comparison = ufm.compare(following_the_theory(700.0), ufm.Mixup(5))
    assert comparison.beta == pytest.approx(700, rel=1e-4)
    assert comparison.multiplier == pytest.approx(1.3)
    assert comparison.etf_error < 1e-12
    assert comparison.score("closed form").r2 == pytest.approx(1, abs=1e-8)
    assert comparison.score("closed form").r2_binned == pytest.approx(1, abs=1e-8)
    assert comparison.score("straight line").r2 < 0.95
    assert comparison.score("solver, own classifier").r2 == pytest.approx(1, abs=1e-8)
    assert comparison.solver_converged
    assert comparison.solver_error is not None
    assert comparison.solver_error < 1e-4
    assert comparison.collapse is not None
    assert comparison.collapse.nc1 < 1e-10
    network, closed = comparison.curves["network"], comparison.curves["closed form"]
    np.testing.assert_allclose(network.width, closed.width, atol=1e-3)
    np.testing.assert_allclose(network.depth, closed.depth, atol=1e-3)


def test_noise_lowers_r2_per_sample_more_than_per_bin():
    comparison = ufm.compare(following_the_theory(700.0, samples=4000, noise=0.5), ufm.Mixup(5), solver=False)
    score = comparison.score("closed form")
    assert score.r2 < 0.97 < score.r2_binned
    assert score.r2 < score.r2_binned
    assert comparison.solver_error is None
    with pytest.raises(KeyError):
        comparison.score("solver, nearest ETF")


def test_a_straight_network_is_better_explained_by_the_line():
    activations = following_the_theory(50.0)
    straight = dataclasses.replace(activations, logits=9 * (activations.labels - 0.2))
    comparison = ufm.compare(straight, ufm.Mixup(5), solver=False)
    assert comparison.slope == pytest.approx(9)
    assert comparison.score("straight line").r2 == pytest.approx(1)
    assert comparison.score("closed form").r2 < 0.95


def test_fit_free_beta_needs_only_classifier_and_weight_decay():
    law = ufm.Mixup(5)
    optimum = ufm.joint_optimum(law, 1e-3, 1e-3)
    activations = following_the_theory(optimum.beta)
    scaled = dataclasses.replace(activations, classifier=activations.classifier * optimum.multiplier / 1.3)
    comparison = ufm.compare(scaled, law, weight_decay=1e-3, solver=False)
    assert comparison.beta_fit_free == pytest.approx(optimum.beta, rel=1e-6)
    assert comparison.score("fit-free").parameters == 0
    assert comparison.score("fit-free").r2 == pytest.approx(1, abs=1e-6)
    assert ufm.compare(scaled, law, weight_decay=10.0, solver=False).beta_fit_free is None


def test_fit_and_score_use_different_samples():
    activations = following_the_theory(100.0)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    logits = activations.logits.clone()
    logits[order[300:]] = 0.3 * logits[order[300:]]
    spoiled = dataclasses.replace(activations, logits=logits)
    comparison = ufm.compare(spoiled, ufm.Mixup(5), solver=False)
    assert comparison.beta == pytest.approx(100, rel=1e-4)
    assert comparison.score("closed form").r2 < 0
    assert comparison.samples == 300


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"law": ufm.Mixup(4)}, "law"),
        ({"law": "mixup"}, "law"),
        ({"bins": 0}, "bins"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"activations": following_the_theory(10.0, samples=2)}, "activations"),
    ],
)
def test_bad_input_is_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.compare(**{"activations": following_the_theory(10.0, samples=60), "law": ufm.Mixup(5), **arguments})


def test_r2_by_hand():
    activations = following_the_theory(200.0, samples=900, noise=0.4)
    comparison = ufm.compare(activations, ufm.Mixup(5), solver=False, bins=4)
    scored = torch.randperm(900, generator=torch.Generator().manual_seed(0))[450:].numpy()
    z = activations.logits.numpy()
    z = (z - z.mean(1, keepdims=True))[scored]
    guess = np.asarray(ufm.prox_logsumexp(activations.labels.numpy(), comparison.beta).logits)[scored]
    a, b, lam = (x.numpy()[scored] for x in (activations.class_a, activations.class_b, activations.lam))

    def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
        return 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()

    score = comparison.score("closed form")
    assert score.r2 == pytest.approx(r2(z, guess))
    assert score.r2_same == pytest.approx(r2(z[a == b], guess[a == b]))
    assert score.r2_mixed == pytest.approx(r2(z[a != b], guess[a != b]))
    # Cells: unordered pair, and the bin of the weight of its smaller class.
    cells: dict[tuple[int, int, int], list[int]] = {}
    for i in np.flatnonzero(a != b):
        weight = lam[i] if a[i] < b[i] else 1 - lam[i]
        cells.setdefault((min(a[i], b[i]), max(a[i], b[i]), min(int(4 * weight), 3)), []).append(i)
    truth, predicted = (np.stack([values[rows].mean(0) for rows in cells.values()]) for values in (z, guess))
    assert score.r2_binned == pytest.approx(r2(truth, predicted))
    assert len({score.r2, score.r2_same, score.r2_mixed, score.r2_binned}) == 4


def test_the_own_classifier_is_used_where_it_is_no_etf():
    """A network that solves the UFM for a skewed classifier: its own solve explains it, the nearest ETF's does not."""
    activations = following_the_theory(300.0, samples=400)
    skew = torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0, 1.0, 1.0], dtype=torch.float64))
    W = activations.classifier @ skew
    h = torch.as_tensor(ufm.fixed_classifier(W, activations.labels, 0.007).features)
    skewed = dataclasses.replace(activations, classifier=W, features=h, logits=h @ W.T)
    comparison = ufm.compare(skewed, ufm.Mixup(5))
    own, ideal = (comparison.score(f"solver, {name}").r2 for name in ("own classifier", "nearest ETF"))
    assert own > 0.99
    assert own > ideal + 0.01


def test_a_beta_at_the_edge_of_the_search_is_flagged():
    activations = following_the_theory(50.0)
    assert not ufm.compare(activations, ufm.Mixup(5), solver=False).beta_at_edge
    backwards = dataclasses.replace(activations, logits=-activations.logits)
    assert ufm.compare(backwards, ufm.Mixup(5), solver=False).beta_at_edge


def test_beta_is_fitted_to_the_least_squares_minimum():
    activations = following_the_theory(200.0, samples=800, noise=0.5)
    comparison = ufm.compare(activations, ufm.Mixup(5), solver=False)
    fit = torch.randperm(800, generator=torch.Generator().manual_seed(0))[:400]
    z = activations.logits - activations.logits.mean(1, keepdim=True)

    def error(beta: float) -> float:
        guess = torch.as_tensor(ufm.prox_logsumexp(activations.labels[fit], beta).logits)
        return (guess - z[fit]).square().sum().item()

    best = error(comparison.beta)
    assert all(best <= error(comparison.beta * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
