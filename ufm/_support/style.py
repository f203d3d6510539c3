"""Sizes, colours and the scale of lambda that all figures share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style as mpl_style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

# Widths of a journal's single and double column, in inches.
SINGLE_COLUMN = 84 / 25.4
DOUBLE_COLUMN = 174 / 25.4

# The palette of Okabe and Ito, which can be told apart in print and by colour-blind readers. Several series of one kind
# in a figure differ in marker or dashes too, so that grey print keeps them apart.
NETWORK, CLOSED_FORM, SOLVER, RIVAL = "#000000", "#0072B2", "#D55E00", "#009E73"
PALETTE = (CLOSED_FORM, SOLVER, RIVAL, NETWORK, "#CC79A7", "#E69F00", "#56B4E9", "0.5")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")

# Lightness increases along the map, so that lambda can be read in grey and without colour vision.
LAMBDA_MAP = "viridis"
# Edge of points coloured by lambda: without it the light end disappears in grey print, on white and on grey.
POINT_EDGE = {"edgecolors": "0.25", "linewidths": 0.2}


def style() -> AbstractContextManager:
    """Return the context manager in which the project's figures are drawn and saved.

    Returns
    -------
    context manager
        It sets matplotlib's style and restores it at the end.
    """
    return mpl_style.context(Path(__file__).with_name("ufm.mplstyle"))


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure in the project's style, which notebooks show."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    with style():
        return pyplot.subplots(figsize=(SINGLE_COLUMN, 2.7))[1]


def lambda_bar(figure: Figure, label: str, *, axes: Sequence[Axes]) -> Colorbar:
    """Add the colour scale of lambda, from 0 to 1, below the axes.

    Parameters
    ----------
    figure : Figure
        The figure to add to.
    label : str
        Label of the scale.
    axes : sequence of Axes
        The axes that share the scale.

    Returns
    -------
    Colorbar
        The colour bar.
    """
    mappable = ScalarMappable(Normalize(0, 1), LAMBDA_MAP)
    bar = figure.colorbar(mappable, ax=list(axes), location="bottom", shrink=0.45, aspect=30, pad=0.03)
    bar.set_label(label)
    return bar
