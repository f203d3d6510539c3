"""The channel: width, depth and confidence against lambda."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from ufm.channels import ChannelCurve
from ufm.plotting.style import DOUBLE_COLUMN, NETWORK, SINGLE_COLUMN, SOLVER, style

WIDTH_LABEL = "width  $z_a - z_b$  (logits)"
DEPTH_LABEL = "depth  $(z_a + z_b)/2 - z_0$  (logits)"
LAMBDA_LABEL = "λ, weight of class a"


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


def channel_figure(network: ChannelCurve, solver: ChannelCurve | None, lines: Sequence[Line]) -> Figure:
    """Return width and depth of the channel against lambda: network (mean and deviation), solver, predictions."""
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.5))
        for axis, name, label in zip(
            figure.subplots(1, 2), ("width", "depth"), (WIDTH_LABEL, DEPTH_LABEL), strict=True
        ):
            for line in lines:
                axis.plot(line.lam, getattr(line, name), line.dashes, color=line.colour, label=line.label)
            if solver is not None:
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
            axis.set(xlabel=LAMBDA_LABEL, ylabel=label, xlim=(0, 1))
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 + len(lines))
        return figure


def confidence_figure(network: ChannelCurve, solver: ChannelCurve | None, lines: Sequence[Line]) -> Figure:
    """Return the mean largest probability of different-class samples against lambda, beside the label's own."""
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 2.7))
        axis = figure.subplots()
        grid = np.linspace(0, 1, 201)
        axis.plot(grid, np.maximum(grid, 1 - grid), ":", color="0.5", label="label, max(λ, 1 - λ)")
        for line in lines:
            axis.plot(line.lam, line.confidence, line.dashes, color=line.colour, label=line.label)
        if solver is not None:
            axis.plot(solver.lam, solver.confidence, "s", color=SOLVER, mfc="none", label="direct solver, bin means")
        axis.plot(network.lam, network.confidence, "o", color=NETWORK, label="network, bin means")
        axis.set(xlabel=LAMBDA_LABEL, ylabel="confidence  max$_k$ $p_k$", xlim=(0, 1), ylim=(0, 1.02))
        axis.legend(loc="lower center")
        return figure
