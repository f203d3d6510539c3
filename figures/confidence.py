"""Confidence against lambda: network, solver, closed form, straight line, and the label's own."""

from pathlib import Path

from matplotlib.figure import Figure

from figures.runs import curve, predictions, read_results
from ufm.plotting import confidence_figure


def draw(run: Path, mode: str = "eval") -> Figure:
    """Return the picture for the network in `mode`; the solver's problem has the nearest ETF as its classifier."""
    results = read_results(run)
    solver = curve(results, mode, "solver, nearest ETF")
    return confidence_figure(curve(results, mode, "network"), solver, predictions(results, mode))
