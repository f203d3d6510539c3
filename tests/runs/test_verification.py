import math

import pytest

import ufm
from ufm.runs import verification


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("decay", [0.02, 1.0])
def test_everything_agrees_below_and_above_the_threshold(loss: str, decay: float):
    result = verification.verify(ufm.Mixup(4), 5, decay, decay, loss=loss, nodes=3)
    assert result.optimum.collapsed == (decay == 1.0)
    assert len(result.checks) == 24
    assert result.passed, [check for check in result.checks if not check.passed]


def test_a_solve_cut_short_fails():
    result = verification.verify(ufm.Mixup(4), 5, 0.02, 0.02, methods=("lbfgs",), nodes=3, max_iter=3)
    assert not result.passed
    assert not any(check.passed for check in result.checks)


def test_a_wrong_closed_form_is_found(monkeypatch: pytest.MonkeyPatch):
    true = ufm.joint_optimum

    def wrong(law, weight_decay, feature_decay, loss, nodes):
        return true(law, weight_decay, feature_decay * (1 + 1e-5), loss, nodes=nodes)

    monkeypatch.setattr(verification, "joint_optimum", wrong)
    failed = {c.name for c in verification.verify(ufm.Mixup(4), 5, 0.02, 0.02, nodes=3).checks if not c.passed}
    assert failed >= {
        "free classifier, lbfgs: objective against closed form",
        "free classifier, lbfgs: logits against closed form",
        "free classifier, gradient_descent: W W^T against the ETF",
    }


def test_nan_does_not_pass():
    assert verification.Claim("claim", "claim", math.nan, "<=", 1.0).passed is False


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="^dim"):
        verification.verify(ufm.Mixup(5), 3, 0.02, 0.02)
    with pytest.raises(ValueError, match="^method"):
        verification.verify(ufm.Mixup(3), 3, 0.02, 0.02, methods=("guess",))
    with pytest.raises(ValueError, match="^methods"):
        verification.verify(ufm.Mixup(3), 3, 0.02, 0.02, methods=())


def test_an_interruption_stops_the_verification(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ufm.UFM, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verification.verify(ufm.Mixup(3), 3, 0.02, 0.02)
    assert not verification.Verification(ufm.joint_optimum(ufm.Mixup(3), 0.02, 0.02), {}, {}, []).passed
