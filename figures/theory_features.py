"""Optimal features from the closed form, for several penalties and numbers of classes."""

from pathlib import Path

import torch

import ufm
from figures.drawing import SCREEN_DPI, Drawing, script
from ufm.labels.targets import pair_labels
from ufm.plotting import PlanarPanel, planar_figure, planar_panel

_SIZES = (3, 10, 100)
_DECAYS = (3e-2, 1e-2, 1e-3, 1e-5)
_LAMBDAS = 41


def draw(results: Path) -> Drawing:
    """Return the grid: numbers of classes by penalties."""
    figure = planar_figure(
        [_panel(K, decay) for K in _SIZES for decay in _DECAYS],
        columns=len(_DECAYS),
        column_titles=[rf"$\lambda_W = \lambda_H = {_power(decay)}$" for decay in _DECAYS],
        row_titles=[f"K = {K}" for K in _SIZES],
    )
    caption = f"""
        Optimal features under mixup (alpha = 1) from the closed form, at the joint optimum over classifier and
        features for the penalties given; {_LAMBDAS} values of lambda a pair. beta, above each panel, is the one
        number that fixes the shape. Features of three of the K classes, projected orthogonally on the plane of their
        classifier rows, where for K > 3 a mixed feature's part along the other rows is not seen. Dotted circle:
        length of the same-class features in the plane, each panel's unit. Computed; no data, no seed.
    """
    return Drawing(figure, "Optimal features from theory", caption, dpi=SCREEN_DPI)


def _panel(K: int, decay: float) -> PlanarPanel:
    optimum = ufm.joint_optimum(ufm.Mixup(K, alpha=1.0), decay, decay)
    pairs = [(0, 1), (1, 2), (2, 0), (0, 0), (1, 1), (2, 2)]
    first, second = (torch.tensor(column).repeat_interleave(_LAMBDAS) for column in zip(*pairs, strict=True))
    lam = torch.linspace(0.001, 0.999, _LAMBDAS, dtype=torch.float64).repeat(len(pairs))
    features = optimum.response(pair_labels(first, second, lam, K)).features
    beta = float(optimum.beta)
    title = rf"$\beta$ = {beta:.0f}" if beta < 1e4 else rf"$\beta = {_power(beta, 1)}$"
    return planar_panel(title, optimum.classifier(), features, first, second, lam, scale=True)


def _power(value: float, digits: int = 0) -> str:
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    shown = "" if mantissa == "1" else rf"{mantissa} \cdot "
    return rf"{shown}10^{{{int(exponent)}}}"


if __name__ == "__main__":
    script(__file__, __doc__)
