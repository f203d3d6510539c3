"""Features of three classes in the plane of their classifier rows, coloured by lambda."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ufm.arrays import Array, to_tensor
from ufm.etf import classifier_plane
from ufm.plotting.style import DOUBLE_COLUMN, LAMBDA_MAP, lambda_bar, style

# Height of a panel over its width.
_ASPECT = 0.9


@dataclass(frozen=True)
class PlanarPanel:
    """One panel of the planar picture, in coordinates of `classifier_plane`.

    title: of the panel. rows (3, 2): the classifier rows. mixed (n, 2), lam (n,): features of two different classes
    and the weight of the pair's first class, pairs taken cyclically (0, 1), (1, 2), (2, 0). same (m, 2): features of
    one class. scaled: whether lengths are in units of the mean same-class feature's, whose circle is then drawn.
    """

    title: str
    rows: np.ndarray
    mixed: np.ndarray
    lam: np.ndarray
    same: np.ndarray
    scaled: bool = False


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
    return PlanarPanel(title, rows, points[~same] / unit, weight[~same], points[same] / unit, scale)


def planar_figure(
    panels: Sequence[PlanarPanel | None],
    class_names: Sequence[str] = ("0", "1", "2"),
    *,
    columns: int | None = None,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    own_limits: bool = False,
    symbol: str = "w",
) -> Figure:
    """Return the features of three classes in the plane of their classifier rows, with one lambda scale.

    panels: in rows of `columns` (by default one row); None leaves its place empty. class_names: of the three classes.
    column_titles, row_titles: above the columns and beside the rows. own_limits: let each panel fill its place, rather
    than draw all at one scale. symbol: of the rows, in LaTeX. Raises ValueError if there is no panel.
    """
    drawn = [panel for panel in panels if panel is not None]
    if not drawn:
        raise ValueError("panels: got none, expected at least one")
    count = columns or len(panels)
    rows = -(-len(panels) // count)
    common = _Limits.of(drawn)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, rows * _ASPECT * DOUBLE_COLUMN / count + 0.8))
        axes = figure.subplots(rows, count, squeeze=False)
        for axis, panel in zip(axes.flat, [*panels, *[None] * (rows * count - len(panels))], strict=True):
            if panel is not None:
                names = [f"${symbol}_{{{name}}}$" for name in class_names]
                _draw(axis, panel, names, _Limits.of([panel]) if own_limits else common)
            axis.set_aspect("equal")
            axis.set_axis_off()
        for axis, title in zip(axes[0], column_titles, strict=False):
            axis.set_title(f"{title}\n{axis.get_title()}".strip())
        for axis, title in zip(axes[:, 0], row_titles, strict=False):
            axis.text(-0.04, 0.5, title, rotation=90, ha="center", va="center", transform=axis.transAxes)
        pairs = ", ".join(f"({class_names[i]}, {class_names[(i + 1) % 3]})" for i in range(3))
        label = f"different classes: λ, weight of the pair's first class in {pairs}"
        lambda_bar(figure, label, axes=list(axes.flat))
        # In the figure's corner beside the colour bar; outside the layout, which would make room for it.
        first = next(axis for axis, panel in zip(axes.flat, panels, strict=False) if panel is not None)
        figure.legend(*first.get_legend_handles_labels(), loc="lower left", handletextpad=0.1).set_in_layout(False)
        return figure


@dataclass(frozen=True)
class _Limits:
    """How far the points reach, and a box around them with room for the rows' names, always of the same proportions."""

    reach: float
    half_width: float
    bottom: float
    top: float

    @staticmethod
    def of(panels: Sequence[PlanarPanel]) -> "_Limits":
        points = np.concatenate([points for panel in panels for points in (panel.mixed, panel.same)])
        reach = float(np.linalg.norm(points, axis=1).max())
        circle = 1.03 if any(panel.scaled for panel in panels) else 0.0
        half_width = max(1.05 * float(np.abs(points[:, 0]).max()), 1.25 * reach)
        bottom = min(1.05 * float(points[:, 1].min()), -circle, -0.7 * reach)
        top = max(1.05 * float(points[:, 1].max()), 1.3 * reach)
        half_width = max(half_width, (top - bottom) / (2 * _ASPECT))
        missing = _ASPECT * 2 * half_width - (top - bottom)
        return _Limits(reach, half_width, bottom - missing / 2, top + missing / 2)


def _draw(axis: Axes, panel: PlanarPanel, names: Sequence[str], limits: _Limits) -> None:
    for name, row in zip(names, panel.rows, strict=True):
        direction = row / np.linalg.norm(row)
        axis.plot(*(limits.reach * np.outer([0, 1], direction)).T, color="0.75", linewidth=0.8, zorder=0)
        axis.annotate(name, 1.18 * limits.reach * direction, ha="center", va="center")
    if panel.scaled:
        axis.add_patch(Circle((0, 0), 1, fill=False, color="0.6", linewidth=0.6, linestyle=":", zorder=0))
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
    axis.set(title=panel.title, xlim=(-limits.half_width, limits.half_width), ylim=(limits.bottom, limits.top))
