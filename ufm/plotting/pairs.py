"""Pair plots: the logits of every two classes, which a plane through three classes does not show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ufm._support.arrays import Array
from ufm._support.pairs import read_pairs
from ufm._support.style import DOUBLE_COLUMN, LAMBDA_MAP, POINT_EDGE, lambda_bar, style
from ufm.plotting.checks import real_array

MAX_CLASSES = 12
# Distance from one cell to the next; a cell's side is 1.
_PITCH = 1.06


@dataclass(frozen=True)
class PairPanel:
    """The samples in one triangle of a pair plot; `pair_figure` checks them.

    Attributes
    ----------
    title : str
        Title of the triangle.
    logits : (N, K) array
        Logits, K >= 2; a constant added to a row changes nothing.
    class_a, class_b : (N,) integer array
        The two classes of each sample, in 0..K-1.
    lam : (N,) array
        Weight of class_a, in [0, 1].
    """

    title: str
    logits: Float[Array, "N K"]
    class_a: Int[Array, "N"]
    class_b: Int[Array, "N"]
    lam: Float[Array, "N"]


def pair_figure(lower: PairPanel, upper: PairPanel | None = None, class_names: Sequence[str] | None = None) -> Figure:
    """Plot the logits of every two classes against each other, `lower` below the diagonal and `upper` above it.

    The cell of classes i < j shows all samples: mixtures of i and j coloured by the weight of i, all others in grey.
    Logits are centred over the classes. In both triangles the logit of the smaller class i is drawn to the right and
    that of j upwards, so that a cell can be compared with its mirror image.

    Parameters
    ----------
    lower : PairPanel
        Samples of K <= 12 classes.
    upper : PairPanel, optional
        Samples of the same classes; it may have other samples than `lower`.
    class_names : sequence of str, optional
        K names; by default the classes' numbers.

    Returns
    -------
    Figure
        One axes with all cells.

    Raises
    ------
    ValueError
        For fewer than 2 or more than 12 classes, no sample, shapes that do not fit, logits that are not finite, or a
        class or weight out of range.
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
    # If all logits are equal, the axes still need some width.
    margin = 0.05 * (high - low) or 0.5
    low, high = float(low - margin), float(high + margin)
    cells = [(row, column) for row in range(K) for column in range(row if upper is None else K) if row != column]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, DOUBLE_COLUMN + 0.6))
        axis = figure.subplots()
        drawn = [_cell(triangles[0 if row > column else -1], row, column, low, high) for row, column in cells]
        # All cells share one axes, with points shifted to their cell: a hundred axes would take seconds. The grey
        # points are rasterised, because each cell has thousands.
        others, own, weights = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        axis.scatter(*others.T, s=0.6, color="0.88", linewidths=0, rasterized=True, zorder=0)
        # In grey print, the light end of the colour scale looks like the other points; the edge tells them apart.
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
    """Return a cell's points of other pairs, those of its own pair, and the weights of the latter."""
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
        pairs = read_pairs(panel.class_a, panel.class_b, panel.lam, count, K).wide().ascending()
        logits = logits - logits.mean(1, keepdims=True)
        return _Triangle(logits, *(column.numpy() for column in pairs.columns))
