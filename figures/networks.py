"""Four trained networks in the plane of three classifier rows: `python -m figures.networks [--data fashion]`.

Mixup, none, mixup with mean squared error, mixup with a fixed ETF: the committed samples of mixed training images, eval
mode. Each panel is in units of the mean length of its same-class features in the plane.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import ufm
from figures import save
from ufm.console import parse
from ufm.plotting import PlanarPanel, planar_figure

_TITLES = {"mixup": "mixup", "none": "not mixed", "mse": "mixup, squared error", "etf": "mixup, fixed ETF"}


@dataclass(frozen=True)
class Config:
    """Which networks to draw, and where to."""

    data: str = "fashion"
    """digits, mnist, fashion or cifar"""
    classes: tuple[int, int, int] = (0, 1, 8)
    """the three classes"""
    results: str = "experiments/results/networks"
    """folder with a folder per run"""
    out: str = "figures/output"
    """folder for the PNG and PDF files"""


def draw(results: Path, data: str, classes: tuple[int, int, int]) -> Figure:
    """Return the picture of the four networks; raise ValueError if one has no results or classes do not fit."""
    panels = [
        _panel(title, ufm.load(results / f"{data}-{kind}" / "summary.safetensors"), classes)
        for kind, title in _TITLES.items()
    ]
    return planar_figure(panels, tuple(map(str, classes)))


def _panel(title: str, some: ufm.Activations, classes: tuple[int, int, int]) -> PlanarPanel:
    K = len(some.classifier)
    if len(set(classes)) != 3 or not all(0 <= k < K for k in classes):
        raise ValueError(f"classes: got {classes}, expected three different ones in 0..{K - 1}")
    three = torch.tensor(classes)
    chosen = torch.isin(some.class_a, three) & torch.isin(some.class_b, three)
    plane = ufm.classifier_plane(some.classifier[three].double())
    points = np.asarray(plane.project(some.features[chosen].double()))
    place = {k: i for i, k in enumerate(classes)}
    a, b = (np.array([place[int(k)] for k in column[chosen]]) for column in (some.class_a, some.class_b))
    lam, same = some.lam[chosen].numpy(), a == b
    scale = float(np.linalg.norm(points[same], axis=1).mean())
    # Cyclic order, so that each channel shows the whole scale once and no two pairs share a meaning.
    weight = np.where((b - a) % 3 == 1, lam, 1 - lam)
    rows = np.asarray(plane.project(some.classifier[three].double()))
    return PlanarPanel(title, rows, points[~same] / scale, weight[~same], points[same] / scale)


def main() -> int:
    """Draw the figure and print its path; return the exit status."""
    try:
        config = parse(Config, prog="python -m figures.networks", description=__doc__)
        print(save(draw(Path(config.results), config.data, config.classes), "networks", Path(config.out)))
    except ValueError as error:
        print(f"figures.networks: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
