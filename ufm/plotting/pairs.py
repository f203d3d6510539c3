"""Pair plots of all classes: what a plane through three of them hides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ufm._support.arrays import Array
from ufm.plotting.checks import pairs, real_array
from ufm.plotting.style import DOUBLE_COLUMN, LAMBDA_MAP, POINT_EDGE, lambda_bar, style

MAX_CLASSES = 12
# From one cell to the next; a cell's side is 1.
_PITCH = 1.06


@dataclass(frozen=True)
class PairPanel:
    """What fills one triangle of a pair plot; `pair_figure` checks it.

    title: of the triangle. logits (N, K): K >= 2, any constant per row added. class_a, class_b (N,): the two classes of
    each sample, in 0..K-1. lam (N,): the weight of class_a, in [0, 1].
    """

    title: str
    logits: Float[Array, "N K"]
    class_a: Int[Array, "N"]
    class_b: Int[Array, "N"]
    lam: Float[Array, "N"]


def pair_figure(lower: PairPanel, upper: PairPanel | None = None, class_names: Sequence[str] | None = None) -> Figure:
    """Return the logits of every two classes against each other, `lower` below the diagonal and `upper` above it.

    lower, upper: logits (N, K), in logits, with classes and weights; upper may be None, and may have other samples, but
    of the same K <= 12 classes. class_names: K of them, by default their numbers.
    In the cell of classes i < j lie all samples: those mixed of i and j coloured by the weight of i, all others grey.
    Logits are drawn less their mean over the classes. In both triangles the logit of i, the smaller class, is drawn to
    the right and that of j upwards, so that a cell can be held against its mirror image.
    Raises ValueError for fewer than 2 or more than 12 classes, no sample, shapes that do not fit, logits that are not
    finite, or a class or weight out of range.
    """
    below = _Triangle.of(lower)
    K = below.logits.shape[1]
    if K > MAX_CLASSES:
        raise ValueError(f"lower: got {K} classes, expected at most {MAX_CLASSES} to be legible")
    triangles = [below, *([] if upper is None else [_Triangle.of(upper)])]
    if triangles[-1].logits.shape[1] != K:
        raise ValueError(f"upper: got {triangles[-1].logits.shape[1]} classes, expected {K}")
    names = [str(k) for k in range(K)] if class_names is None else list(class_names)
    if len(names) != K:
        raise ValueError(f"class_names: got {len(names)}, expected {K}")
    low, high = (bound([bound(triangle.logits) for triangle in triangles]) for bound in (np.min, np.max))
    # Logits that are all equal need some room too.
    margin = 0.05 * (high - low) or 0.5
    low, high = float(low - margin), float(high + margin)
    cells = [(row, column) for row in range(K) for column in range(row if upper is None else K) if row != column]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, DOUBLE_COLUMN + 0.6))
        axis = figure.subplots()
        drawn = [_cell(triangles[0 if row > column else -1], row, column, low, high) for row, column in cells]
        # All cells in one axes, their points moved to where the cell is: a hundred axes would take seconds. The grey
        # points are a raster, since there are thousands in each cell.
        others, own, weights = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        axis.scatter(*others.T, s=0.6, color="0.88", linewidths=0, rasterized=True, zorder=0)
        # In grey, the light end of the colour scale is as light as the other points: the edge tells them apart.
        axis.scatter(*own.T, s=3, c=weights, cmap=LAMBDA_MAP, vmin=0, vmax=1, **POINT_EDGE, zorder=1)
        frames = [Rectangle((_PITCH * column, -_PITCH * row), 1, 1) for row, column in cells]
        axis.add_collection(PatchCollection(frames, facecolors="none", edgecolors="0.7", linewidths=0.3))
        for k, name in enumerate(names):
            axis.text(_PITCH * k + 0.5, 0.5 - _PITCH * k, name, ha="center", va="center", fontweight="bold")
        axis.set(xlim=(-0.02, _PITCH * K), ylim=(-_PITCH * (K - 1) - 0.02, 1.02), aspect="equal")
        axis.set_axis_off()
        titles = f"below the diagonal: {lower.title}" + ("" if upper is None else f";  above it: {upper.title}")
        ends = " to ".join(f"{end:.1f}".replace("-", "\N{MINUS SIGN}") for end in (low, high))
        axis.set_title(f"{titles};  both axes {ends} logits")
        label = "λ, weight of the smaller class i of the cell's pair (i to the right, j upwards); grey: other pairs"
        lambda_bar(figure, label, axes=[axis])
        return figure


def _cell(
    some: "_Triangle", row: int, column: int, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the points of a cell, in the figure's coordinates: those of other pairs, of its own, and their weights."""
    i, j = min(row, column), max(row, column)
    points = (some.logits[:, [i, j]] - low) / (high - low) + np.array([_PITCH * column, -_PITCH * row])
    own = (some.low == i) & (some.high == j)
    return points[~own], points[own], some.weight[own]


@dataclass(frozen=True)
class _Triangle:
    logits: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @staticmethod
    def of(panel: PairPanel) -> "_Triangle":
        logits = real_array("logits", panel.logits, 2)
        count, K = logits.shape
        if count < 1 or K < 2:
            raise ValueError(f"logits: got shape {logits.shape}, expected (N, K) with N >= 1 and K >= 2")
        a, b, lam = pairs(panel.class_a, panel.class_b, panel.lam, count, K)
        logits = logits - logits.mean(1, keepdims=True)
        return _Triangle(logits, np.minimum(a, b), np.maximum(a, b), np.where(a < b, lam, 1 - lam))
