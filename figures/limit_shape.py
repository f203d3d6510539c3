"""Limit shape of the logits, and length of mixed features over same-class ones, as penalties vanish."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import ufm
from figures.drawing import Drawing, script
from ufm.labels.targets import pair_labels
from ufm.plotting import CLOSED_FORM, DASHES, DOUBLE_COLUMN, PALETTE, SOLVER, style

_K = 10
_LAMBDA = 0.8
_SIZES = (3, 4, 10, 100)
_BETAS = np.geomspace(1e1, 1e30, 200)


def draw(results: Path) -> Drawing:
    """Return logits over log beta (left), and the ratio of lengths (right)."""
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.9))
        left, right = figure.subplots(1, 2)
        for first, second, lam, colour, words in (
            (0, 0, 1.0, SOLVER, "same class"),
            (0, 1, _LAMBDA, CLOSED_FORM, f"mixed, λ = {_LAMBDA}"),
        ):
            label = pair_labels(torch.tensor([first]), torch.tensor([second]), torch.tensor([lam]).double(), _K)
            logits = np.array([ufm.prox_logsumexp(label, beta).logits[0].tolist() for beta in _BETAS])
            curves = [(0, "its class" if lam == 1 else "first class"), (2, "a class that is not in the label")]
            curves += [] if lam == 1 else [(1, "second class")]
            for k, name in curves:
                dashes = {(1.0, 0): "-", (1.0, 2): ":"}.get((lam, k)) or {0: "--", 1: "-.", 2: (0, (1, 3))}[k]
                scaled = logits[:, k] / np.log(_BETAS)
                left.plot(_BETAS, scaled, linestyle=dashes, color=colour, linewidth=1, label=f"{words}: {name}")
            for limit in set(np.asarray(ufm.limit_shape(label))[0].tolist()):
                left.axhline(limit, color=colour, linewidth=0.5, zorder=0)
        left.set(xscale="log", xlabel=r"$\beta$", ylabel=r"logit / $\log\,\beta$", title=f"K = {_K}")
        left.legend(loc="lower right", bbox_to_anchor=(1, 0.2), fontsize=6)
        for i, K in enumerate(_SIZES):
            ratio = [float(ufm.length_ratio(0.5, beta, K)) for beta in _BETAS]
            right.plot(_BETAS, ratio, DASHES[i], color=PALETTE[i], label=f"K = {K}")
            right.axhline(math.sqrt(2 * (K - 2) / (K - 1)), color=PALETTE[i], linewidth=0.5, zorder=0)
        right.plot([], [], color="0.3", linewidth=0.5, label="limit")
        right.set(xscale="log", xlabel=r"$\beta$", ylabel="length, mixed over same class", title="λ = 1/2")
        right.legend(loc="lower right", ncols=2)
    caption = """
        Left: optimal logits of an unmixed and of a mixed label over log beta, and their limits e_y - 1/K and e_a +
        e_b - 2/K (thin), which do not depend on lambda; the approach is of the order of log log beta / log beta, so
        slow. Right: length of the optimal features of evenly mixed labels over that of same-class ones, and the limit
        sqrt(2 (K - 2)/(K - 1)): mixed features end longer but for K = 3. Computed; no data, no seed.
    """
    return Drawing(figure, "Limit shape and lengths", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
