import mpmath as mp
import numpy as np
import pytest
import torch
from flint import arb, ctx
from hypothesis import given, strategies as st
from scipy import special

import ufm
from experiments.benchmarks import exactness
from tests.helpers import oracles, strategies


def test_wright_omega_agrees_with_scipy():
    x = np.concatenate([np.linspace(-700, 50, 100_001), np.geomspace(50, 1e300, 10_001)])
    np.testing.assert_allclose(ufm.wright_omega(x), special.wrightomega(x), rtol=5e-15)


def test_wright_omega_at_the_ends():
    np.testing.assert_array_equal(ufm.wright_omega(np.array([-np.inf, np.inf])), [0, np.inf])
    assert np.isnan(ufm.wright_omega(np.array([np.nan]))).all()


@given(st.floats(-300, 1e6))
def test_wright_omega_against_mpmath(x: float):
    found = float(ufm.wright_omega(np.array(x)))
    with mp.workdps(40):
        expected = mp.lambertw(mp.exp(x)).real if x < 600 else mp.findroot(lambda w: w + mp.log(w) - x, x)
        assert abs(found / expected - 1) < 4e-16


def test_wright_omega_of_one_is_one_and_keeps_dtype():
    single = ufm.wright_omega(torch.tensor([1.0], dtype=torch.float32))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(1, rel=2e-7)


def test_wright_omega_gradients():
    x = torch.tensor([-50.0, -3.0, 0.3, 8.0, 1e3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ufm.wright_omega, x)
    assert torch.autograd.gradgradcheck(ufm.wright_omega, x)
    end = torch.tensor(np.inf, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.as_tensor(ufm.wright_omega(end)), [end])
    assert slope.item() == 1


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("beta", [1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9, 1e12])
def test_prox_is_exact_to_rounding(num_classes: int, beta: float):
    lam = np.array([1e-12, 1e-9, 1e-6, 1e-3, 0.1, 0.3, 0.5])
    labels = np.zeros((len(lam), num_classes))
    labels[:, 0], labels[:, 1] = lam, 1 - lam
    found = ufm.prox_logsumexp(labels, beta).logits
    counts = [1, 1, num_classes - 2]
    for row, z in zip(labels, found, strict=True):
        expected = oracles.prox_logits([row[0], row[1], 0.0], counts, beta)
        scale = max(abs(v) for v in expected)
        errors = [abs(mp.mpf(float(v)) - e) / scale for v, e in zip(z[:3], expected, strict=False)]
        assert max(errors) < 1e-14


@given(st.data())
def test_prox_meets_its_optimality_conditions(data: st.DataObject):
    K, beta = data.draw(strategies.classes), data.draw(strategies.betas)
    y = data.draw(strategies.labels(K))
    prox = ufm.prox_logsumexp(y, beta)
    assert (prox.residual <= 64 * np.finfo(float).eps).all()
    np.testing.assert_allclose(prox.logits.sum(1), 0, atol=1e-14 * max(1.0, float(np.abs(prox.logits).max())) * K)
    np.testing.assert_allclose(prox.probabilities.sum(1), 1, rtol=1e-14)
    assert (prox.probabilities >= 0).all()
    # The Wright-omega form: p_k = omega(beta y_k + tau)/beta, with SciPy's omega. Rounding of beta y_k + tau counts.
    argument = beta * y + prox.tau[:, None]
    omega = special.wrightomega(argument)
    slack = 1e-14 + 4 * np.finfo(float).eps * np.abs(argument).max(1, keepdims=True)
    assert (np.abs(omega / beta - prox.probabilities) <= slack * np.maximum(prox.probabilities, 1e-300) * 4).all()


@given(st.data())
def test_prox_commutes_with_permutations_and_keeps_order(data: st.DataObject):
    K, beta = data.draw(strategies.classes), data.draw(strategies.betas)
    y = data.draw(strategies.labels(K))
    order = np.random.default_rng(data.draw(strategies.seeds)).permutation(K)
    prox = ufm.prox_logsumexp(y, beta)
    z, slack = prox.logits, 1e-14 * strategies.logit_scale(y, beta, prox.logits, prox.probabilities)
    assert (np.abs(ufm.prox_logsumexp(y[:, order], beta).logits - z[:, order]) <= slack).all()
    assert (np.diff(np.take_along_axis(z, np.argsort(y, 1), 1)) >= -slack).all()


@given(strategies.classes, strategies.betas, strategies.lams)
def test_counts_stand_for_repeated_entries(num_classes: int, beta: float, lam: float):
    labels = np.array([lam, 1 - lam, *[0.0] * (num_classes - 2)])
    full = ufm.prox_logsumexp(labels, beta)
    short = ufm.prox_logsumexp(labels[:3], beta, counts=np.array([1.0, 1.0, num_classes - 2.0]))
    np.testing.assert_allclose(short.logits, full.logits[:3], rtol=1e-13, atol=1e-14 * np.abs(full.logits).max())
    np.testing.assert_allclose(short.probabilities, full.probabilities[:3], rtol=1e-12)


def test_counts_have_the_gradient_of_repeated_entries():
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(40.0, dtype=torch.float64, requires_grad=True)
    full = torch.stack([lam, 1 - lam, *[torch.zeros_like(lam)] * 5])
    short = torch.stack([lam, 1 - lam, torch.zeros_like(lam)])
    counts = torch.tensor([1.0, 1.0, 5.0], dtype=torch.float64)
    one = ufm.prox_logsumexp(full, beta).logits
    other = ufm.prox_logsumexp(short, beta, counts=counts).logits
    for k in range(3):
        expected = torch.autograd.grad(one[k], [lam, beta], retain_graph=True)
        found = torch.autograd.grad(other[k], [lam, beta], retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_prox_gradients():
    free = torch.tensor([[0.2, -0.4, 0.1, 1.0], [0.0, 2.0, -3.0, 0.5]], dtype=torch.float64, requires_grad=True)
    log_beta = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)

    def logits(free: torch.Tensor, log_beta: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(ufm.prox_logsumexp(torch.softmax(free, 1), log_beta.exp()).logits)

    assert torch.autograd.gradcheck(logits, (free, log_beta))
    assert torch.autograd.gradgradcheck(logits, (free, log_beta))


def test_prox_in_float32_keeps_its_digits():
    y = torch.tensor([[0.7, 0.3, 0, 0]], dtype=torch.float32)
    single = ufm.prox_logsumexp(y, 1e4)
    assert single.logits.dtype == torch.float32
    double = ufm.prox_logsumexp(y.double() / y.double().sum(), 1e4)
    torch.testing.assert_close(single.logits.double(), double.logits, rtol=1e-6, atol=1e-6)


def test_answers_come_back_in_kind():
    y = np.array([0.2, 0.8])
    assert isinstance(ufm.prox_logsumexp(y, 1.0).logits, np.ndarray)
    assert isinstance(ufm.prox_logsumexp(torch.from_numpy(y), 1.0).logits, torch.Tensor)
    assert isinstance(ufm.wright_omega(y), np.ndarray)
    assert isinstance(ufm.wright_omega(torch.from_numpy(y)), torch.Tensor)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("labels", "beta", "counts", "named"),
    [
        ([0.5, np.nan], 1.0, None, "labels"),
        ([0.5, 0.6], 1.0, None, "labels"),
        ([1.5, -0.5], 1.0, None, "labels"),
        ([1.0], 1.0, None, "labels"),
        (np.zeros((0, 3)), 1.0, None, "labels"),
        ("abc", 1.0, None, "labels"),
        ([True, False], 1.0, None, "labels"),
        ([0.5, 0.5], 0.0, None, "beta"),
        ([0.5, 0.5], -1.0, None, "beta"),
        ([0.5, 0.5], np.inf, None, "beta"),
        ([0.5, 0.5], 5e-324, None, "beta: got 5e-324"),
        ([[0.5, 0.5]] * 3, [1.0, 2.0], None, "beta"),
        ([0.5, 0.25], 1.0, [1.0, -2.0], "counts"),
        ([0.5, 0.5], 1.0, [1.0, 3.0], "labels"),
    ],
)
def test_bad_input_is_named(labels: object, beta: object, counts: object, named: str):
    with pytest.raises(ValueError, match=named):
        ufm.prox_logsumexp(labels, beta, counts=counts)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("offset", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("beta", [1e-6, 1.0, 1e6, 1e12])
def test_prox_is_exact_around_one_half(num_classes: int, offset: float, beta: float):
    lam = 0.5 + offset
    labels = np.zeros(num_classes)
    labels[:2] = lam, 1 - lam
    found = ufm.prox_logsumexp(labels, beta).logits
    expected = oracles.prox_logits([labels[0], labels[1], 0.0], [1, 1, num_classes - 2], beta)
    scale = max(abs(v) for v in expected[: min(num_classes, 3)])
    errors = [abs(mp.mpf(float(v)) - e) for v, e in zip(found[:3], expected, strict=False)]
    assert max(errors) <= max(2e-14 * scale, mp.mpf(10) ** -40)


@pytest.mark.parametrize("beta", [1e-300, 1e-100, 1e-30, 1e-17, 1e300])
def test_extreme_beta(beta: float):
    labels = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1 / 3] * 3])
    prox = ufm.prox_logsumexp(labels, beta)
    assert np.isfinite(prox.logits).all()
    if beta < 1:
        np.testing.assert_allclose(
            prox.logits, beta * (labels - labels.mean(1, keepdims=True)), rtol=1e-12, atol=1e-16 * beta
        )
    else:
        np.testing.assert_allclose(prox.probabilities, labels, atol=1e-12)


@pytest.mark.parametrize("beta", [1e39, 1e-60])
def test_beta_beyond_float32_is_named(beta: float):
    with pytest.raises(ValueError, match="beta"):
        ufm.prox_logsumexp(torch.tensor([1.0, 0.0]), beta)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_kernels_agree_to_rounding():
    rng = np.random.default_rng(0)
    try:
        for K in (2, 10, 300):
            rows = [rng.dirichlet(np.full(K, 0.3), 50), np.eye(K)[:2], np.full((1, K), 1 / K)]
            y = torch.from_numpy(np.concatenate(rows))
            for beta in (1e-8, 1.0, 1e4, 1e12):
                eager = ufm.prox_logsumexp(y, beta).logits
                ufm.compile_kernels()
                fused = ufm.prox_logsumexp(y, beta).logits
                ufm.compile_kernels(enabled=False)
                torch.testing.assert_close(fused, eager, rtol=1e-12, atol=2e-14 * min(beta, 1.0))
    finally:
        ufm.compile_kernels(enabled=False)


def test_wright_omega_by_balls():
    """omega(x) = W(e^x) by Arb, over the whole range of numbers."""
    rng = np.random.default_rng(3)
    x = np.r_[
        rng.uniform(-700, 700, 300),
        rng.normal(size=200),
        -1 + 1e-6 * rng.normal(size=50),
        10.0 ** rng.uniform(3, 6, 50),
    ]
    found = ufm.wright_omega(x)
    with ctx.workprec(400):
        exact = np.array([float(arb(v).exp().lambertw()) for v in x])
    # An ulp of x moves omega by x omega/(1 + omega) ulp of itself where x is large and negative.
    assert (np.abs(found - exact) <= 4 * np.finfo(float).eps * exact * np.maximum(1, np.abs(x) / (1 + exact))).all()


def test_proximal_points_by_balls():
    """A sample of the exactness benchmark: labels down to 1e-300, beta from 1e-8 to 1e14."""
    config = exactness.ExactnessConfig(cases=120, seed=17)
    with ctx.workprec(320):
        rows = [
            case for kind, y, beta in exactness.batches(config) for case in exactness.measure(kind, y, beta, 2.0**-52)
        ]
    assert len(rows) == 120
    assert all(row["finite"] for row in rows)
    # As much as the committed 100,000 were off at most.
    assert max(row["conditioned"] for row in rows) <= 43
