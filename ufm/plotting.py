"""One function per kind of plot: results in, a matplotlib Figure out; no files, no global state."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style as mpl_style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from ufm.channels import ChannelCurve

# Widths of a journal's single and double column, in inches.
SINGLE_COLUMN = 84 / 25.4
DOUBLE_COLUMN = 174 / 25.4

# Okabe and Ito's palette: told apart in print and by colour-blind readers.
NETWORK, CLOSED_FORM, SOLVER, RIVAL = "#000000", "#0072B2", "#D55E00", "#009E73"


def style() -> AbstractContextManager:
    """Return the context in which the project's figures are drawn and saved."""
    return mpl_style.context(Path(__file__).with_name("ufm.mplstyle"))


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


def planar_figure(panels: Sequence[PlanarPanel], class_names: Sequence[str] = ("0", "1", "2")) -> Figure:
    """Return the features of three classes in the plane of their classifier rows, one panel each, one lambda scale."""
    everything = np.concatenate([points for panel in panels for points in (panel.mixed, panel.same)])
    reach = float(np.linalg.norm(everything, axis=1).max())
    low, high = (1.08 * bound(everything, axis=0) for bound in (np.min, np.max))
    low, high = np.minimum(low, (-reach, -0.6 * reach)), np.maximum(high, (reach, 1.15 * reach))
    with style():
        height = DOUBLE_COLUMN / len(panels) * (high - low)[1] / (high - low)[0]
        figure = Figure(figsize=(DOUBLE_COLUMN, height + 0.8))
        axes = np.atleast_1d(figure.subplots(1, len(panels)))
        drawn = [_planar_axes(axis, panel, class_names, reach) for axis, panel in zip(axes, panels, strict=True)]
        for axis in axes:
            axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        bar = figure.colorbar(drawn[0], ax=list(axes), location="bottom", shrink=0.45, aspect=30, pad=0.03)
        pairs = ", ".join(f"({class_names[i]}, {class_names[(i + 1) % 3]})" for i in range(3))
        bar.set_label(f"different classes: λ, weight of the pair's first class in {pairs}")
        bar.solids.set_alpha(1)  # pyright: ignore[reportOptionalMemberAccess]
        # In the figure's corner beside the colour bar; outside the layout, which would make room for it.
        figure.legend(*axes[0].get_legend_handles_labels(), loc="lower left", handletextpad=0.1).set_in_layout(False)
        return figure


def _planar_axes(axis: Axes, panel: PlanarPanel, class_names: Sequence[str], reach: float) -> PathCollection:
    for name, row in zip(class_names, panel.rows, strict=True):
        direction = row / np.linalg.norm(row)
        axis.plot(*(reach * np.outer([0, 1], direction)).T, color="0.75", linewidth=0.8, zorder=0)
        axis.annotate(f"$w_{{{name}}}$", 1.08 * reach * direction, ha="center", va="center")
    axis.scatter(*panel.same.T, s=9, marker="x", linewidths=0.6, color="0.35", label="same class", zorder=1)
    points = axis.scatter(
        *panel.mixed.T, s=5, c=panel.lam, vmin=0, vmax=1, linewidths=0, alpha=0.9, label="different classes", zorder=2
    )
    axis.set(title=panel.title, aspect="equal")
    axis.set_axis_off()
    return points


@dataclass(frozen=True)
class Line:
    """A continuous prediction against lambda: label, lam (n,), width, depth, confidence (n,), colour, line style."""

    label: str
    lam: np.ndarray
    width: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    colour: str
    dashes: str = "-"


def channel_figure(network: ChannelCurve, solver: ChannelCurve, lines: Sequence[Line]) -> Figure:
    """Return width and depth of the channel against lambda: network (mean and deviation), solver, predictions."""
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.5))
        for axis, name, label in zip(
            figure.subplots(1, 2),
            ("width", "depth"),
            ("width  $z_a - z_b$  (logits)", "depth  $(z_a + z_b)/2 - z_0$  (logits)"),
            strict=True,
        ):
            for line in lines:
                axis.plot(line.lam, getattr(line, name), line.dashes, color=line.colour, label=line.label)
            axis.plot(
                solver.lam, getattr(solver, name), "s", color=SOLVER, mfc="none", label="direct solver, bin means"
            )
            axis.errorbar(
                network.lam,
                getattr(network, name),
                yerr=getattr(network, f"{name}_std"),
                fmt="o",
                color=NETWORK,
                linewidth=0.7,
                label="network, bin mean ± std",
            )
            axis.set(xlabel="λ, weight of class a", ylabel=label, xlim=(0, 1))
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 + len(lines))
        return figure


def confidence_figure(network: ChannelCurve, solver: ChannelCurve, lines: Sequence[Line]) -> Figure:
    """Return the mean largest probability of different-class samples against lambda, beside the label's own."""
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 2.7))
        axis = figure.subplots()
        grid = np.linspace(0, 1, 201)
        axis.plot(grid, np.maximum(grid, 1 - grid), ":", color="0.5", label="label, max(λ, 1 - λ)")
        for line in lines:
            axis.plot(line.lam, line.confidence, line.dashes, color=line.colour, label=line.label)
        axis.plot(solver.lam, solver.confidence, "s", color=SOLVER, mfc="none", label="direct solver, bin means")
        axis.plot(network.lam, network.confidence, "o", color=NETWORK, label="network, bin means")
        axis.set(xlabel="λ, weight of class a", ylabel="confidence  max$_k$ $p_k$", xlim=(0, 1), ylim=(0, 1.02))
        axis.legend(loc="lower center")
        return figure
