"""Certified gap against time of the solver's methods: `python -m figures.methods [--sweep ...] [--out ...]`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures.sweeps import main, read_lines, title
from ufm.plotting import CLOSED_FORM, NETWORK, RIVAL, SINGLE_COLUMN, SOLVER, style

# The rest of Okabe and Ito's palette behind the project's four.
_COLOURS = (SOLVER, CLOSED_FORM, RIVAL, NETWORK, "#CC79A7", "#E69F00", "#56B4E9", "0.5")
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Config:
    """Which sweep to draw, and where to."""

    sweep: str = "experiments/results/sweeps/methods"
    """folder with points.jsonl and config.json"""
    out: str = "figures/output"
    """folder for the PNG and PDF files"""


def draw(sweep: Path) -> Figure:
    """Return the picture of a sweep with recorded histories, one curve per point."""
    lines = [line for line in read_lines(sweep) if "history" in line]
    if not lines:
        raise ValueError(f"sweep: got {str(sweep)!r}, which has no histories, expected a sweep with `record`")
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 3.6))
        axis = figure.subplots()
        for number, line in enumerate(lines):
            history = line["history"]
            seconds, gap = (np.array(history[name], dtype=float) for name in ("seconds", "relative_gap"))
            colour = _COLOURS[number % len(_COLOURS)]
            dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
            # A method that took a few iterations is seen by its iterates.
            marker = "o" if len(seconds) < 20 else ""
            label = title(line["parameters"]["method"])
            # The start is at no time, which a logarithmic axis has no place for.
            axis.plot(seconds[1:], gap[1:], dashes, marker=marker, markersize=2.5, color=colour, label=label)
        axis.set(xscale="log", yscale="log", xlabel="seconds, one thread", ylabel="certified gap / objective")
        axis.set_ylim(top=3)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure


if __name__ == "__main__":
    sys.exit(main(Config, "methods", draw, __doc__))
