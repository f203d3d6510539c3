"""Results draw themselves: what the axes hold is what the result says."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import ufm
from tests.helpers.networks import following_the_theory

mpl.use("agg")


@pytest.fixture(scope="module")
def comparison() -> ufm.Comparison:
    return ufm.compare(following_the_theory(100.0), solver=False)


@pytest.mark.parametrize("quantity", ["width", "depth", "confidence"])
def test_comparison(comparison: ufm.Comparison, quantity: str):
    axes = Figure().subplots()
    assert comparison.plot(axes, quantity=quantity) is axes
    lines = {line.get_label(): line for line in axes.lines}
    for name in ("network", "closed form", "straight line"):
        curve = comparison.curves[name]
        np.testing.assert_array_equal(lines[name].get_ydata(), getattr(curve, quantity))
    assert len(axes.collections) == (quantity != "confidence")
    with pytest.raises(ValueError, match="quantity: got 'guess'"):
        comparison.plot(quantity="guess")


def test_joint_optimum():
    optimum = ufm.joint_optimum(ufm.Mixup(4), 2e-3, 2e-3)
    axes = Figure().subplots()
    assert optimum.plot(axes, quantity="depth") is axes
    lam, depth = axes.lines[0].get_data()
    np.testing.assert_allclose(depth, ufm.channel(np.asarray(lam), optimum.beta, 4).depth, rtol=1e-10)
    with pytest.raises(ValueError, match="quantity: got 'depth'"):
        ufm.joint_optimum(ufm.Mixup(2), 2e-3, 2e-3).plot(quantity="depth")
    collapsed = ufm.joint_optimum(ufm.Mixup(4), 1.0, 1.0)
    assert not np.asarray(collapsed.plot(Figure().subplots()).lines[0].get_ydata()).any()


def test_solution():
    problem = ufm.UFM(ufm.Mixup(3).targets(nodes=3), 3, 0.01, 0.01)
    solution = ufm.solve(problem, record=1)
    axes = solution.plot(Figure().subplots())
    gap, gradient = axes.lines
    np.testing.assert_array_equal(gradient.get_ydata(), solution.history.gradient_norm)
    assert np.asarray(gap.get_ydata())[0] == solution.history.gap[0] / solution.history.objective[0]
    assert axes.get_yscale() == "log"


def test_measured_calibration():
    logits = np.random.default_rng(0).normal(size=(300, 4))
    measured = ufm.measure_calibration(logits, np.arange(300) % 4)
    axes = measured.plot(Figure().subplots())
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), measured.curve.accuracy)
    assert axes.get_legend().get_texts()[0].get_text() == f"ECE {measured.ece:.3f}"


def test_without_axes_a_figure_is_made(comparison: ufm.Comparison):
    from matplotlib import pyplot

    axes = comparison.plot()
    assert axes.figure.number in pyplot.get_fignums()
    pyplot.close(axes.figure)
