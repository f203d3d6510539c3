"""Plots of three classes' features in the plane of their classifier rows, coloured by lambda."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import Circle

from ufm._support.arrays import Array, check_integer
from ufm._support.pairs import read_pairs
from ufm._support.style import DOUBLE_COLUMN, LAMBDA_MAP, POINT_EDGE, lambda_bar, style
from ufm.plotting.checks import check_interval, check_titles, real_array
from ufm.theory.etf import classifier_plane

# Height of a panel over its width.
_ASPECT = 0.9


@dataclass(frozen=True)
class PlanarPanel:
    """One panel of the planar figure, in the coordinates of `classifier_plane`.

    Attributes
    ----------
    title : str
        Title of the panel.
    rows : (3, 2) array
        The classifier rows, none of them 0.
    mixed : (n, 2) array
        Features of mixtures of two different classes; n may be 0.
    lam : (n,) array
        Weight of the pair's first class, in [0, 1]. Pairs are taken cyclically: (0, 1), (1, 2), (2, 0).
    same : (m, 2) array
        Features of same-class samples; m may be 0.
    scaled : bool
        Whether lengths are in units of the mean length of the same-class features; then the unit circle is drawn.

    Raises
    ------
    ValueError
        For shapes that do not fit, entries that are not finite, or lam outside [0, 1].
    """

    title: str
    rows: np.ndarray
    mixed: np.ndarray
    lam: np.ndarray
    same: np.ndarray
    scaled: bool = False

    def __post_init__(self) -> None:
        """Convert and check every array."""
        for name in ("rows", "mixed", "same"):
            object.__setattr__(self, name, _plane_points(name, getattr(self, name)))
        object.__setattr__(self, "lam", real_array("lam", self.lam, 1))
        if len(self.rows) != 3 or not np.linalg.norm(self.rows, axis=1).all():
            raise ValueError(f"rows: got {self.rows.tolist()}, expected three points other than the origin")
        if len(self.lam) != len(self.mixed):
            raise ValueError(f"lam: got shape {self.lam.shape}, expected {(len(self.mixed),)}")
        check_interval("lam", self.lam)

    @property
    def points(self) -> np.ndarray:
        """All samples (n + m, 2)."""
        return np.concatenate([self.mixed, self.same])


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
    """Project the samples whose two classes are both among `classes` orthogonally onto the plane of three rows.

    Parameters
    ----------
    title : str
        Title of the panel.
    classifier : (K, d) array
        The classifier, K >= 3.
    features : (N, d) array
        Features of all samples.
    class_a, class_b : (N,) integer array
        The two classes of each sample, in 0..K-1.
    lam : (N,) array
        Weight of class_a, in [0, 1].
    classes : triple of int
        Three different classes.
    scale : bool
        Whether to draw in units of the mean length of the same-class features in the plane.

    Returns
    -------
    PlanarPanel
        It has no samples if none is of these classes.

    Raises
    ------
    ValueError
        For shapes that do not fit, entries that are not finite, a class or weight out of range, three classifier rows
        on a line, or no same-class sample to scale by.
    """
    W, h = (real_array(name, x, 2) for name, x in (("classifier", classifier), ("features", features)))
    K, d = W.shape
    if h.shape[1] != d:
        raise ValueError(f"features: got shape {h.shape}, expected (N, {d}), as the classifier's rows")
    three = _three(classes, K)
    a, b, weight = (x.numpy() for x in read_pairs(class_a, class_b, lam, len(h), K).wide().columns)
    try:
        plane = classifier_plane(W[three])
    except ValueError as error:
        raise ValueError(f"classifier: got rows without a plane, expected a triangle ({error})") from error
    chosen = np.isin(a, three) & np.isin(b, three)
    rows, points = (np.asarray(plane.project(x)) for x in (W[three], h[chosen]))
    return projected_panel(title, rows, points, a[chosen], b[chosen], weight[chosen], classes, scale=scale)


def projected_panel(
    title: str,
    rows: Float[Array, "3 2"],
    points: Float[Array, "n 2"],
    class_a: Int[Array, "n"],
    class_b: Int[Array, "n"],
    lam: Float[Array, "n"],
    classes: tuple[int, int, int] = (0, 1, 2),
    *,
    scale: bool = False,
) -> PlanarPanel:
    """Return the panel of points that are in the plane already.

    Parameters
    ----------
    title : str
        Title of the panel.
    rows : (3, 2) array
        The classifier rows of `classes`, in this order, none of them 0.
    points : (n, 2) array
        Samples of these three classes only.
    class_a, class_b : (n,) integer array
        The two classes of each sample.
    lam : (n,) array
        Weight of class_a, in [0, 1].
    classes : triple of int
        Three different classes.
    scale : bool
        As in `planar_panel`.

    Returns
    -------
    PlanarPanel
        The panel.

    Raises
    ------
    ValueError
        For shapes that do not fit, entries that are not finite, another class, a weight out of range, a row at the
        origin, or no same-class sample to scale by.
    """
    three = _three(classes)
    corners, where = real_array("rows", rows, 2), _plane_points("points", points)
    found = read_pairs(class_a, class_b, lam, len(where), max(three) + 1)
    a, b, weight = (x.numpy() for x in found.wide().columns)
    for name, column in (("class_a", a), ("class_b", b)):
        if not np.isin(column, three).all():
            raise ValueError(f"{name}: got {column[~np.isin(column, three)][0]}, expected one of {tuple(three)}")
    place = {k: i for i, k in enumerate(three)}
    a, b = (np.array([place[int(k)] for k in column], int) for column in (a, b))
    same = a == b
    if scale and not same.any():
        raise ValueError("class_a, class_b: got no same-class sample of the three classes, expected some to scale by")
    unit = float(np.linalg.norm(where[same], axis=1).mean()) if scale else 1.0
    if unit == 0:
        raise ValueError("points: got all same-class samples at the origin, expected a length to scale by")
    # In cyclic order, each channel shows the whole scale once.
    weight = np.where((b - a) % 3 == 1, weight, 1 - weight)
    return PlanarPanel(title, corners, where[~same] / unit, weight[~same], where[same] / unit, scale)


def _three(classes: Sequence[int], K: int | None = None) -> list[int]:
    """Return the three classes; raise ValueError unless they are different and, if K is given, smaller than K."""
    try:
        three = [check_integer("classes", k, minimum=0, maximum=None if K is None else K - 1) for k in classes]
    except (TypeError, ValueError):
        three = []
    if len(three) != 3 or len(set(three)) != 3:
        ends = "whole numbers >= 0" if K is None else f"ones in 0..{K - 1}"
        raise ValueError(f"classes: got {classes!r}, expected three different {ends}")
    return three


def _row_names(symbol: str, class_names: Sequence[str]) -> list[str]:
    if len(class_names) != 3:
        raise ValueError(f"class_names: got {len(class_names)}, expected 3")
    names = [f"${symbol}_{{{name}}}$" for name in class_names]
    for name in names:
        try:
            MathTextParser("path").parse(name)
        except ValueError as error:
            raise ValueError(f"class_names: got {name}, expected what matplotlib can set as mathematics") from error
    return names


def _plane_points(name: str, value: Array) -> np.ndarray:
    array = real_array(name, value, 2)
    if array.shape[1] != 2:
        raise ValueError(f"{name}: got shape {array.shape}, expected (n, 2)")
    return array


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
    """Plot the features of three classes in the plane of their classifier rows, with one scale of lambda.

    Parameters
    ----------
    panels : sequence of PlanarPanel or None
        None leaves a place empty; a panel without samples is labelled as such.
    class_names : sequence of str
        Names of the three classes in LaTeX, the subscripts of the rows.
    columns : int, optional
        Number of panels per row of the figure; by default all are in one row.
    column_titles, row_titles : sequence of str
        Titles above the columns and beside the rows, at most one each.
    own_limits : bool
        Whether each panel fills its place, instead of all having the same scale.
    symbol : str
        Symbol of the classifier rows in LaTeX.

    Returns
    -------
    Figure
        One axes per place.

    Raises
    ------
    ValueError
        If no panel has samples, columns is not a whole number >= 1, there are not three names that matplotlib can set,
        or there are too many titles.
    """
    names = _row_names(symbol, class_names)
    drawn = [panel for panel in panels if panel is not None and len(panel.points)]
    if not drawn:
        raise ValueError("panels: got none with samples, expected at least one")
    count = len(panels) if columns is None else check_integer("columns", columns, minimum=1)
    rows = -(-len(panels) // count)
    check_titles("column_titles", column_titles, count)
    check_titles("row_titles", row_titles, rows)
    common = _Limits.of(drawn)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, rows * _ASPECT * DOUBLE_COLUMN / count + 0.8))
        axes = figure.subplots(rows, count, squeeze=False)
        for axis, panel in zip(axes.flat, [*panels, *[None] * (rows * count - len(panels))], strict=True):
            if panel is not None and len(panel.points):
                _draw(axis, panel, names, _Limits.of([panel]) if own_limits else common)
            elif panel is not None:
                axis.set_title(panel.title)
                axis.text(0.5, 0.5, "no samples", ha="center", va="center", transform=axis.transAxes)
            axis.set_aspect("equal")
            axis.set_axis_off()
        for axis, title in zip(axes[0], column_titles, strict=False):
            axis.set_title(f"{title}\n{axis.get_title()}".strip())
        for axis, title in zip(axes[:, 0], row_titles, strict=False):
            axis.text(-0.04, 0.5, title, rotation=90, ha="center", va="center", transform=axis.transAxes)
        pairs = ", ".join(f"({class_names[i]}, {class_names[(i + 1) % 3]})" for i in range(3))
        label = f"different classes: λ, weight of the pair's first class in {pairs}"
        lambda_bar(figure, label, axes=list(axes.flat))
        # The legend is in the corner beside the colour bar; the layout must not make room for it.
        first = next(axis for axis in axes.flat if axis.collections)
        figure.legend(*first.get_legend_handles_labels(), loc="lower left", handletextpad=0.1).set_in_layout(False)
        return figure


@dataclass(frozen=True)
class _Limits:
    """The largest distance from the origin, and a box of fixed proportions around points and the rows' names."""

    reach: float
    half_width: float
    bottom: float
    top: float

    @staticmethod
    def of(panels: Sequence[PlanarPanel]) -> "_Limits":
        points = np.concatenate([panel.points for panel in panels])
        # If all samples are at the origin, the box still needs some size.
        reach = float(np.linalg.norm(points, axis=1).max()) or 1.0
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
        end = limits.reach * direction
        axis.annotate(name, end, 9 * direction, textcoords="offset points", ha="center", va="center")
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
        alpha=0.9,
        **POINT_EDGE,
        label="different classes",
        zorder=2,
    )
    axis.set(title=panel.title, xlim=(-limits.half_width, limits.half_width), ylim=(limits.bottom, limits.top))
