import math

import numpy as np
import pytest
import torch
from hypothesis import given

import ufm
from tests.helpers import strategies
from tests.helpers.networks import following_the_theory
from ufm.labels.targets import pair_labels


def solved(weight_decay: float) -> ufm.Activations:
    K, rng = 4, np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.integers(K, size=50)) for _ in range(2))
    lam = torch.from_numpy(rng.random(50))
    solution = ufm.solve(ufm.UFM(ufm.Targets(pair_labels(a, b, lam, K)), 4, weight_decay, 0.01), tol=1e-11)
    logits = solution.features @ solution.classifier.T
    return ufm.Activations(solution.features, logits, a, b, lam, solution.classifier)


def test_a_solved_classifier_is_at_rest():
    found = ufm.measure_stationarity(solved(0.01), 0.01)
    assert found.ratio == pytest.approx(1, abs=1e-8)
    assert found.norm_ratio == pytest.approx(1, abs=1e-8)
    assert found.angle < 1e-3
    assert found.residual < 1e-8


def test_with_less_decay_it_would_grow():
    found = ufm.measure_stationarity(solved(0.01), 0.005, decay_times=2.5)
    assert found.ratio == pytest.approx(2, abs=1e-8)
    assert found.residual == pytest.approx(1, abs=1e-8)
    assert found.decay_times == 2.5


@given(strategies.seeds)
def test_it_is_the_gradient_that_automatic_differentiation_finds(seed: int):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
    h = torch.from_numpy(rng.normal(size=(20, 3)))
    a, b = (torch.from_numpy(rng.integers(4, size=20)) for _ in range(2))
    lam = torch.from_numpy(rng.random(20))
    y = pair_labels(a, b, lam, 4)
    torch.nn.functional.cross_entropy(h @ W.T, y).backward()
    assert W.grad is not None
    w, pull = W.detach(), -W.grad
    found = ufm.measure_stationarity(ufm.Activations(h, h @ w.T, a, b, lam, w), 0.02)
    w = w - w.mean(0)
    assert found.pull == pytest.approx((pull * w).sum().item(), abs=1e-12)
    assert found.norm_ratio == pytest.approx((pull.norm() / (0.02 * w.norm())).item())
    assert found.residual == pytest.approx(((pull - 0.02 * w).norm() / (0.02 * w.norm())).item())
    assert math.cos(math.radians(found.angle)) == pytest.approx(((pull * w).sum() / pull.norm() / w.norm()).item())


def test_bad_arguments_are_refused():
    network = following_the_theory(10.0)
    with pytest.raises(ValueError, match="weight_decay: got -1"):
        ufm.measure_stationarity(network, -1.0)
    with pytest.raises(ValueError, match="decay_times: got -1"):
        ufm.measure_stationarity(network, 0.1, decay_times=-1)
    zero = ufm.Activations(
        torch.ones(4, 3), torch.zeros(4, 3), *torch.zeros(2, 4, dtype=torch.int64), torch.ones(4), torch.zeros(3, 3)
    )
    with pytest.raises(ValueError, match="classifier: got rows that are all equal"):
        ufm.measure_stationarity(zero, 0.1)
