"""One function per kind of plot. It takes results and returns a matplotlib Figure; no files, no global state."""

from ufm._support.style import (
    CLOSED_FORM,
    DASHES,
    DOUBLE_COLUMN,
    LAMBDA_MAP,
    MARKERS,
    NETWORK,
    PALETTE,
    RIVAL,
    SINGLE_COLUMN,
    SOLVER,
    lambda_bar,
    style,
)
from ufm.plotting.channel import DEPTH_LABEL, LAMBDA_LABEL, WIDTH_LABEL, Line, channel_figure, confidence_figure
from ufm.plotting.pairs import PairPanel, pair_figure
from ufm.plotting.planar import PlanarPanel, planar_figure, planar_panel, projected_panel
from ufm.plotting.reliability import ReliabilityPanel, reliability_figure
from ufm.plotting.training import convergence_figure

__all__ = [
    "CLOSED_FORM",
    "DASHES",
    "DEPTH_LABEL",
    "DOUBLE_COLUMN",
    "LAMBDA_LABEL",
    "LAMBDA_MAP",
    "Line",
    "MARKERS",
    "NETWORK",
    "PALETTE",
    "PairPanel",
    "PlanarPanel",
    "RIVAL",
    "ReliabilityPanel",
    "SINGLE_COLUMN",
    "SOLVER",
    "WIDTH_LABEL",
    "channel_figure",
    "confidence_figure",
    "convergence_figure",
    "lambda_bar",
    "pair_figure",
    "planar_figure",
    "planar_panel",
    "projected_panel",
    "reliability_figure",
    "style",
]
