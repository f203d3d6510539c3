"""Features of three classes in the plane of their classifier rows, coloured by lambda."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ufm.arrays import Array, to_tensor
from ufm.etf import classifier_plane
from ufm.plotting.style import DOUBLE_COLUMN, LAMBDA_MAP, lambda_bar, style


@dataclass(frozen=True)
class PlanarPanel:
    """One panel of the planar picture, in coordinates of `classifier_plane`.

    title: of the panel. rows (3, 2): the classifier rows. mixed (n, 2), lam (n,): features of two different classes
    and the weight of the pair's first class, pairs taken cyclically (0, 1), (1, 2), (2, 0). same (m, 2): features of
    one class.
    """

    title: str
    rows: np.ndarray
    mixed: np.ndarray
    lam: np.ndarray
    same: np.ndarray


def planar_panel(
    title: str,
    classifier: Float[Array, "K d"],
    features: Float[Array, "N d"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    classes: tuple[int, int, int] = (0, 1, 2),
    *,
    scale: bool = False,
) -> PlanarPanel:
    """Return the panel of the samples whose two classes are both among `classes`, projected orthogonally.

    scale: draw in units of the mean length of the same-class features in the plane. Raises ValueError if the classes
    are not three different ones in 0..K-1, or no same-class sample is there to scale by.
    """
    W, h = (to_tensor(name, x, ndim=2).double() for name, x in (("classifier", classifier), ("features", features)))
    K = len(W)
    if len(set(classes)) != 3 or not all(0 <= k < K for k in classes):
        raise ValueError(f"classes: got {classes}, expected three different ones in 0..{K - 1}")
    plane = classifier_plane(W[list(classes)])
    a, b = (np.asarray(column) for column in (class_a, class_b))
    chosen = np.isin(a, classes) & np.isin(b, classes)
    points = np.asarray(plane.project(h[torch.from_numpy(chosen)]))
    rows = np.asarray(plane.project(W[list(classes)]))
    return projected_panel(title, rows, points, a[chosen], b[chosen], np.asarray(lam)[chosen], classes, scale=scale)


def projected_panel(
    title: str,
    rows: np.ndarray,
    points: np.ndarray,
    class_a: np.ndarray,
    class_b: np.ndarray,
    lam: np.ndarray,
    classes: tuple[int, int, int] = (0, 1, 2),
    *,
    scale: bool = False,
) -> PlanarPanel:
    """Return the panel of points (n, 2) that are in the plane already; otherwise as `planar_panel`."""
    place = {k: i for i, k in enumerate(classes)}
    a, b = (np.array([place[int(k)] for k in column], int) for column in (class_a, class_b))
    same = a == b
    if scale and not same.any():
        raise ValueError("features: got no same-class sample of the three classes, expected some to scale by")
    unit = float(np.linalg.norm(points[same], axis=1).mean()) if scale else 1.0
    # Cyclic order, so that each channel shows the whole scale once and no two pairs share a meaning.
    weight = np.where((b - a) % 3 == 1, lam, 1 - lam)
    return PlanarPanel(title, rows, points[~same] / unit, weight[~same], points[same] / unit)


def planar_figure(
    panels: Sequence[PlanarPanel | None],
    class_names: Sequence[str] = ("0", "1", "2"),
    *,
    columns: int | None = None,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
) -> Figure:
    """Return the features of three classes in the plane of their classifier rows, one lambda scale for all panels.

    panels: in rows of `columns` (by default one row), all drawn at the same scale; None leaves its place empty.
    class_names: of the three classes. column_titles, row_titles: above the columns and beside the rows. Raises
    ValueError if there is no panel.
    """
    drawn = [panel for panel in panels if panel is not None]
    if not drawn:
        raise ValueError("panels: got none, expected at least one")
    count = columns or len(panels)
    everything = np.concatenate([points for panel in drawn for points in (panel.mixed, panel.same)])
    reach = float(np.linalg.norm(everything, axis=1).max())
    low, high = (1.08 * bound(everything, axis=0) for bound in (np.min, np.max))
    low, high = np.minimum(low, (-reach, -0.6 * reach)), np.maximum(high, (reach, 1.15 * reach))
    rows = -(-len(panels) // count)
    with style():
        height = DOUBLE_COLUMN / count * (high - low)[1] / (high - low)[0]
        figure = Figure(figsize=(DOUBLE_COLUMN, rows * height + 0.8))
        axes = figure.subplots(rows, count, squeeze=False)
        for axis, panel in zip(axes.flat, [*panels, *[None] * (rows * count - len(panels))], strict=True):
            if panel is not None:
                _draw(axis, panel, class_names, reach)
                axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axis.set_aspect("equal")
            axis.set_axis_off()
        for axis, title in zip(axes[0], column_titles, strict=False):
            axis.set_title(title)
        for axis, title in zip(axes[:, 0], row_titles, strict=False):
            axis.text(-0.04, 0.5, title, rotation=90, ha="center", va="center", transform=axis.transAxes)
        pairs = ", ".join(f"({class_names[i]}, {class_names[(i + 1) % 3]})" for i in range(3))
        label = f"different classes: λ, weight of the pair's first class in {pairs}"
        lambda_bar(figure, label, axes=list(axes.flat))
        # In the figure's corner beside the colour bar; outside the layout, which would make room for it.
        first = next(axis for axis, panel in zip(axes.flat, panels, strict=False) if panel is not None)
        figure.legend(*first.get_legend_handles_labels(), loc="lower left", handletextpad=0.1).set_in_layout(False)
        return figure


def _draw(axis: Axes, panel: PlanarPanel, class_names: Sequence[str], reach: float) -> None:
    for name, row in zip(class_names, panel.rows, strict=True):
        direction = row / np.linalg.norm(row)
        axis.plot(*(reach * np.outer([0, 1], direction)).T, color="0.75", linewidth=0.8, zorder=0)
        axis.annotate(f"$w_{{{name}}}$", 1.08 * reach * direction, ha="center", va="center")
    axis.scatter(*panel.same.T, s=9, marker="x", linewidths=0.6, color="0.35", label="same class", zorder=1)
    axis.scatter(
        *panel.mixed.T,
        s=5,
        c=panel.lam,
        cmap=LAMBDA_MAP,
        vmin=0,
        vmax=1,
        linewidths=0,
        alpha=0.9,
        label="different classes",
        zorder=2,
    )
    axis.set_title(panel.title)
