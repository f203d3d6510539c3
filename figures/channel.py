"""Channel width and depth against lambda: closed form, asymptotics and networks."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ufm
from figures.drawing import Drawing, script
from figures.networks import network, scored_source
from ufm.plotting import (
    DASHES,
    DEPTH_LABEL,
    DOUBLE_COLUMN,
    LAMBDA_LABEL,
    MARKERS,
    NETWORK,
    PALETTE,
    WIDTH_LABEL,
    style,
)

_K = 10
_BETAS = (10, 100, 1000, 100_000)
_RUNS = {"digits-mixup": "digits", "mnist-mixup": "MNIST", "fashion-mixup": "Fashion-MNIST"}


def draw(results: Path) -> Drawing:
    """Return width (left) and depth (right)."""
    shown = {name: network(results, name) for name in _RUNS}
    lam = np.linspace(0.004, 0.996, 497)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.2))
        left, right = figure.subplots(1, 2)
        for i, beta in enumerate(_BETAS):
            shape = ufm.channel(lam, float(beta), _K)
            look = {"color": PALETTE[i], "linestyle": DASHES[i]}
            left.plot(lam, shape.width, **look, label=f"closed form, β = {beta:,}")
            right.plot(lam, shape.depth, **look)
            right.plot(lam, shape.depth_asymptotic, color=PALETTE[i], linewidth=0.5)
        for marker, (name, title) in zip(MARKERS, _RUNS.items(), strict=False):
            curve, beta = shown[name].curve("network"), shown[name].comparison.beta
            own = ufm.channel(lam, beta, _K)
            for axis, quantity in ((left, "width"), (right, "depth")):
                band = getattr(curve, f"{quantity}_band")
                mean = getattr(curve, quantity)
                axis.plot(lam, getattr(own, quantity), "--", color=NETWORK, linewidth=0.5)
                axis.errorbar(
                    curve.lam,
                    mean,
                    yerr=np.abs(band - mean),
                    fmt=marker,
                    color=NETWORK,
                    markersize=3,
                    markerfacecolor="white",
                    linewidth=0.6,
                    markeredgewidth=0.7,
                    label=f"network, {title} (β fitted {beta:.0f})",
                )
        left.plot(lam, ufm.channel(lam, 1.0, _K).width_asymptotic, color="0.3", linewidth=0.5, label="asymptote, β → ∞")
        left.plot([], [], color=NETWORK, linewidth=0.5, linestyle="--", label="closed form at the networks' β")
        left.set(xlabel=LAMBDA_LABEL, ylabel=WIDTH_LABEL, xlim=(0, 1), ylim=(-7, 7))
        right.set(xlabel=LAMBDA_LABEL, ylabel=DEPTH_LABEL, xlim=(0, 1), ylim=(0, None))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = f"""
        Different-class features, K = {_K}: difference of the two classes' logits (width) and their mean above the
        others' (depth). Thick: closed form at four beta; thin: its asymptotes, log(lambda/(1 - lambda)) for the
        width, whatever beta, and Lambert's W0(K beta/2 sqrt(lambda (1 - lambda))) for the depth, in the colour of the
        beta. Markers: means by bin of lambda of CNNs trained with mixup (alpha = 1), with 95 % bootstrap intervals
        (mostly smaller than the markers); dashed black: closed form at the beta fitted to each.
        {scored_source(shown.values())}
    """
    return Drawing(figure, "The channel", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
