"""How linear, how channel-like and how much like manifold mixup each layer is, over depth."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures.drawing import Drawing, script
from figures.networks import network, scored_source
from ufm.plotting import DASHES, DOUBLE_COLUMN, MARKERS, PALETTE, style

_RUNS = ("digits-mixup", "mnist-mixup", "fashion-mixup", "cifar-mixup", "fashion-vit-mixup", "fashion-none")


def draw(results: Path) -> Drawing:
    """Return three panels against relative depth."""
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.6))
        axes = figure.subplots(1, 3)
        for i, name in enumerate(_RUNS):
            shown = network(results, name)
            layers = shown.layers
            depth = np.arange(1, len(layers) + 1) / len(layers)
            line, channel, interpolation = (
                np.array([getattr(layer, key) for layer in layers], float)
                for key in ("line", "channel", "interpolation")
            )
            label = f"{shown.data}, {shown.architecture}" + (", not mixed" if shown.kind == "none" else "")
            for axis, values in zip(axes, (interpolation, channel, channel - line), strict=True):
                axis.plot(
                    depth,
                    values,
                    DASHES[i % 4],
                    color=PALETTE[i],
                    marker=MARKERS[i],
                    markersize=3,
                    linewidth=0.9,
                    label=label,
                )
        for axis, title in zip(
            axes, ("as manifold mixup would have it", "channel", "channel less straight line"), strict=True
        ):
            axis.set(xlabel="depth, features = 100 %", title=title)
            axis.xaxis.set_major_formatter(PercentFormatter(1))
        axes[0].set_ylabel("R²")
        axes[2].axhline(0, color="0.6", linewidth=0.6, zorder=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    runs = [network(results, name) for name in _RUNS]
    caption = f"""
        Left: how well a layer's output on a mixed image is the same mixture of its outputs on the two images (R² over
        2,000 other mixed images, nothing fitted; 1 is what manifold mixup would feed it). Middle: R² of the mean
        outputs per class pair and bin of lambda by the closed form's logits, at a beta fitted for each layer on the
        other half of the samples. Right: what that gains over the best linear function of the label. Outputs averaged
        over positions; a last stage whose average is the features themselves is left out. {scored_source(runs)}
    """
    return Drawing(figure, "Earlier layers in figures", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
