"""Calibration as the theory predicts it, and as measured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from figures.drawing import Drawing, script
from figures.networks import DATA, Shown, all_networks, main_networks, scatter
from ufm.plotting import CLOSED_FORM, DOUBLE_COLUMN, NETWORK, SOLVER, style

_GRID = np.linspace(0.002, 0.998, 499)


def draw(results: Path) -> Drawing:
    """Return confidence against lambda per data set (above), and confidence on test images against accuracy (below)."""
    kinds = {kind: main_networks(results, kind) for kind in ("mixup", "none")}
    every = [some for some in all_networks(results) if some.kind in ("mixup", "none", "etf")]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 5.0))
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.25))[:, 0]
        axes = above.subplots(1, len(DATA), sharey=True)
        for axis, title in zip(axes, DATA.values(), strict=True):
            _against_lambda(axis, kinds["mixup"][title], kinds["none"][title])
            axis.set_title(title)
        axes[0].set_ylabel("confidence  max$_k$ $p_k$")
        above.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        left, right = below.subplots(1, 2, sharey=True)
        _against_accuracy(left, every)
        _predicted(right, every)
        below.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    caption = """
        Above: mean largest probability of mixed training images against lambda (different classes, bins of lambda),
        for networks trained with mixup (alpha = 1) and without, and the closed form at the beta fitted to the former;
        dotted: the label's own, max(lambda, 1 - lambda). Below left: mean confidence on unmixed test images against
        accuracy; on the line they are equal, below it the network is underconfident. Below right: that confidence
        against what the closed form predicts for unmixed images at each run's fitted beta. Filled: with mixup;
        hollow: not mixed. Eval mode, seed as in the run's name (else 0); all committed runs with cross entropy.
    """
    return Drawing(figure, "Calibration, predicted and measured", caption)


def _against_lambda(axis: Axes, mixed: Shown, unmixed: Shown) -> None:
    K = mixed.logits.shape[1]
    axis.plot(_GRID, np.maximum(_GRID, 1 - _GRID), ":", color="0.5", label="label")
    predicted = ufm.confidence(_GRID, mixed.comparison.beta, K)
    axis.plot(_GRID, predicted, color=CLOSED_FORM, label="closed form")
    for some, marker, colour, face, label in (
        (mixed, "o", NETWORK, NETWORK, "network, mixup"),
        (unmixed, "x", SOLVER, SOLVER, "network, not mixed"),
    ):
        curve = some.curve("network")
        axis.plot(curve.lam, curve.confidence, marker, color=colour, markerfacecolor=face, markersize=3.5, label=label)
    axis.set(xlabel="λ", xlim=(0, 1), ylim=(0.3, 1.02))


def _against_accuracy(axis: Axes, every: list[Shown]) -> None:
    def test(some: Shown) -> tuple[float, float]:
        before = some.calibration.test.before
        return before.accuracy, before.confidence

    _scatter(axis, every, test)
    axis.set(xlabel="accuracy on test images", ylabel="mean confidence on test images")


def _predicted(axis: Axes, every: list[Shown]) -> None:
    _scatter(
        axis,
        every,
        lambda some: (_predicted_confidence(some), some.calibration.test.before.confidence),
    )
    axis.set(xlabel="predicted confidence on unmixed images")


def _predicted_confidence(some: Shown) -> float:
    predicted = some.calibration.predicted
    return np.nan if predicted is None else predicted.confidence


def _scatter(axis: Axes, every: list[Shown], point: Callable[[Shown], tuple[float, float]]) -> None:
    scatter(axis, every, point)
    axis.plot([], [], "o", color="0.3", markersize=4.5, markerfacecolor="none", label="hollow: not mixed")
    low = min(*axis.get_xlim(), *axis.get_ylim())
    axis.plot([low, 1], [low, 1], color="0.6", linewidth=0.6, zorder=0)


if __name__ == "__main__":
    script(__file__, __doc__)
