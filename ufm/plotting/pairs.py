"""Pair plots of all classes: what a plane through three of them hides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ufm.arrays import Array
from ufm.plotting.style import DOUBLE_COLUMN, LAMBDA_MAP, lambda_bar, style

MAX_CLASSES = 12


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
    limits = float(low - margin), float(high + margin)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, DOUBLE_COLUMN + 0.75))
        # Placed by hand: a hundred axes are much work for an automatic layout, and they are all alike.
        figure.set_layout_engine("none")
        bottom, top = 0.7 / figure.get_figheight(), 1 - 0.25 / figure.get_figheight()
        grid = {"left": 0.01, "right": 0.99, "bottom": bottom, "top": top, "wspace": 0.06, "hspace": 0.06}
        axes = figure.subplots(K, K, sharex=True, sharey=True, squeeze=False, gridspec_kw=grid)
        for (row, column), axis in np.ndenumerate(axes):
            axis.set(xticks=[], yticks=[], xlim=limits, ylim=limits)
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=0.3, color="0.7")
            if row > column:
                _draw(axis, triangles[0], column, row)
            elif row < column and upper is not None:
                _draw(axis, triangles[-1], row, column)
            else:
                axis.set_axis_off()
            if row == column:
                axis.text(0.5, 0.5, names[row], ha="center", va="center", fontweight="bold", transform=axis.transAxes)
        titles = f"below the diagonal: {lower.title}" + ("" if upper is None else f";  above it: {upper.title}")
        ends = " to ".join(f"{end:.1f}".replace("-", "\N{MINUS SIGN}") for end in limits)
        figure.text(
            0.5, 1 - 0.05 / figure.get_figheight(), f"{titles};  both axes {ends} logits", ha="center", va="top"
        )
        label = "λ, weight of the smaller class i of the cell's pair (i to the right, j upwards); grey: other pairs"
        lambda_bar(figure, label, place=(0.3, bottom - 0.16 / figure.get_figheight(), 0.4, 0.012))
        return figure


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


def _draw(axis: Axes, some: _Triangle, i: int, j: int) -> None:
    own = (some.low == i) & (some.high == j)
    # A raster: thousands of grey dots in each of a hundred cells would make the vector file too large to open.
    axis.scatter(
        some.logits[~own, i], some.logits[~own, j], s=0.6, color="0.8", linewidths=0, rasterized=True, zorder=0
    )
    axis.scatter(
        some.logits[own, i],
        some.logits[own, j],
        s=2.5,
        c=some.weight[own],
        cmap=LAMBDA_MAP,
        vmin=0,
        vmax=1,
        linewidths=0,
        zorder=1,
    )
