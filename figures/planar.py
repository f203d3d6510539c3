"""The paper's planar picture: features of three classes in the plane of their classifier rows."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from ufm.plotting import PlanarPanel, planar_figure

_PANELS = {
    "closed_form": "closed form",
    "solver": "direct solver",
    "network_train": "network, train mode",
    "network_eval": "network, eval mode",
}


def draw(run: Path) -> Figure:
    """Return the picture: closed form, solver and network on the same mixed training images of classes 0, 1, 2."""
    path = run / "planar.safetensors"
    if not path.is_file():
        raise ValueError(f"run: got {str(run)!r}, which has no planar.safetensors; expected a finished demo's folder")
    arrays = load_file(path)
    a, b, lam = arrays["class_a"], arrays["class_b"], arrays["lam"]
    same = a == b
    # Cyclic order, so that each channel shows the whole scale once and no two pairs share a meaning.
    weight = np.where((b - a) % 3 == 1, lam, 1 - lam)
    return planar_figure(
        [
            PlanarPanel(
                title=title,
                rows=arrays[f"{name}.rows"],
                mixed=arrays[f"{name}.points"][~same],
                lam=weight[~same],
                same=arrays[f"{name}.points"][same],
            )
            for name, title in _PANELS.items()
        ]
    )
