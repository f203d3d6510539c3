"""How near networks come to the theory, against how well they fit the mixed labels."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures.drawing import Drawing, script
from figures.networks import ARCHITECTURES, DATA, Shown, all_networks
from ufm.plotting import DOUBLE_COLUMN, MARKERS, PALETTE, style


def draw(results: Path) -> Drawing:
    """Return R² lead, width and beta over the predicted against the training loss, for all runs with mixup."""
    every = [some for some in all_networks(results) if some.kind == "mixup"]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.7))
        axes = figure.subplots(1, 3)
        for axis, (measure, label, ideal) in zip(axes, _MEASURES, strict=True):
            for i, data in enumerate(DATA.values()):
                for j, architecture in enumerate(ARCHITECTURES.values()):
                    some = [s for s in every if (s.data, s.architecture) == (data, architecture)]
                    points = np.array([(s.result.run.history[-1]["loss"], measure(s)) for s in some], float)
                    axis.plot(*points.reshape(-1, 2).T, MARKERS[j], color=PALETTE[i], markersize=4.5)
            axis.axhline(ideal, color="0.6", linewidth=0.7, zorder=0)
            axis.set(xlabel="training loss, last epoch (nats)", ylabel=label)
        axes[2].set_yscale("log")
        for i, data in enumerate(DATA.values()):
            axes[0].plot([], [], color=PALETTE[i], linewidth=3, label=data)
        for j, architecture in enumerate(ARCHITECTURES.values()):
            axes[0].plot([], [], MARKERS[j], color="0.3", markersize=4.5, label=architecture)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    caption = f"""
        For the {len(every)} committed runs with mixup (alpha = 1) and cross entropy, a free classifier, seeds as in
        their names (else 0): R² of the closed form less that of the straight line, width of the channel at lambda = 0.9
        over the predicted, and beta from the classifier alone over the fitted one (not for AdamW, whose decay is no
        penalty), against the training loss on mixed labels. Grey: no lead; as predicted. The loss cannot fall below the
        mean entropy of the labels, 0.45 nats for ten classes. Eval mode.
    """
    return Drawing(figure, "The better the fit, the nearer the theory", caption)


def _lead(some: Shown) -> float:
    closed, line = (some.result.score(name) or {} for name in ("closed form", "straight line"))
    return closed["r2"] - line["r2"]


def _width(some: Shown) -> float:
    points = some.comparison["points"]
    return points["network"]["width"][-1] / points["closed form"]["width"][-1]


def _beta(some: Shown) -> float:
    free = some.comparison["beta_fit_free"]
    return np.nan if free is None else free / some.comparison["beta"]


_MEASURES = (
    (_lead, "R², closed form less line", 0.0),
    (_width, "width at λ = 0.9, over predicted", 1.0),
    (_beta, "β, fit-free over fitted", 1.0),
)


if __name__ == "__main__":
    script(__file__, __doc__)
