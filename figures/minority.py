"""Minority collapse against imbalance, with and without mixup: `python -m figures.minority [--sweep FILE]`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from figures.sweeps import main
from ufm.plotting import CLOSED_FORM, NETWORK, RIVAL, SINGLE_COLUMN, SOLVER, style

_COLOURS = (NETWORK, CLOSED_FORM, SOLVER, RIVAL)
_MARKERS = "osD^"


@dataclass(frozen=True)
class Config:
    """Which result to draw, and where to."""

    sweep: str = "experiments/results/minority/minority.json"
    """file written by `python -m experiments.minority`"""
    out: str = "figures/output"
    """folder for the PNG and PDF files"""


def draw(result: Path) -> Figure:
    """Return the cosine between rare classifier rows against the ratio, for the largest penalties of the result."""
    if not result.is_file():
        raise ValueError(f"sweep: got {str(result)!r}, which does not exist, expected a result of experiments.minority")
    points = json.loads(result.read_text(encoding="utf-8"))["points"]
    decay = max(point["decay"] for point in points)
    points = [point for point in points if point["decay"] == decay]
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 3.0))
        axis = figure.subplots()
        alphas = list(dict.fromkeys(point["alpha"] for point in points))
        for alpha, colour, marker in zip(alphas, _COLOURS, _MARKERS, strict=False):
            curve = [point for point in points if point["alpha"] == alpha]
            ratios, cosines = ([point[key] for point in curve] for key in ("ratio", "cosine_rare"))
            label = "no mixup" if alpha is None else rf"mixup, $\alpha$ = {alpha:g}"
            axis.plot(ratios, cosines, marker=marker, markersize=3, color=colour, label=label)
            axis.axvline(curve[0]["predicted_collapse_ratio"], color=colour, linestyle=":", linewidth=0.8)
        axis.plot([], [], ":", color="0.3", linewidth=0.8, label="predicted collapse")
        axis.set(xscale="log", xlabel="frequency of frequent over rare classes", ylabel="cosine between rare rows")
        axis.set_title(rf"$\lambda_W = \lambda_H = {decay:g}$")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure


if __name__ == "__main__":
    sys.exit(main(Config, "minority", draw, __doc__))
