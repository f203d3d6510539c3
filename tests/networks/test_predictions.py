"""The one number that each prediction fits, the network's own classifier, and features of the nearest ETF."""

import numpy as np
import pytest
import torch

import ufm
from tests.helpers.networks import following_the_theory, with_own_classifier
from ufm.networks.predictions import (
    Head,
    centred,
    closed_form,
    fit_beta,
    fit_own_decay,
    fit_slope,
    own_classifier,
    solved,
)
from ufm.theory.collapse import multiplier_of


def etf(K: int = 5, d: int = 7) -> torch.Tensor:
    return ufm.simplex_etf(K, d, 1.3, generator=torch.Generator().manual_seed(1))


def skewed(K: int = 5, d: int = 7, size: float = 0.3) -> torch.Tensor:
    """A classifier that is no ETF, with rows that do not sum to zero."""
    return etf(K, d) + size * torch.randn(K, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5


@pytest.mark.parametrize("beta", [0.02, 30.0, 700.0, 1e6])
def test_beta_is_recovered(beta: float):
    labels = following_the_theory(1.0, samples=200).labels
    assert fit_beta(labels, closed_form(labels, beta)) == pytest.approx(beta, rel=1e-4)


def test_slope_by_least_squares():
    rng = np.random.default_rng(0)
    labels = following_the_theory(1.0, samples=200).labels
    logits = centred(3 * labels + torch.from_numpy(rng.normal(size=(200, 5))))
    column = (labels.numpy() - 0.2).reshape(-1, 1)
    expected = np.linalg.lstsq(column, logits.numpy().reshape(-1), rcond=None)[0][0]
    assert fit_slope(labels, logits) == pytest.approx(expected)
    assert fit_slope(labels, 4 * (labels - 0.2)) == pytest.approx(4)


def test_centred_logits_have_no_mean_and_the_same_differences():
    z = torch.randn(9, 4, dtype=torch.float64)
    assert centred(z).sum(1).abs().max() < 1e-12
    torch.testing.assert_close(centred(z)[:, 1] - centred(z)[:, 3], z[:, 1] - z[:, 3])


def test_the_head_is_centred():
    W, b = skewed(), torch.arange(5.0)
    head = Head.of(W.float(), b)
    assert head.rows.dtype == torch.float64
    assert head.rows.sum(0).abs().max() < 1e-12
    torch.testing.assert_close(head.rows, W - W.mean(0), atol=1e-6, rtol=0)
    assert head.bias is not None
    torch.testing.assert_close(head.bias, b.double() - 2)
    assert head.multiplier == pytest.approx((W - W.mean(0)).square().sum(1).mean().sqrt().item())
    assert Head.of(W, None).bias is None
    # A common offset of the rows is not seen by softmax: it is no defect of the ETF.
    assert Head.of(etf() + 3, None).etf.relative_error < 1e-12
    assert Head.of(etf(), None).feature_decay(20.0) == pytest.approx(1.3**2 * 5 / (4 * 20))


@pytest.mark.parametrize("classifier", [torch.zeros(4, 6), torch.full((4, 6), 0.1), torch.randn(1, 6).expand(4, 6)])
def test_a_classifier_of_equal_rows_is_named(classifier: torch.Tensor):
    with pytest.raises(ValueError, match="^classifier: got rows that are all equal"):
        Head.of(classifier, None)


@pytest.mark.parametrize("classifier", [etf(), skewed()])
def test_etf_features_give_back_the_logits(classifier: torch.Tensor):
    head = Head.of(classifier, None)
    z = centred(torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    h = head.etf_features(z)
    torch.testing.assert_close(h @ head.etf_rows.T, z)
    # No others are shorter: they lie in the row space.
    torch.testing.assert_close(h, z @ torch.linalg.pinv(head.etf_rows).T)
    # The ETF at the classifier's size, which the nearest one is below.
    assert multiplier_of(head.etf_rows) == pytest.approx(head.multiplier)
    assert head.etf.multiplier <= head.multiplier * (1 + 1e-12)
    assert ufm.nearest_etf(head.etf_rows.numpy()).relative_error < 1e-12


@pytest.mark.parametrize("bias", [None, torch.full((5,), 0.7)])
def test_own_classifier_is_the_closed_form_for_an_etf(bias: torch.Tensor | None):
    head, labels = Head.of(etf() - 2, bias), following_the_theory(1.0, samples=100).labels
    prediction = own_classifier(head, labels, head.feature_decay(40.0))
    z = closed_form(labels, 40.0)
    torch.testing.assert_close(prediction.logits, z, atol=1e-8, rtol=0)
    torch.testing.assert_close(prediction.features, head.etf_features(z), atol=1e-8, rtol=0)


def test_own_decay_is_recovered():
    network = with_own_classifier(skewed(), torch.linspace(-1, 1, 5, dtype=torch.float64), 0.02)
    head, logits = Head.of(network.classifier, network.bias), centred(network.logits)
    beta = fit_beta(network.labels, logits)
    assert fit_own_decay(head, network.labels, logits, beta) == pytest.approx(0.02, rel=1e-3)
    # Far off: the start is the beta that fits best, and the search goes a factor of 1000 around it.
    assert fit_own_decay(head, network.labels, logits, beta / 100) == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("classifier", [etf(), skewed(size=1.0)])
def test_the_direct_solve_checks_the_closed_form_for_any_classifier(classifier: torch.Tensor):
    head, labels = Head.of(classifier, None), following_the_theory(1.0, samples=60).labels
    prediction, converged = solved(head, labels, 90.0)
    assert converged
    z = closed_form(labels, 90.0)
    torch.testing.assert_close(prediction.logits, z, atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.features, head.etf_features(z), atol=1e-5, rtol=0)


@pytest.mark.parametrize("decay", [0.004, 0.05])
def test_a_network_with_a_skewed_classifier_and_a_bias_is_explained_by_its_own(decay: float):
    W = skewed(size=0.8)
    bias = torch.tensor([2.0, -1.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    comparison = ufm.compare(with_own_classifier(W, bias, decay), ufm.Mixup(5))
    own = comparison.score("own classifier")
    assert own.r2 > 0.999
    assert comparison.own_feature_decay == pytest.approx(decay, rel=0.01)
    assert max(own.angle_same, own.angle_mixed) < 0.1
    assert max(own.length_same, own.length_mixed) < 0.01
    assert comparison.score("closed form").r2 < own.r2 - 0.01
    # Without its bias it is another network.
    labels = with_own_classifier(W, bias, decay).labels
    one, other = (own_classifier(Head.of(W, b), labels, decay).logits for b in (bias, None))
    assert (one - other).abs().max() > 0.1
