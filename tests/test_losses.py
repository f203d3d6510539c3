import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import special

import ufm
from tests.helpers import strategies
from ufm import losses
from ufm.losses import LOSSES, CrossEntropy, get_loss, register_loss


@pytest.mark.parametrize("name", LOSSES)
@given(data=st.data())
def test_residual_is_the_gradient_and_the_dual_its_conjugate(name: str, data: st.DataObject):
    loss = get_loss(name)
    K = data.draw(strategies.classes)
    y = torch.from_numpy(data.draw(strategies.labels(K)))
    rng = np.random.default_rng(data.draw(strategies.seeds))
    z = torch.from_numpy(3 * rng.normal(size=y.shape)).requires_grad_()
    values = loss.value(z, y)
    (gradient,) = torch.autograd.grad(values.sum(), z)
    residual = loss.residual(z, y).detach()
    torch.testing.assert_close(residual, gradient, rtol=1e-12, atol=1e-14)
    # Fenchel's equality at the gradient, inequality at another point's gradient.
    dual = loss.dual(residual, y)
    torch.testing.assert_close(values.detach() - dual, (residual * z.detach()).sum(1), rtol=1e-10, atol=1e-11)
    other = torch.from_numpy(rng.normal(size=y.shape))
    assert (loss.value(other, y) - dual - (residual * other).sum(1) >= -1e-12).all()


def test_cross_entropy_value_against_scipy():
    z, y = np.array([[1.0, -2.0, 0.5]]), np.array([[0.2, 0.3, 0.5]])
    found = get_loss("cross_entropy").value(torch.from_numpy(z), torch.from_numpy(y))
    assert found.item() == pytest.approx(float(-(y * special.log_softmax(z, 1)).sum()))


def test_mean_squared_error_value_by_hand():
    z, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert get_loss("mean_squared_error").value(z, y).item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", LOSSES)
def test_etf_logits_solve_their_equation(name: str):
    loss, y = get_loss(name), torch.tensor([[0.7, 0.3, 0.0, 0.0]], dtype=torch.float64)
    z = loss.etf_logits(y, 30.0)
    torch.testing.assert_close(z, -30 * loss.residual(z, y), rtol=1e-12, atol=1e-13)
    counts = torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(loss.etf_logits(y[:, :3], 30.0, counts), z[:, :3], rtol=1e-13, atol=1e-14)
    residual = loss.residual(z, y)
    torch.testing.assert_close(loss.dual(residual[:, :3], y[:, :3], counts), loss.dual(residual, y))


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match="hinge.*cross_entropy"):
        get_loss("hinge")


@pytest.mark.usefixtures("unchecked")
def test_loss_is_checked_before_work_starts():
    with pytest.raises(ValueError, match="loss"):
        ufm.UFM(ufm.Mixup(3).targets(2), 4, 0.1, 0.1, loss="hinge")


class Renamed(CrossEntropy):
    name = "renamed"


def test_a_registered_loss_is_solved_and_certified_with_an_unpenalised_bias_if_it_knows_how(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(losses, "LOSSES", dict(LOSSES))
    loss = Renamed()
    register_loss(loss)
    targets = ufm.Mixup(3).targets(nodes=4)
    known, own = (ufm.solve(ufm.UFM(targets, 3, 1e-2, 1e-2, name)) for name in ("cross_entropy", "renamed"))
    assert own.objective == known.objective
    assert own.certificate.gap == known.certificate.gap < 1e-8
    free = ufm.UFM(targets, 3, 1e-2, 1e-2, "renamed", bias_decay=0.0)
    assert ufm.certify(free, own.classifier, own.features, torch.zeros(3)).gap < 1e-8
    # Without a proof that the residuals can be restored, nothing is certified, stored or streamed.
    monkeypatch.setattr(Renamed, "restoration", lambda *_: None)
    assert ufm.certify(free, own.classifier, own.features, torch.zeros(3)).gap == np.inf
    assert ufm.solve(free, stream=True).certificate.gap == np.inf
    penalised = ufm.UFM(targets, 3, 1e-2, 1e-2, "renamed", bias_decay=0.1)
    assert ufm.certify(penalised, own.classifier, own.features, torch.zeros(3)).gap < 1e-8


def test_register_refuses_what_is_no_loss_and_names_that_are_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(losses, "LOSSES", dict(LOSSES))

    class Half:
        name = "half"

    with pytest.raises(
        ValueError, match="loss: got Half without value, predict, curvature, dual, expected the members"
    ):
        register_loss(Half())
    taken = Renamed()
    taken.name = "cross_entropy"
    with pytest.raises(ValueError, match="loss: got the name 'cross_entropy', which is taken"):
        register_loss(taken)
    register_loss(get_loss("cross_entropy"))
    assert LOSSES.keys() == {"cross_entropy", "mean_squared_error"}
