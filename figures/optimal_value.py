"""The optimal value of the objective is the mean entropy of the predictions."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import ufm
from figures.drawing import Drawing, script
from ufm.plotting import CLOSED_FORM, DASHES, MARKERS, PALETTE, SINGLE_COLUMN, style

_K, _DIM, _NODES = 5, 8, 9
_LAWS = {
    "not mixed": ufm.Unmixed(_K),
    "mixup, α = 0.2": ufm.Mixup(_K, alpha=0.2),
    "mixup, α = 1": ufm.Mixup(_K, alpha=1.0),
}
_SOLVED = np.geomspace(1e-6, 0.6, 10)


def draw(results: Path) -> Drawing:
    """Return both against the product of penalties (above), and their difference beside its proof (below)."""
    grid = np.geomspace(1e-7, 1, 120)
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 4.2))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
        for i, (title, law) in enumerate(_LAWS.items()):
            above.plot(grid, [_entropy(law, product) for product in grid], DASHES[i], color=PALETTE[i], linewidth=1)
            solutions = [
                ufm.solve(ufm.UFM(law.targets(_NODES), _DIM, product**0.5, product**0.5), seed=0, device="cpu")
                for product in _SOLVED
            ]
            objective = np.array([solution.objective for solution in solutions])
            difference = np.abs(objective - [_entropy(law, product) for product in _SOLVED])
            look = {"marker": MARKERS[i], "color": PALETTE[i], "markersize": 4, "markerfacecolor": "none"}
            above.plot(_SOLVED, objective, linestyle="", **look, label=f"{title}: solver")
            # Rounding can leave no difference at all, which a logarithmic axis cannot show.
            below.plot(_SOLVED, np.maximum(difference, 1e-17), linestyle="", **look)
            gaps = [max(solution.certificate.gap, 1e-17) for solution in solutions]
            below.plot(_SOLVED, gaps, linewidth=0.7, linestyle=DASHES[i], color=PALETTE[i])
        above.plot([], [], color=CLOSED_FORM, linewidth=1, label="lines: mean entropy")
        above.set(ylabel="F*  (nats)")
        above.legend(loc="upper left")
        below.set(
            xscale="log",
            yscale="log",
            xlabel=r"$\lambda_W \lambda_H$",
            ylabel="|F* − mean entropy|",
            ylim=(5e-18, 1e-8),
        )
        below.text(0.02, 0.93, "markers: difference; lines: certified gap", transform=below.transAxes, fontsize=6.5)
    caption = f"""
        The minimum of the penalised objective, found by the direct solver (Newton, K = {_K}, d = {_DIM}, {_NODES}
        values of lambda, random start with seed 0), and the mean entropy of the optimal predictions from the closed
        form: they are equal; log {_K} above the collapse threshold. Below: their difference beside the proved
        distance of the solver's value from the global minimum, both at least 1e-17 in the drawing. Computed; no data.
    """
    return Drawing(figure, "Optimal value = mean entropy", caption)


def _entropy(law: ufm.Law, product: float) -> float:
    """Return the mean entropy of the predictions at the joint optimum, by the average of -sum p log p."""
    beta = ufm.joint_optimum(law, product**0.5, product**0.5, nodes=_NODES).beta
    if beta == 0:
        return float(np.log(law.num_classes))
    targets = law.targets(_NODES)
    p = torch.as_tensor(ufm.prox_logsumexp(targets.labels, beta).probabilities)
    return float(-(targets.weights @ (p * p.clamp(min=1e-300).log()).sum(1)))


if __name__ == "__main__":
    script(__file__, __doc__)
