"""Pair plots of all classes: what a plane through three of them hides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ufm.arrays import Array
from ufm.plotting.style import DOUBLE_COLUMN, LAMBDA_MAP, lambda_bar, style

MAX_CLASSES = 12
# From one cell to the next; a cell's side is 1.
_PITCH = 1.06


@dataclass(frozen=True)
class PairPanel:
    """What fills one triangle: title, logits (N, K), class_a, class_b (N,) and the weight lam (N,) of class_a."""

    title: str
    logits: Float[Array, "N K"]
    class_a: Int[Array, "N"]
    class_b: Int[Array, "N"]
    lam: Float[Array, "N"]


def pair_figure(lower: PairPanel, upper: PairPanel | None = None, class_names: Sequence[str] | None = None) -> Figure:
    """Return the logits of every two classes against each other, `lower` below the diagonal and `upper` above it.

    In the cell of classes i < j lie all samples: those mixed of i and j coloured by the weight of i, all others grey.
    Logits are drawn less their mean over the classes. In both triangles the logit of i, the smaller class, is drawn to
    the right and that of j upwards, so that a cell can be held against its mirror image. Raises ValueError for more
    than 12 classes or shapes that do not fit.
    """
    K = np.asarray(lower.logits).shape[1]
    if K > MAX_CLASSES:
        raise ValueError(f"lower: got {K} classes, expected at most {MAX_CLASSES} to be legible")
    names = [str(k) for k in range(K)] if class_names is None else list(class_names)
    if len(names) != K:
        raise ValueError(f"class_names: got {len(names)}, expected {K}")
    triangles = [_Triangle.of(panel) for panel in (lower, upper) if panel is not None]
    if any(triangle.logits.shape[1] != K for triangle in triangles):
        raise ValueError(f"upper: got {triangles[-1].logits.shape[1]} classes, expected {K}")
    low, high = (bound([bound(triangle.logits) for triangle in triangles]) for bound in (np.min, np.max))
    margin = 0.05 * (high - low)
    low, high = float(low - margin), float(high + margin)
    cells = [(row, column) for row in range(K) for column in range(row if upper is None else K) if row != column]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, DOUBLE_COLUMN + 0.6))
        axis = figure.subplots()
        drawn = [_cell(triangles[0 if row > column else -1], row, column, low, high) for row, column in cells]
        # All cells in one axes, their points moved to where the cell is: a hundred axes would take seconds. The grey
        # points are a raster, since there are thousands in each cell.
        others, own, weights = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        axis.scatter(*others.T, s=0.6, color="0.8", linewidths=0, rasterized=True, zorder=0)
        axis.scatter(*own.T, s=2.5, c=weights, cmap=LAMBDA_MAP, vmin=0, vmax=1, linewidths=0, zorder=1)
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
        logits = np.asarray(panel.logits, float)
        a, b, lam = (np.asarray(column) for column in (panel.class_a, panel.class_b, panel.lam))
        if not len(logits) == len(a) == len(b) == len(lam):
            lengths = ", ".join(str(len(column)) for column in (logits, a, b, lam))
            raise ValueError(f"logits, class_a, class_b, lam: got {lengths} rows, expected as many of each")
        logits = logits - logits.mean(1, keepdims=True)
        return _Triangle(logits, np.minimum(a, b), np.maximum(a, b), np.where(a < b, lam, 1 - lam))
