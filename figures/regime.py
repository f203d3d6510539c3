"""The regime in which networks follow the theory: agreement against the excess loss, and what leads there."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from figures.drawing import Drawing, script
from ufm.plotting import DOUBLE_COLUMN, MARKERS, PALETTE, style

Point = dict[str, Any]

_DATA = {"digits": "digits", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10-jpeg": "CIFAR-10"}


def draw(results: Path) -> Drawing:
    """Return R², width, NC1 and NC3, and the features' distance with its bounds, against the excess loss."""
    lines = (results / "regime" / "points.jsonl").read_text(encoding="utf-8").splitlines()
    every = [json.loads(line) for line in lines]
    points = [one for one in every if one["loss"] == "cross_entropy" and one["mixing"] in ("mixup", "cutmix")]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 6.9))
        axes = figure.subplots(3, 2)
        for axis, (across, label, measures, ideal) in zip(axes.flat[:4], _PANELS, strict=True):
            for (name, measure), fill in zip(measures.items(), ("full", "none", "bottom"), strict=False):
                for i, data in enumerate(_DATA):
                    some = [(across(one), measure(one)) for one in points if one["data"] == data]
                    shown = [pair for pair in some if pair[1] is not None]
                    look: dict[str, Any] = {"color": PALETTE[i], "fillstyle": fill, "markersize": 4.0}
                    axis.plot([x for x, _ in shown], [y for _, y in shown], MARKERS[i], markeredgewidth=0.7, **look)
                axis.plot([], [], "o", color="0.3", fillstyle=fill, markersize=4.0, label=name)
            if ideal is not None:
                axis.axhline(ideal, color="0.6", linewidth=0.7, zorder=0)
            axis.set(xlabel=_ACROSS[across], ylabel=label, xscale="log")
            axis.legend(fontsize=6)
        axes[1, 1].set_yscale("log")
        law = _power_law(points)
        axes[0, 0].plot(law.excess, law.r2, color="0.4", linewidth=0.9, zorder=0)
        shown = _phases(axes[2, 0], points)
        figure.colorbar(shown, ax=axes[2, 0], label="R², nothing fitted")
        pairs = _twins(axes[2, 1], every)
        handles = [axes[0, 0].plot([], [], MARKERS[i], color=PALETTE[i], markersize=4.0)[0] for i in range(len(_DATA))]
        figure.legend(handles, list(_DATA.values()), loc="outside lower center", ncols=4)
    fitted = [one for one in points if one["r2_fit_free"] is not None]
    departures = [1 - one["r2_fit_free"] for one in fitted], [abs(one["width_ratio"][-1] - 1) for one in fitted]
    # Rank correlations of the excess, beyond the closed form's own and over it, with both departures.
    (rank, wide), (rank_over, wide_over) = (
        [spearmanr([across(one) for one in fitted], departure)[0] for departure in departures]
        for across in (_beyond, _relative)
    )
    failures = ", ".join(law.failures) or "none"
    below = sum(mixup < none for none, mixup in pairs)
    caption = f"""
        The {len(points)} points of the regime suite with cross entropy and mixed labels (perceptrons and a small CNN;
        mixup with alpha 0.2 to 4, and CutMix), against the excess loss. Closed form at the beta that classifier and
        weight decay imply, nothing fitted, where there is one. Its own excess loss is what the penalties cost. Rank
        correlation of the excess over that one with 1 - R² {rank_over:.2f}, with the width's departure above lambda =
        0.9 {wide_over:.2f}; of their difference {rank:.2f} and {wide:.2f}. Grey curve: (1 - R²)/R² = {law.factor:.2g}
        (excess over own - 1)^{law.power:.2f}, least squares over the {law.count} points with mixup, alpha = 1, no label
        smoothing; half of them are within a factor {law.spread:.2f} of it, and beyond a factor 2 are: {failures}.
        Distances: mean squared, of the features to the optimal ones for the network's own classifier; the bounds are
        proved. Grey lines: as in theory. Bottom left: Fashion-MNIST, perceptrons of one recipe (decay 1e-3, 16,000
        steps). Bottom right: calibration error on test images of a network with mixup against that of its unmixed twin
        of the same seed; mixup's is the smaller one in {below} of {len(pairs)}. Data: 20,000 fresh mixed training
        images a point, eval mode, training seeds 0 to 2; measures on half of them where something is fitted on the
        other.
    """
    return Drawing(figure, "Networks that have fitted their mixed labels follow the theory", caption)


def _excess(point: Point) -> float:
    return point["excess_loss"]


def _beyond(point: Point) -> float:
    return point["excess_loss"] - point["excess_theory"]


def _relative(point: Point) -> float:
    """Return by how much the excess loss is beyond the closed form's own, over that."""
    return point["excess_loss"] / point["excess_theory"] - 1


_ACROSS: dict[Callable[[Point], float], str] = {
    _excess: "excess loss E KL(y‖p) (nats)",
    _relative: "excess loss over the closed form's own, less 1",
}


@dataclass(frozen=True)
class _Law:
    """A power law of (1 - R²)/R² in the excess: its curve, the points' median factor from it, and who is far off."""

    factor: float
    power: float
    count: int
    spread: float
    failures: list[str]
    excess: np.ndarray
    r2: np.ndarray


def _power_law(points: list[Point]) -> _Law:
    """Return the least-squares power law over the points with mixup, alpha = 1, without label smoothing."""
    plain = [one for one in points if one["mixing"] == "mixup" and one["alpha"] == 1 and not one.get("smoothing")]
    chosen = [one for one in plain if one["r2_fit_free"] is not None]
    x = np.log([_relative(one) for one in chosen])
    y = np.log([1 / one["r2_fit_free"] - 1 for one in chosen])
    power, level = np.polyfit(x, y, 1)
    off = np.abs(y - level - power * x)
    failures = [one["name"] for one, far in zip(chosen, off, strict=True) if far > np.log(2)]
    beyond = np.geomspace(np.exp(x.min()), np.exp(x.max()), 100)
    curve = 1 / (1 + np.exp(level) * beyond**power)
    return _Law(np.exp(level), power, len(chosen), np.exp(np.median(off)), failures, beyond, curve)


def _phases(axis: Axes, points: list[Point]) -> PathCollection:
    """Draw R² over images per class and width, for one data set and recipe."""
    recipe = {"data": "fashion-mnist", "alpha": 1, "weight_decay": 1e-3, "steps": 16_000, "num_classes": 10, "seed": 0}
    recipe |= {"architecture": "mlp", "mixing": "mixup", "fixed_etf": False}
    chosen = [one for one in points if all(one[key] == value for key, value in recipe.items())]
    chosen = [one for one in chosen if not one.get("smoothing") and one["r2_fit_free"] is not None]
    images, width = ([one[key] for one in chosen] for key in ("images_per_class", "width"))
    values = [one["r2_fit_free"] for one in chosen]
    shown = axis.scatter(images, width, c=values, s=150, marker="s", cmap="viridis", vmin=0.7, vmax=1)
    for x, y, value in zip(images, width, values, strict=True):
        colour = "w" if value < 0.9 else "k"
        axis.annotate(f"{value:.2f}", (x, y), ha="center", va="center", fontsize=6, color=colour)
    axis.set(xlabel="training images per class", ylabel="width", xscale="log", yscale="log", xlim=(1.3, 330))
    axis.set_ylim(16, 1024)
    return shown


def _twins(axis: Axes, points: list[Point]) -> list[tuple[float, float]]:
    """Draw the calibration error of networks with mixup against that of their unmixed twins; return the pairs."""
    named = {one["name"]: one for one in points}
    pairs = []
    for i, data in enumerate(_DATA):
        some = [
            (one["ece"], named[name.replace("-none", "")]["ece"])
            for name, one in named.items()
            if one["data"] == data and one["mixing"] == "none" and name.replace("-none", "") in named
        ]
        axis.plot(*zip(*some, strict=True), MARKERS[i], color=PALETTE[i], markersize=4.0) if some else None
        pairs += some
    end = 1.1 * max(max(pair) for pair in pairs)
    axis.plot([0, end], [0, end], color="0.6", linewidth=0.7, zorder=0)
    axis.set(xlabel="test calibration error, unmixed", ylabel="with mixup", xlim=(0, end), ylim=(0, end))
    return pairs


def _of(key: str) -> Callable[[Point], float | None]:
    return lambda point: point[key]


def _last(point: Point) -> float:
    return point["width_ratio"][-1]


def _middle(point: Point) -> float:
    return sum(point["width_ratio"][:-1]) / (len(point["width_ratio"]) - 1)


_PANELS: tuple[tuple[Callable[[Point], float], str, dict[str, Callable[[Point], float | None]], float | None], ...] = (
    (
        _relative,
        "R² of the logits",
        {"closed form, nothing fitted": _of("r2_fit_free"), "straight line": _of("r2_line")},
        1.0,
    ),
    (
        _excess,
        "width over the theory's",
        {"λ in .5-.9": _middle, "above .9": _last},
        1.0,
    ),
    (_excess, "neural collapse", {"NC1": _of("nc1"), "NC3": _of("nc3")}, 0.0),
    (
        _excess,
        "squared distance of the features",
        {
            "true": _of("feature_distance"),
            "bound by the inner gap": _of("inner_distance"),
            "by the global gap": _of("certified_distance"),
        },
        None,
    ),
)


if __name__ == "__main__":
    script(__file__, __doc__)
