import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import optimize

import ufm
from tests.helpers import strategies
from tests.helpers.networks import following_the_theory, with_own_classifier
from ufm.labels.targets import pair_labels
from ufm.networks.network_certificate import distance_of_gap


def random_network(seed: int, K: int, d: int, scale: float, bias: bool) -> ufm.Activations:
    rng = np.random.default_rng(seed)
    W, h = torch.from_numpy(rng.normal(size=(K, d))), torch.from_numpy(scale * rng.normal(size=(12, d)))
    b = torch.from_numpy(rng.normal(size=K)) if bias else None
    a, other = (torch.from_numpy(rng.integers(K, size=12)) for _ in range(2))
    logits = h @ W.T + (0 if b is None else b)
    return ufm.Activations(h, logits, a, other, torch.from_numpy(rng.random(12)), W, b)


@given(
    strategies.seeds,
    st.integers(2, 6),
    st.integers(1, 7),
    st.floats(-3, 2).map(lambda e: 10.0**e),
    st.floats(-4, 1).map(lambda e: 10.0**e),
    st.booleans(),
    st.sampled_from(["cross_entropy", "mean_squared_error"]),
)
def test_the_bounds_are_never_below_the_distance(
    seed: int, K: int, d: int, scale: float, decay: float, bias: bool, loss: str
):
    found = ufm.certify_network(random_network(seed, K, d, scale, bias), 0.01, decay, loss=loss)
    rounding = 1e-9 * (1 + found.distance)
    assert found.distance <= found.bound + rounding
    assert found.bound <= found.inner_bound * (1 + 1e-9) + rounding
    assert found.inner_gap <= found.gap + 1e-9 * abs(found.objective)
    assert found.inner_bound <= found.global_bound + rounding / decay
    assert found.lower_bound <= found.objective


@given(strategies.seeds, st.floats(-3, 0).map(lambda e: 10.0**e))
def test_distance_and_gap_are_those_of_a_direct_optimiser(seed: int, decay: float):
    network = random_network(seed, 4, 3, 1.0, bias=True)
    found = ufm.certify_network(network, 0.01, decay)
    assert network.bias is not None
    W, b = (x.numpy() - x.numpy().mean(0) for x in (network.classifier, network.bias))

    def objective(h: np.ndarray, y: np.ndarray) -> float:
        z = W @ h + b
        return float(np.logaddexp.reduce(z) - y @ z + decay / 2 * h @ h)

    gaps, distances = [], []
    for h, y in zip(network.features.numpy(), network.labels.numpy(), strict=True):
        best = optimize.minimize(objective, np.zeros(3), args=(y,), method="BFGS", options={"gtol": 1e-9})
        gaps.append(objective(h, y) - best.fun)
        distances.append(np.sum((h - best.x) ** 2))
    assert found.inner_gap == pytest.approx(np.mean(gaps), rel=1e-5, abs=1e-8)
    assert found.distance == pytest.approx(np.mean(distances), rel=1e-3, abs=1e-5)


def test_a_network_at_its_optimum_is_at_no_distance():
    beta = 700.0
    network = following_the_theory(beta)
    size = network.classifier.square().sum().item() / 4
    found = ufm.certify_network(network, 1e-3, size / beta)
    assert found.distance < 1e-15
    assert found.inner_gap < 1e-12
    W = torch.randn(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    own = with_own_classifier(W, torch.linspace(-1, 1, 5).double(), 0.02)
    assert ufm.certify_network(own, 1e-3, 0.02).distance < 1e-15


def test_lambda_h_comes_from_balancedness_at_the_global_optimum():
    K, rng = 3, np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.integers(K, size=60)) for _ in range(2))
    lam = torch.from_numpy(rng.random(60))
    solution = ufm.solve(ufm.UFM(ufm.Targets(pair_labels(a, b, lam, K)), 4, 0.02, 0.005), tol=1e-10)
    logits = solution.features @ solution.classifier.T
    found = ufm.certify_network(ufm.Activations(solution.features, logits, a, b, lam, solution.classifier), 0.02)
    assert found.feature_decay == pytest.approx(0.005, rel=1e-6)
    assert found.relative_gap < 1e-9
    assert found.global_bound < 1e-6


@given(
    st.floats(-12, 2).map(lambda e: 10.0**e),
    st.floats(-6, 0).map(lambda e: 10.0**e),
    st.floats(-6, 0).map(lambda e: 10.0**e),
    st.floats(-2, 2).map(lambda e: 10.0**e),
)
def test_distance_of_gap_solves_its_equation_from_above(gap: float, decay: float, mu: float, width: float):
    g, c = torch.tensor([[gap], [mu]], dtype=torch.float64)
    t = distance_of_gap(g, decay, c, width).item()

    def value(t: float) -> float:
        x = width * t
        bend = x**2 / 2 - x**3 / 6 + x**4 / 24 - x**5 / 120 if x < 1e-2 else np.exp(-x) + x - 1
        return decay / 2 * t**2 + mu * bend / width**2

    assert value(t) == pytest.approx(gap, rel=1e-7)
    assert t <= np.sqrt(2 * gap / decay) * (1 + 1e-12)


def test_what_is_wrong_is_named():
    network = following_the_theory(10.0)
    with pytest.raises(ValueError, match="weight_decay: got 0"):
        ufm.certify_network(network, 0.0)
    with pytest.raises(ValueError, match="feature_decay: got -1"):
        ufm.certify_network(network, 0.1, -1.0)
    with pytest.raises(ValueError, match="loss: got 'hinge'"):
        ufm.certify_network(network, 0.1, loss="hinge")
    flat = ufm.Activations(
        torch.zeros(4, 3), torch.zeros(4, 3), *torch.zeros(2, 4, dtype=torch.int64), torch.ones(4), torch.eye(3)
    )
    with pytest.raises(ValueError, match="features: got zeros"):
        ufm.certify_network(flat, 0.1)
