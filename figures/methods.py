"""Certified gap against time of the solver's methods."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures.drawing import Drawing, script
from figures.sweeps import read_lines, title
from ufm.plotting import DASHES, PALETTE, SINGLE_COLUMN, style


def draw(results: Path) -> Drawing:
    """Return the picture of the sweep over methods, one curve per solve."""
    sweep = results / "sweeps" / "methods"
    lines = [line for line in read_lines(sweep) if "history" in line]
    if not lines:
        raise ValueError(f"sweep: got {str(sweep)!r}, which has no histories, expected a sweep with `record`")
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 3.6))
        axis = figure.subplots()
        for number, line in enumerate(lines):
            history = line["history"]
            seconds, gap = (np.array(history[name], dtype=float) for name in ("seconds", "relative_gap"))
            colour = PALETTE[number % len(PALETTE)]
            dashes = DASHES[number % len(DASHES)]
            # A method that took a few iterations is seen by its iterates.
            marker = "o" if len(seconds) < 20 else ""
            label = title(line["parameters"]["method"])
            # The start is at no time, which a logarithmic axis has no place for.
            axis.plot(seconds[1:], gap[1:], dashes, marker=marker, markersize=2.5, color=colour, label=label)
        axis.set(xscale="log", yscale="log", xlabel="seconds, one thread", ylabel="certified gap / objective")
        axis.set_ylim(top=3)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    about = lines[0]["parameters"]
    caption = f"""
        Certified gap, the proved distance from the global optimum, over the objective, against time, for every method
        on one problem: K = {about["num_classes"]}, {about["nodes"]} values of lambda, d = {about["dim"]}, lambda_W =
        {about["weight_decay"]:g}, lambda_H = {about["feature_decay"]:g}, mixup alpha = {about["alpha"]:g}, one random
        start (seed {about["seed"]}), one thread of a CPU, float64, each at the settings in the legend. Times without
        the measuring. Data: sweep methods.
    """
    return Drawing(figure, "Certified gap against time", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
