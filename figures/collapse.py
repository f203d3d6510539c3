"""The collapse phase diagram, solver against closed form."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

import ufm
from figures.drawing import Drawing, script
from figures.sweeps import read_lines, title
from ufm.plotting import CLOSED_FORM, NETWORK, RIVAL, SINGLE_COLUMN, SOLVER, style

_MARKS = {
    False: {"marker": "o", "color": SOLVER, "label": "solver: not collapsed"},
    True: {"marker": "s", "facecolors": "none", "edgecolors": NETWORK, "label": "solver: collapsed to zero"},
    None: {"marker": "x", "color": RIVAL, "label": "solver: undecided"},
}


def draw(results: Path) -> Drawing:
    """Return the picture of the sweep over alpha and the product of penalties of mixup, for one K."""
    sweep = results / "sweeps" / "collapse"
    lines = [line for line in read_lines(sweep) if line["parameters"]["alpha"] is not None]
    sizes = {line["parameters"]["num_classes"] for line in lines}
    if len(sizes) != 1:
        raise ValueError(f"sweep: got points with num_classes in {sorted(sizes)}, expected one value")
    (K,) = sizes
    alpha = np.array([line["parameters"]["alpha"] for line in lines])
    product = np.array([line["weight_decay"] * line["feature_decay"] for line in lines])
    threshold = np.array([line["closed_form"]["threshold"] for line in lines])
    grid = np.geomspace(alpha.min() / 1.3, alpha.max() * 1.3, 200)
    curve = np.array([ufm.joint_optimum(ufm.Mixup(K, a), 1.0, 1.0).threshold for a in grid])
    collapsed = [line["collapsed"] for line in lines]
    methods = " and ".join(dict.fromkeys(title(line["parameters"]["method"]) for line in lines))
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 4.2))
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(grid, curve, color=CLOSED_FORM, zorder=0, label=r"closed form, $(\alpha+1)/((2\alpha+1)K)$")
        _scatter(above, alpha, product, collapsed)
        above.set(yscale="log", ylabel=r"$\lambda_W\lambda_H$", title=f"K = {K}, every point by {methods}")
        below.axhline(0, color=CLOSED_FORM, zorder=0)
        _scatter(below, alpha, product / threshold - 1, collapsed)
        below.set_yscale("symlog", linthresh=1e-3, linscale=0.5)
        below.set(xscale="log", xlim=(grid[0], grid[-1]), xlabel=r"$\alpha$ of mixup")
        below.set(ylabel="product over threshold, minus 1", ylim=(-3, 20))
        below.set_yticks([-1, -0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1, 1, 10])
        below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        below.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0")
        )
        below.yaxis.set_minor_formatter(NullFormatter())
        figure.legend(*above.get_legend_handles_labels(), loc="outside lower center")
    caption = f"""
        Where the optimal classifier and features are zero: the closed form's threshold for mixup, and {len(lines)}
        direct solves (K = {K}, by {methods}), each with what its certificate proves: that the optimum is zero, that
        it is not, or neither. Below, the distance to the threshold, on an axis that is linear within 0.001 of it.
        Data: sweep collapse, 2 values of lambda, seed 0.
    """
    return Drawing(figure, "Collapse phase diagram", caption)


def _scatter(axis: Axes, alpha: np.ndarray, height: np.ndarray, collapsed: list[bool | None]) -> None:
    for value, mark in _MARKS.items():
        rows = np.array([found is value for found in collapsed])
        if rows.any():
            marks: dict[str, Any] = mark
            axis.scatter(alpha[rows], height[rows], s=9, linewidths=0.7, **marks)


if __name__ == "__main__":
    script(__file__, __doc__)
