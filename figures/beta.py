"""Fit-free against fitted beta, over all runs that have both."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures.drawing import Drawing, script
from figures.networks import all_networks, scatter
from ufm.plotting import SINGLE_COLUMN, style


def draw(results: Path) -> Drawing:
    """Return the scatter of both, on logarithmic axes."""
    every = [some for some in all_networks(results) if some.comparison.beta_fit_free is not None]
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 3.4))
        axis = figure.subplots()
        scatter(axis, every, lambda some: (some.comparison.beta, some.comparison.beta_fit_free or np.nan))
        fitted, free = (
            np.array([getattr(some.comparison, name) for some in every]) for name in ("beta", "beta_fit_free")
        )
        ends = np.array([min(fitted.min(), free.min()) / 2, max(fitted.max(), free.max()) * 2])
        for factor, dashes, label in ((1, "-", "equal"), (10, "--", "ten times")):
            axis.plot(ends, factor * ends, dashes, color="0.6", linewidth=0.7, zorder=0, label=label)
        axis.plot([], [], "o", color="0.3", markersize=4.5, markerfacecolor="none", label="hollow: not mixed")
        axis.set(xscale="log", yscale="log", aspect="equal")
        axis.set(xlim=(fitted.min() / 2, fitted.max() * 2), ylim=(free.min() / 3, free.max() * 2))
        axis.set(xlabel="β fitted to the logits", ylabel="β fit-free, from the classifier alone")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = f"""
        beta from the size of the trained classifier and its weight decay alone, against beta fitted to the network's
        logits. For a network trained with mixup both would be equal if its last layer were at a stationary point of
        the UFM; the fitted beta of an unmixed one (hollow) is that of images mixed with alpha = 1, which it never
        saw. Eval mode, training seed as in the run's name (else 0); the {len(every)} committed runs that have both
        (SGD's weight decay on a free classifier with cross entropy).
    """
    return Drawing(figure, "Fit-free against fitted beta", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
