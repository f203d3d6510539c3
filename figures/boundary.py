"""Density and amplification at the decision boundary: networks against the closed form."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import ufm
from figures.drawing import Drawing, script
from figures.networks import DATA, Shown, main_networks, network, scored_source
from ufm.plotting import CLOSED_FORM, DOUBLE_COLUMN, NETWORK, RIVAL, SOLVER, WIDTH_LABEL, style

_RUN, _OTHER = "fashion-mixup", "fashion-none"
_REACH = 15


def draw(results: Path) -> Drawing:
    """Return the density of widths for one data set, then density and amplification at the boundary for all."""
    mixed, unmixed = network(results, _RUN), network(results, _OTHER)
    kinds = {kind: main_networks(results, kind) for kind in ("mixup", "none")}
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.8))
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        _densities(left, mixed, unmixed)
        for axis, key, label in (
            (middle, "density", "density at width 0 (per logit)"),
            (right, "amplification", "amplification at λ = 1/2"),
        ):
            _dots(axis, kinds, key)
            axis.set_ylabel(label)
        figure.legend(handles=_legend(), loc="outside lower center", ncols=4)
    every = [some for networks in kinds.values() for some in networks.values()]
    beyond = float((np.abs(_widths(unmixed)) > _REACH).mean())
    caption = f"""
        Left: density of the width z_a - z_b of different-class samples, lambda uniform, on Fashion-MNIST (the
        committed samples): networks trained with mixup (alpha = 1) and without, and the closed form and the straight
        line at the one number fitted to the first of them ({mixed.comparison.beta:.0f} and
        {mixed.comparison.slope:.1f}); {100 * beyond:.0f} % of the unmixed network's widths lie beyond the picture.
        Middle: density at the decision boundary, samples with |z_a - z_b| < 1/2. Right: slope of the width at lambda
        = 1/2 over that of the straight line between the same-class ends (1 for the line itself). Predictions: for the
        mixup run. Middle and right: {scored_source(every)}
    """
    return Drawing(figure, "The decision boundary", caption)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=NETWORK, marker="o", markersize=4.5, label="network, mixup"),
        Line2D([], [], color=SOLVER, marker="x", markersize=4.5, linestyle="--", label="network, not mixed"),
        Line2D([], [], color=CLOSED_FORM, marker="_", markersize=8, label="closed form"),
        Line2D([], [], color=RIVAL, marker="^", markersize=4.5, markerfacecolor="none", linestyle="-.", label="line"),
    ]


def _widths(some: Shown) -> np.ndarray:
    rows = some.activations
    different = rows.class_a != rows.class_b
    z, a, b = some.logits[different], rows.class_a[different], rows.class_b[different]
    return (z.gather(1, a[:, None]) - z.gather(1, b[:, None]))[:, 0].numpy()


def _densities(axis: Axes, mixed: Shown, unmixed: Shown) -> None:
    bins = np.linspace(-_REACH, _REACH, 41)
    for some, colour, dashes in ((mixed, NETWORK, "-"), (unmixed, SOLVER, "--")):
        widths = _widths(some)
        heights = np.histogram(widths, bins)[0] / len(widths) / np.diff(bins)
        axis.stairs(heights, bins, color=colour, linestyle=dashes)
    K = mixed.logits.shape[1]
    lam = np.linspace(1e-4, 1 - 1e-4, 4001)
    width = np.asarray(ufm.channel(lam, mixed.comparison.beta, K).width)
    # Lambda is uniform, so the density of the width is d lambda / d width.
    density = np.gradient(lam, width)
    axis.plot([width[0], *width, width[-1]], [0, *density, 0], color=CLOSED_FORM)
    slope = mixed.comparison.slope
    axis.plot([-slope, -slope, slope, slope], [0, 1 / (2 * slope), 1 / (2 * slope), 0], "-.", color=RIVAL)
    axis.set(xlabel=WIDTH_LABEL, ylabel="density (per logit)", xlim=(-_REACH, _REACH), ylim=(0, None))


def _dots(axis: Axes, kinds: dict[str, dict[str, Shown]], key: str) -> None:
    place = np.arange(len(DATA))
    for kind, name, marker, colour, shift in (
        ("mixup", "network", "o", NETWORK, -0.15),
        ("none", "network", "x", SOLVER, 0.15),
        ("mixup", "closed form", "_", CLOSED_FORM, -0.15),
        ("mixup", "straight line", "^", RIVAL, -0.15),
    ):
        values: list[Any] = [getattr(some.comparison.boundaries[name], key) for some in kinds[kind].values()]
        marks: dict[str, Any] = {"markersize": 11, "markeredgewidth": 1.6} if marker == "_" else {"markersize": 4.5}
        face = "none" if marker == "^" else colour
        axis.plot(place + shift, values, marker, color=colour, markerfacecolor=face, **marks)
    axis.set(xticks=place, ylim=(0, None), xlim=(-0.5, len(DATA) - 0.5))
    axis.set_xticklabels([title.replace("-MNIST", "-\nMNIST") for title in DATA.values()], rotation=0, fontsize=6)


if __name__ == "__main__":
    script(__file__, __doc__)
