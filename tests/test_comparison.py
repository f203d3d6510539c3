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
        ({"bins": 0}, "bins"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"activations": following_the_theory(10.0, samples=2)}, "activations"),
    ],
)
def test_bad_input_is_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.compare(**{"activations": following_the_theory(10.0, samples=60), "law": ufm.Mixup(5), **arguments})
