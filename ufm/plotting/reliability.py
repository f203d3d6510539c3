"""Reliability diagrams: accuracy against confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ufm._support.arrays import check_integer
from ufm._support.style import CLOSED_FORM, DOUBLE_COLUMN, SINGLE_COLUMN, SOLVER, style
from ufm.networks.calibration import ReliabilityCurve
from ufm.plotting.checks import check_interval, real_array

# The accuracy of fewer samples than this is mostly chance.
_ENOUGH = 10


@dataclass(frozen=True)
class ReliabilityPanel:
    """One reliability diagram; `reliability_figure` checks it.

    Attributes
    ----------
    title : str
        Title of the diagram.
    before : ReliabilityCurve
        Curve of the network as trained.
    after : ReliabilityCurve or None
        Curve after temperature scaling.
    note : str
        Short text for the lower right corner; it may have several lines.
    """

    title: str
    before: ReliabilityCurve
    after: ReliabilityCurve | None = None
    note: str = ""


def reliability_figure(panels: Sequence[ReliabilityPanel], *, columns: int | None = None) -> Figure:
    """Plot reliability diagrams: accuracy against confidence.

    The area of a marker shows the number of samples in its bin. Bins of fewer than 10 samples are faint and not joined
    to the others, because their accuracy is mostly chance.

    Parameters
    ----------
    panels : sequence of ReliabilityPanel
        At least one diagram.
    columns : int, optional
        Number of diagrams per row; by default all are in one row.

    Returns
    -------
    Figure
        One axes per panel.

    Raises
    ------
    ValueError
        If there is no panel, columns is not a whole number >= 1, or a curve has no samples, fields that do not fit
        together, or values out of range.
    """
    if not panels:
        raise ValueError("panels: got none, expected at least one")
    for panel in panels:
        _check("before", panel.before)
        if panel.after is not None:
            _check("after", panel.after)
    count = len(panels) if columns is None else check_integer("columns", columns, minimum=1)
    rows = -(-len(panels) // count)
    with style():
        width = SINGLE_COLUMN if count == 1 else DOUBLE_COLUMN
        figure = Figure(figsize=(width, rows * min(width / count, 2.6) + 0.6))
        axes = figure.subplots(rows, count, squeeze=False, sharex=True, sharey=True)
        for axis, panel in zip(axes.flat, panels, strict=False):
            _draw(axis, panel)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
        for axis in axes[:, 0]:
            axis.set_ylabel("accuracy")
        # Panels can have different series: the legend has a handle for each label that occurs.
        handles = {}
        for axis in axes.flat:
            handles |= {handle.get_label(): handle for handle in axis.get_legend_handles_labels()[0]}
        legend = figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=1 if count == 1 else 3)
        # The legend takes its marker from the first bin, whose size has no meaning there.
        for handle in legend.legend_handles:
            if hasattr(handle, "set_sizes"):
                handle.set_sizes([20])  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        return figure


def _check(name: str, curve: ReliabilityCurve) -> None:
    if not isinstance(curve, ReliabilityCurve):
        raise ValueError(f"{name}: got {type(curve).__name__}, expected a ReliabilityCurve")
    count = real_array("count", curve.count, 1)
    if (count < 0).any() or not count.any():
        raise ValueError(f"{name}: got a curve without samples, expected counts >= 0, not all of them 0")
    for which, values in (("confidence", curve.confidence), ("accuracy", curve.accuracy)):
        found = real_array(f"{name}.{which}", values, 1, finite=False)
        if found.shape != count.shape:
            raise ValueError(f"{name}.{which}: got shape {found.shape}, expected {count.shape}")
        check_interval(f"{name}.{which}", real_array(f"{name}.{which}", found[count > 0], 1))


def _draw(axis: Axes, panel: ReliabilityPanel) -> None:
    axis.plot([0, 1], [0, 1], ":", color="0.5", linewidth=0.8, label="calibrated")
    for curve, colour, marker, dashes, label in (
        (panel.before, SOLVER, "o", "-", "as trained"),
        (panel.after, CLOSED_FORM, "s", "--", "after temperature scaling"),
    ):
        if curve is None:
            continue
        confidence, accuracy, count = (np.asarray(x, float) for x in (curve.confidence, curve.accuracy, curve.count))
        enough = count >= _ENOUGH
        axis.plot(confidence[enough], accuracy[enough], dashes, color=colour, linewidth=0.9)
        area = 6 + 60 * count / count.sum()
        face = colour if marker == "o" else "none"
        for bins, alpha in ((~enough & (count > 0), 0.25), (enough, 1)):
            axis.scatter(
                confidence[bins],
                accuracy[bins],
                s=area[bins],
                marker=marker,
                color=colour,
                facecolors=face,
                linewidths=0.8,
                alpha=alpha,
                label=label if alpha == 1 else None,
                clip_on=False,
            )
    axis.set(title=panel.title, xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
    # The lower right corner is free: a curve there would belong to a network that is confident and always wrong.
    axis.text(1, 0.04, panel.note, transform=axis.transAxes, ha="right", fontsize=6, linespacing=1.25)
