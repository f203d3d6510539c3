"""Outputs of earlier layers on mixed images, in the plane of their class means."""

from pathlib import Path

import numpy as np

from figures.drawing import SCREEN_DPI, Drawing, script
from figures.networks import CLASSES, network
from ufm.plotting import PlanarPanel, planar_figure, projected_panel

_RUNS = ("fashion-mixup", "fashion-vit-mixup", "cifar-mixup")


def draw(results: Path) -> Drawing:
    """Return the grid: three networks by depth."""
    panels: list[PlanarPanel] = []
    titles = []
    for name in _RUNS:
        shown = network(results, name)
        layers = [layer.name for layer in shown.layers]
        arrays = shown.record.layer_planes
        depths = (layers[0], layers[(len(layers) - 1) // 2], layers[-2], layers[-1])
        panels += [_panel(layer, arrays) for layer in depths]
        titles.append(f"{shown.data}, {shown.architecture}")
    figure = planar_figure(panels, columns=4, row_titles=titles, own_limits=True, symbol=r"\mu")
    caption = f"""
        Outputs, averaged over positions, of four layers of three networks trained with mixup (alpha = 1), on mixed
        training images of classes 0, 1 and 2. Projected orthogonally on the plane of the three classes' mean outputs
        (the features' too, which elsewhere are shown in the plane of the classifier's rows); rays to the means mu;
        what is orthogonal to the plane is not seen. Dotted circle: mean length of the same-class outputs in the
        plane, each panel's unit. Data: 500 samples a run, eval mode, seed 0; runs {", ".join(_RUNS)}.
    """
    return Drawing(figure, "Earlier layers", caption, dpi=SCREEN_DPI)


def _panel(layer: str, arrays: dict[str, np.ndarray]) -> PlanarPanel:
    rows, points = arrays[f"{layer}.rows"], arrays[f"{layer}.points"]
    a, b, lam = (arrays[name] for name in ("class_a", "class_b", "lam"))
    return projected_panel(layer.removeprefix("stages."), rows, points, a, b, lam, CLASSES, scale=True)


if __name__ == "__main__":
    script(__file__, __doc__)
