"""Plots of the channel: width, depth and confidence against lambda."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure

from ufm._support.arrays import check_choice
from ufm._support.style import CLOSED_FORM, DASHES, DOUBLE_COLUMN, NETWORK, SINGLE_COLUMN, SOLVER, style
from ufm.networks.channel import ChannelCurve
from ufm.plotting.checks import check_interval, real_array, series

WIDTH_LABEL = "width  $z_a - z_b$  (logits)"
DEPTH_LABEL = "depth  $(z_a + z_b)/2 - z_0$  (logits)"
LAMBDA_LABEL = "λ, weight of class a"


@dataclass(frozen=True)
class Line:
    """A prediction as a line against lambda.

    Entries that are NaN or infinite, as the width can be at the ends, leave a gap.

    Attributes
    ----------
    label : str
        Text in the legend.
    lam : (n,) array
        Values of lambda, in [0, 1].
    width, depth : (n,) array
        Width and depth, in logits.
    confidence : (n,) array or None
        Largest probability, in [0, 1]; `confidence_figure` needs it.
    colour : str
        Any colour that matplotlib knows.
    dashes : str
        One of `DASHES`.

    Raises
    ------
    ValueError
        For shapes that do not fit, values out of range, or no finite value.
    """

    label: str
    lam: np.ndarray
    width: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray | None = None
    colour: str = CLOSED_FORM
    dashes: str = "-"

    def __post_init__(self) -> None:
        """Convert and check every field."""
        object.__setattr__(self, "lam", real_array("lam", self.lam, 1))
        check_interval("lam", self.lam)
        for name in ("width", "depth", *(() if self.confidence is None else ("confidence",))):
            values = series(name, getattr(self, name), len(self.lam))
            object.__setattr__(self, name, values)
            if name == "confidence":
                check_interval(name, values)
        if not is_color_like(self.colour):
            raise ValueError(f"colour: got {self.colour!r}, expected a colour that matplotlib knows")
        check_choice("dashes", self.dashes, DASHES)


def channel_figure(network: ChannelCurve, solver: ChannelCurve | None, lines: Sequence[Line]) -> Figure:
    """Plot width and depth of the channel against lambda, for network, solver and predictions.

    Parameters
    ----------
    network : ChannelCurve
        Of `ufm.channel_curve` or a comparison's `curves`; drawn as means in a band of one standard deviation. Empty
        bins are left out.
    solver : ChannelCurve or None
        The direct solver's curve.
    lines : sequence of Line
        Predictions, none or more.

    Returns
    -------
    Figure
        Two axes, in logits.

    Raises
    ------
    ValueError
        If the fields of a curve do not fit together, are out of range, or have no finite entry.
    """
    _check_curves(network, solver)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.5))
        for axis, name, label in zip(
            figure.subplots(1, 2), ("width", "depth"), (WIDTH_LABEL, DEPTH_LABEL), strict=True
        ):
            for line in lines:
                axis.plot(*_points(line, name), line.dashes, color=line.colour, label=line.label)
            if solver is not None:
                axis.plot(*_points(solver, name), "s", color=SOLVER, mfc="none", label="direct solver, bin means")
            (lam, mean), spread = _points(network, name), getattr(network, f"{name}_std")
            axis.plot(lam, mean, "o", color=NETWORK, label="network, bin means")
            axis.fill_between(lam, mean - spread, mean + spread, color=NETWORK, alpha=0.12, linewidth=0)
            axis.set(xlabel=LAMBDA_LABEL, ylabel=label, xlim=(0, 1))
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 + len(lines))
        return figure


def confidence_figure(network: ChannelCurve, solver: ChannelCurve | None, lines: Sequence[Line]) -> Figure:
    """Plot the mean largest probability of different-class samples against lambda, beside that of the label itself.

    Parameters
    ----------
    network : ChannelCurve
        As in `channel_figure`.
    solver : ChannelCurve or None
        As in `channel_figure`.
    lines : sequence of Line
        Predictions, each with a confidence.

    Returns
    -------
    Figure
        One axes.

    Raises
    ------
    ValueError
        As in `channel_figure`, and for a line without confidence.
    """
    _check_curves(network, solver)
    for line in lines:
        if line.confidence is None:
            raise ValueError(f"lines: got {line.label!r} without confidence, expected (n,) probabilities")
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 2.7))
        axis = figure.subplots()
        grid = np.linspace(0, 1, 201)
        axis.plot(grid, np.maximum(grid, 1 - grid), ":", color="0.5", label="label, max(λ, 1 - λ)")
        for line in lines:
            axis.plot(*_points(line, "confidence"), line.dashes, color=line.colour, label=line.label)
        if solver is not None:
            axis.plot(*_points(solver, "confidence"), "s", color=SOLVER, mfc="none", label="direct solver, bin means")
        axis.plot(*_points(network, "confidence"), "o", color=NETWORK, label="network, bin means")
        axis.set(xlabel=LAMBDA_LABEL, ylabel="confidence  max$_k$ $p_k$", xlim=(0, 1), ylim=(0, 1.02))
        axis.legend(loc="lower center")
        return figure


def _points(curve: ChannelCurve | Line, name: str) -> tuple[np.ndarray, np.ndarray]:
    lam, values = (real_array(each, getattr(curve, each), 1, finite=False) for each in ("lam", name))
    return lam, values


def _check_curves(network: ChannelCurve, solver: ChannelCurve | None) -> None:
    for which, curve in (("network", network), ("solver", solver)):
        if curve is None and which == "solver":
            continue
        if not isinstance(curve, ChannelCurve):
            raise ValueError(f"{which}: got {type(curve).__name__}, expected a ChannelCurve")
        bins = len(real_array(f"{which}.lam", curve.lam, 1, finite=False))
        for name in ("lam", "width", "width_std", "depth", "depth_std", "confidence"):
            values = series(f"{which}.{name}", getattr(curve, name), bins)
            if name in ("lam", "confidence"):
                check_interval(f"{which}.{name}", values)
            elif name.endswith("_std") and (values < 0).any():
                raise ValueError(f"{which}.{name}: got {np.nanmin(values):.6g}, expected standard deviations >= 0")
