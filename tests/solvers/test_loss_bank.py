"""One bank of checks for every loss, the library's own and a user's: a new loss is one more row of `ROWS`.

Each loss works in objective, certificate, solvers, relaxation, verification and the choice of the prediction that
networks are held against; or is refused there by its name.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import ufm
from tests.helpers.training import small, trained
from ufm import losses
from ufm.losses import CrossEntropy, Curvature, DiagonalCurvature, Loss, MeanSquaredError, Restoration, register_loss
from ufm.losses.base import counted_sum
from ufm.runs.record import Training
from ufm.runs.verification import verify


class BinaryCrossEntropy(Loss):
    """One sigmoid per class, with everything that a loss of the user's may supply but closed forms."""

    name = "binary_cross_entropy"

    def value(self, logits, labels):
        return (torch.nn.functional.softplus(logits) - labels * logits).sum(-1)

    def predict(self, logits):
        return torch.sigmoid(logits)

    def curvature(self, prediction) -> Curvature:
        return DiagonalCurvature(prediction * (1 - prediction))

    def dual(self, residual, labels, counts=None):
        q = (labels + residual).clamp(0, 1)
        entropies = -torch.special.xlogy(q, q) - torch.special.xlogy(1 - q, 1 - q)
        return (entropies if counts is None else counts * entropies).sum(-1)

    def conic(self, logits, labels):
        return cp.sum(cp.logistic(logits) - cp.multiply(labels, logits), axis=1)

    def restoration(self, mean, average) -> Restoration | None:
        up, down = torch.where(mean > 0, mean / (average + mean), 0.0), torch.where(mean < 0, mean, 0.0)
        share = max(up.max().item(), (down / (average - 1 + mean)).max().item())
        if share == 0:
            return Restoration(torch.zeros_like(mean))
        target = average - (1 - share) / share * mean
        return Restoration(torch.zeros_like(mean), share, target, distance=len(mean) ** 0.5)


class Poisson:
    """exp(z) - y z for each class, with the members that every loss needs and no others, and not as a `Loss`."""

    name = "poisson"

    def value(self, logits, labels):
        return (logits.exp() - labels * logits).sum(-1)

    def predict(self, logits):
        return logits.exp()

    def curvature(self, prediction) -> Curvature:
        return DiagonalCurvature(prediction)

    def dual(self, residual, labels, counts=None):
        q = (labels + residual).clamp(min=0)
        values = q - torch.special.xlogy(q, q)
        return (values if counts is None else counts * values).sum(-1)


class PlainSquares(MeanSquaredError):  # noqa: N818
    """A loss that changes one thing of another one: squares without a bias of their own."""

    name = "squares"

    def own_bias(self, num_classes: int) -> float:
        return 0.0

    def dual(self, residual, labels, counts=None):
        return -counted_sum(residual.square() / 2 + residual * labels, counts)

    def restoration(self, mean, average) -> Restoration | None:
        return Restoration(mean, gain=((mean @ mean) / 2 + mean @ average).item())

    def conic(self, logits, labels):
        return cp.sum(cp.square(logits - labels), axis=1) / 2

    first_logits = Loss.first_logits
    etf_logits = Loss.etf_logits
    etf_slope = Loss.etf_slope
    prediction_name = Loss.prediction_name


@dataclass(frozen=True)
class Row:
    """A loss and what it supplies: the prediction for networks along with closed forms; conic form; restoration."""

    loss: object
    prediction: str | None = None
    conic: bool = False
    restores: bool = False


ROWS = {
    row.loss.name: row  # pyright: ignore[reportAttributeAccessIssue]
    for row in (
        Row(CrossEntropy(), "closed form", conic=True, restores=True),
        Row(MeanSquaredError(), "straight line", conic=True, restores=True),
        Row(BinaryCrossEntropy(), conic=True, restores=True),
        Row(PlainSquares(), conic=True, restores=True),
        Row(Poisson()),
    )
}
BIASES = (None, 0.0, 0.1)


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Row:
    """Return a row whose loss is registered, as the one that `get_loss` gives, for the test alone."""
    found = ROWS[request.param]
    monkeypatch.setattr(losses, "LOSSES", dict(losses.LOSSES))
    if request.param not in losses.LOSSES:
        register_loss(found.loss)
    return dataclasses.replace(found, loss=losses.get_loss(request.param))


def loss_of(row: Row) -> Loss:
    assert isinstance(row.loss, Loss)
    return row.loss


def batch(seed: int, n: int = 6, K: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, K))), torch.from_numpy(rng.dirichlet(np.full(K, 0.5), n))


def problem_of(row: Row, bias_decay: float | None = None, *, fixed: bool = False) -> ufm.UFM:
    rng = np.random.default_rng(3)
    K, d, N = 3, 4, 6
    targets = ufm.Targets(0.9 * rng.dirichlet(np.full(K, 0.4), N) + 0.1 / K, rng.dirichlet(np.full(N, 5.0)))
    W = rng.normal(size=(K, d)) if fixed else None
    return ufm.UFM(targets, d, 0.04, 0.05, loss_of(row).name, classifier=W, bias_decay=bias_decay)


def test_gradient_and_hessian_are_those_of_the_value(row: Row):
    loss, (z, y) = loss_of(row), batch(0)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.value(z, y).sum(), z)
    torch.testing.assert_close(loss.residual(z, y), gradient, rtol=1e-12, atol=1e-13)
    vectors = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 4, 3)))
    curvature = loss.curvature(loss.predict(z.detach()))
    for r in range(3):
        expected = torch.autograd.functional.hvp(lambda x: loss.value(x, y).sum(), z.detach(), vectors[..., r])[1]
        torch.testing.assert_close(curvature.apply(vectors[..., r]), expected, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(loss.hessian_product(z, vectors)[..., r], expected, rtol=1e-12, atol=1e-13)
    shared = loss.hessian_product(z, vectors[0])
    torch.testing.assert_close(shared, loss.hessian_product(z, vectors[0].expand(6, 4, 3)))
    assert shared.shape == (6, 4, 3)


def test_curvature_is_inverted_and_its_kernel_left_out(row: Row):
    loss, (z, v) = loss_of(row), batch(2)
    curvature = loss.curvature(loss.predict(z))
    scale = torch.tensor(1.7, dtype=torch.float64)
    inverse = curvature.resolvent(0.3, scale)(v)
    torch.testing.assert_close(0.3 * inverse + scale * curvature.apply(inverse), v, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(curvature.apply(curvature.centred(v)), curvature.apply(v), rtol=1e-12, atol=1e-13)


def test_dual_is_minus_the_conjugate(row: Row):
    loss, (z, y) = loss_of(row), batch(3)
    residual = loss.residual(z, y)
    torch.testing.assert_close(loss.dual(residual, y) + (residual * z).sum(1), loss.value(z, y), rtol=1e-11, atol=1e-12)
    other, _ = batch(4)
    assert (loss.value(other, y) - loss.dual(residual, y) - (residual * other).sum(1) >= -1e-12).all()
    # Counts stand for equal columns.
    short, repeats = torch.tensor([[[0.1, -0.1]], [[0.3, 0.2]]], dtype=torch.float64), torch.tensor([2, 2])
    expected = loss.dual(*short.repeat_interleave(repeats, -1))
    torch.testing.assert_close(loss.dual(*short, repeats.double()[None]), expected, rtol=1e-14, atol=0)


def test_shifts_are_known(row: Row):
    loss, (z, y) = loss_of(row), batch(5)
    unchanged = torch.allclose(loss.value(z + 0.7, y), loss.value(z, y), rtol=1e-12)
    assert loss.shift_invariant == unchanged


def test_a_bias_replaces_the_losss_own(row: Row):
    plain, free = problem_of(row), problem_of(row, 0.0)
    z, _ = batch(6, 6, 4)
    w = torch.from_numpy(np.random.default_rng(7).normal(size=(3, 4)))
    own = torch.full((3,), loss_of(row).own_bias(3), dtype=torch.float64)
    assert free.evaluate(w, z, own).objective.item() == pytest.approx(plain.evaluate(w, z).objective.item(), rel=1e-14)
    labels = plain.targets.labels
    one, other = (ufm.fixed_classifier(w, labels, 0.05, plain.loss, bias=b) for b in (None, own))
    torch.testing.assert_close(one.features, other.features, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.probabilities, other.probabilities, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.as_tensor(one.logits) + own, torch.as_tensor(other.logits), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bias_decay", BIASES)
@pytest.mark.parametrize("fixed", [False, True])
def test_methods_agree_and_the_gap_closes(row: Row, bias_decay: float | None, fixed: bool):
    problem = problem_of(row, bias_decay, fixed=fixed)
    certified = bias_decay != 0 or row.restores
    found = [ufm.solve(problem, method, tol=1e-10, max_iter=5000) for method in ("newton", "lbfgs")]
    for solution in found:
        assert solution.converged
        assert solution.objective == pytest.approx(found[0].objective, abs=1e-12)
        # The gap is about the gradient's norm times the distances that are left.
        assert abs(solution.certificate.gap) < 1e-8 if certified else solution.certificate.gap == math.inf
    streamed = ufm.solve(problem, tol=1e-10, stream=True).certificate
    assert streamed.objective == pytest.approx(found[0].objective, abs=1e-12)
    assert -1e-12 <= streamed.gap < 1e-7 if certified else streamed.gap == math.inf


@pytest.mark.parametrize("bias_decay", BIASES)
@pytest.mark.parametrize("fixed", [False, True])
def test_bounds_are_below_the_optimum_everywhere(row: Row, bias_decay: float | None, fixed: bool):
    """Away from the optimum, where residuals have to be moved; stored and streamed."""
    problem = problem_of(row, bias_decay, fixed=fixed)
    best = ufm.solve(problem, tol=1e-10)
    rng = np.random.default_rng(8)
    for size in (1e-3, 1e-2, 0.1, 0.5):
        start = ufm.Point(
            best.classifier if fixed else best.classifier * (1 + size * rng.normal()),
            best.features * torch.from_numpy(1 + size * rng.normal(size=best.features.shape)),
            None if best.bias is None else best.bias + size * torch.from_numpy(rng.normal(size=3)),
        )
        for stream in (False, True):
            method = "newton" if stream else "lbfgs"
            found = ufm.solve(problem, method, start=start, max_iter=0, tol=1e-10, stream=stream).certificate
            assert found.lower_bound <= best.objective + 1e-12
            # Close to the optimum, close to it.
            if size == 1e-3 and (bias_decay != 0 or row.restores):
                assert found.lower_bound >= best.objective - 0.1


def test_restored_residuals_average_to_zero_and_keep_the_dual_value_that_is_promised(row: Row):
    loss, (z, y) = loss_of(row), batch(9)
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    residual = loss.residual(z, y)
    found = loss.restoration(weights @ residual, weights @ y)
    assert (found is not None) == row.restores
    if found is None:
        return
    moved = found.apply(residual, y)
    assert (weights @ moved).abs().max() < 1e-14
    before, after = (weights @ loss.dual(r, y) for r in (residual, moved))
    assert after >= (1 - found.share) * before + found.gain - 1e-13
    # Still in the domain: Fenchel's inequality holds.
    assert (loss.value(z, y) - loss.dual(moved, y) - (moved * z).sum(1) >= -1e-12).all()
    if found.target is not None:
        assert ((found.target - y).norm(dim=1) <= found.distance).all()


def test_the_relaxation_has_the_same_optimum_or_refuses(row: Row):
    problem = problem_of(row)
    if row.conic:
        found = ufm.nuclear_norm_optimum(problem)
        assert found.status == "optimal"
        assert ufm.solve(problem, tol=1e-10).objective == pytest.approx(found.value, abs=2e-6)
    else:
        with pytest.raises(ValueError, match=f"^loss: got '{problem.loss}', which has no conic form here"):
            ufm.nuclear_norm_optimum(problem)


def test_closed_forms_hold_or_refuse(row: Row):
    loss, (_, y) = loss_of(row), batch(10)
    beta = torch.tensor(30.0, dtype=torch.float64)
    W = ufm.simplex_etf(4, 4, 2.0)
    response = ufm.fixed_classifier(W, y, 0.01, loss.name)
    assert response.closed_form == (row.prediction is not None)
    assert (torch.as_tensor(response.residual) < 1e-13).all()
    assert torch.isfinite(loss.first_logits(y, beta)).all()
    if row.prediction is None:
        for ask in (lambda: loss.etf_logits(y, beta), lambda: loss.etf_slope(y, beta, torch.ones_like(y))):
            with pytest.raises(ValueError, match=f"^loss: got '{loss.name}', which has no closed form here"):
                ask()
        return
    z = loss.etf_logits(y, beta)
    torch.testing.assert_close(z, -beta * loss.residual(z, y), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(loss.first_logits(y, beta), z, rtol=1e-12, atol=1e-13)
    step = 1e-5
    ends = [loss.etf_logits(y, beta * math.exp(s * step)).square().sum(1) for s in (1, -1)]
    slope = loss.etf_slope(z, beta, torch.ones_like(y))
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("bias_decay", [None, 0.0])
def test_verification_passes_or_refuses(row: Row, bias_decay: float | None):
    def verified() -> bool:
        methods = ("newton", "lbfgs")
        found = verify(
            ufm.Mixup(3), 3, 0.02, 0.02, loss=loss_of(row).name, methods=methods, nodes=3, bias_decay=bias_decay
        )
        return found.passed

    if row.prediction is None:
        with pytest.raises(ValueError, match=f"^loss: got '{loss_of(row).name}', which has no closed form here"):
            verified()
    else:
        assert verified()


@pytest.mark.usefixtures("unchecked")
def test_verification_refuses_a_penalty_on_a_bias_that_the_closed_form_has_without(row: Row):
    if row.prediction is None or not loss_of(row).own_bias(3):
        return
    with pytest.raises(ValueError, match="^bias_decay: got 0.1 with mean_squared_error"):
        verify(ufm.Mixup(3), 3, 0.02, 0.02, loss=loss_of(row).name, bias_decay=0.1)


def test_the_prediction_for_networks_is_named_or_refused_by_the_report(row: Row, monkeypatch: pytest.MonkeyPatch):
    loss = loss_of(row)
    monkeypatch.setattr(losses, "LOSSES", losses.LOSSES | {loss.name: loss})
    assert loss.prediction_name == row.prediction
    if row.prediction is None:
        with pytest.raises(ValueError, match=f"^loss: got '{loss.name}', of which the theory predicts nothing"):
            _ = Training(loss=loss.name).predicted_by
    else:
        assert Training(loss=loss.name).predicted_by == row.prediction


def test_a_network_is_trained_with_a_loss_of_which_nothing_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loss = BinaryCrossEntropy()
    monkeypatch.setitem(losses.LOSSES, loss.name, loss)
    config = small(loss=loss.name, epochs=1, measure_every=1)
    assert config.classifier_decay is None
    history = trained(config, tmp_path).history
    # Near the start every probability is a half: ten times log 2.
    assert history[0]["loss"] == pytest.approx(10 * math.log(2), rel=0.2)


def test_an_object_of_no_class_of_ours_keeps_what_it_has_and_registers_twice(monkeypatch: pytest.MonkeyPatch):
    class Renamed(Poisson):
        name = "renamed"
        shift_invariant = False

        def own_bias(self, num_classes: int) -> float:
            return 0.25

    monkeypatch.setattr(losses, "LOSSES", dict(losses.LOSSES))
    given = Renamed()
    for _ in range(2):
        register_loss(given)
    found = losses.get_loss("renamed")
    assert isinstance(found, Loss)
    assert (found.name, found.own_bias(3)) == ("renamed", 0.25)
    with pytest.raises(ValueError, match="taken"):
        register_loss(Renamed())
