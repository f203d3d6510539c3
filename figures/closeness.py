"""How near networks come to the theory, against how well they fit the mixed labels."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.drawing import Drawing, script
from figures.networks import DATA, Shown, all_networks
from ufm.plotting import DOUBLE_COLUMN, MARKERS, PALETTE, style


def draw(results: Path) -> Drawing:
    """Return R² lead, width and beta over the predicted against the training loss, for all runs with mixup."""
    every = [some for some in all_networks(results) if some.kind == "mixup"]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.7))
        axes = figure.subplots(1, 3)
        for axis, (measure, label, ideal) in zip(axes, _MEASURES, strict=True):
            for i, data in enumerate(DATA.values()):
                some = sorted((s for s in every if s.data == data), key=_loss)
                axis.plot([_loss(s) for s in some], [measure(s) for s in some], color=PALETTE[i], linewidth=0.5)
                for one in some:
                    fill = _FILLS[one.architecture]
                    look = {"color": PALETTE[i], "fillstyle": fill, "markersize": 4.5, "markeredgewidth": 0.8}
                    axis.plot(_loss(one), measure(one), MARKERS[i], **look)
            axis.axhline(ideal, color="0.6", linewidth=0.7, zorder=0)
            axis.set(xlabel="training loss, last epoch (nats)", ylabel=label)
        axes[2].set_yscale("log")
        for i, data in enumerate(DATA.values()):
            axes[0].plot([], [], color=PALETTE[i], marker=MARKERS[i], markersize=4.5, linewidth=0.5, label=data)
        for architecture, fill in _FILLS.items():
            axes[0].plot([], [], "o", color="0.3", fillstyle=fill, markersize=4.5, label=architecture)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    caption = f"""
        For the {len(every)} committed runs with mixup (alpha = 1) and cross entropy, a free classifier: R² of the
        closed form less that of the straight line, width of the channel at lambda = 0.9 over the predicted, and beta
        from the classifier alone over the fitted one (not for AdamW, whose decay is no penalty), against the training
        loss on mixed labels; runs on one data set are joined. Grey: no lead; as predicted. Within digits, MNIST and
        Fashion-MNIST the better fit is the nearer to the theory; over the three together it is not, and on
        CIFAR-10 the lead goes the other way. Architecture, epochs and optimiser change at once. The loss cannot fall
        below the mean entropy of the labels, 0.45 nats for ten classes. Eval mode, training seed as in the run's name
        (else 0).
    """
    return Drawing(figure, "Within a data set, the better fit is the nearer to the theory", caption)


_FILLS: dict[str, Any] = {"CNN": "full", "ResNet-18": "none", "ViT": "bottom"}


def _loss(some: Shown) -> float:
    return some.record.history[-1]["loss"]


def _lead(some: Shown) -> float:
    return some.comparison.score("closed form").r2 - some.comparison.score("straight line").r2


def _width(some: Shown) -> float:
    points = some.comparison.points
    return points["network"].width[-1] / points["closed form"].width[-1]


def _beta(some: Shown) -> float:
    free = some.comparison.beta_fit_free
    return np.nan if free is None else free / some.comparison.beta


_MEASURES = (
    (_lead, "R², closed form less line", 0.0),
    (_width, "width at λ = 0.9, over predicted", 1.0),
    (_beta, "β, fit-free over fitted", 1.0),
)


if __name__ == "__main__":
    script(__file__, __doc__)
