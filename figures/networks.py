"""The committed networks, as the figures take them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

import ufm
from experiments.summary import Result, read_result
from ufm.plotting import MARKERS, PALETTE, PlanarPanel, planar_panel
from ufm.runs.stored import structure

# The main runs of each data set are called <key>-mixup, -none, -mse and -etf.
DATA = {"digits": "digits", "mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}
_IN_PRINT = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST", "cifar10": "CIFAR-10", "cifar10-jpeg": "CIFAR-10"}
ARCHITECTURES = {"cnn": "CNN", "resnet18": "ResNet-18", "vit": "ViT"}
CLASSES = (0, 1, 2)

# What is the same of all pictures of networks, for their captions.
PROJECTION = (
    "Features of classes 0, 1 and 2 (the first three, not chosen) projected orthogonally on the plane of their three "
    "classifier rows; what is orthogonal to it is not seen. Dotted circle: mean length of the same-class features in "
    "the plane, each panel's unit."
)


@dataclass(frozen=True)
class Shown:
    """A committed network: its results, and its samples."""

    result: Result

    @property
    def name(self) -> str:
        """The run's name."""
        return self.result.run.name

    @property
    def comparison(self) -> dict[str, Any]:
        """The comparison in eval mode."""
        return self.result.mode("eval")

    @property
    def calibration(self) -> dict[str, Any]:
        """Calibration on test images, and confidence against lambda."""
        return self.result.calibration

    @property
    def kind(self) -> str:
        """mixup, none, mse or etf."""
        config = self.result.run.config
        if config.network.etf_multiplier is not None:
            return "etf"
        if config.loss == "mean_squared_error":
            return "mse"
        return config.mixing.kind

    @property
    def data(self) -> str:
        """The data set's name in print."""
        name = self.result.run.config.data
        return _IN_PRINT.get(name, name)

    @property
    def architecture(self) -> str:
        """The architecture's name in print."""
        return ARCHITECTURES[self.result.run.config.network.architecture]

    @property
    def activations(self) -> ufm.Activations:
        """The committed samples of mixed training images in eval mode, in the classifier's row space."""
        return ufm.load(self.result.run.folder / "summary.safetensors")

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The comparison's layers, first to last, without a last stage that is the features themselves."""
        layers = self.result.comparison["layers"]
        same = all(layers[-1][key] == layers[-2][key] for key in ("line", "channel", "interpolation"))
        return [*layers[:-2], layers[-1]] if same else layers

    @property
    def logits(self) -> torch.Tensor:
        """The samples' centred logits (N, K), in float64."""
        some = self.activations
        z = some.logits.double()
        return z - z.mean(1, keepdim=True)

    def curve(self, name: str) -> ufm.ChannelCurve:
        """Return one of the comparison's channel curves."""
        return structure(ufm.ChannelCurve, self.comparison["curves"][name], name)

    def panel(self, title: str) -> PlanarPanel:
        """Return the samples of the first three classes in the plane of their classifier rows."""
        some = self.activations
        return planar_panel(
            title, some.classifier, some.features, some.class_a, some.class_b, some.lam, CLASSES, scale=True
        )


def network(results: Path, name: str) -> Shown:
    """Return a committed network; raise ValueError if it is not there."""
    return Shown(_read(results / "networks" / name))


@cache
def _read(folder: Path) -> Result:
    return read_result(folder)


def main_networks(results: Path, kind: str) -> dict[str, Shown]:
    """Return the networks of one kind by the data set's name in print."""
    return {title: network(results, f"{key}-{kind}") for key, title in DATA.items()}


def all_networks(results: Path) -> list[Shown]:
    """Return every committed network, in order of name; raise ValueError if there is none."""
    if not (results / "networks").is_dir():
        raise ValueError(f"results: got {str(results)!r} without a folder networks, expected one with a folder per run")
    found = [network(results, folder.name) for folder in sorted((results / "networks").iterdir()) if folder.is_dir()]
    if not found:
        raise ValueError(f"results: got {str(results)!r} with no run in networks, expected a folder per run")
    return found


def source(networks: Iterable[Shown], which: str) -> str:
    """Return the words for where networks' figures come from: samples, data, mode, seeds, runs.

    which: what is shown of each run's samples, as in "3,000 committed samples".
    """
    every = list(networks)
    runs = [some.result.run for some in every]
    seeds, drawn = (
        " and ".join(dict.fromkeys(values))
        for values in (
            [str(run.config.seed) for run in runs],
            [some.result.comparison["recordings"]["eval"]["seed"] for some in every],
        )
    )
    notes = ["CIFAR-10 re-encoded as JPEG"] if any(some.data == "CIFAR-10" for some in every) else []
    notes += ["ResNet-18 of width 8"] if any(some.architecture == "ResNet-18" for some in every) else []
    words = "".join(f" ({note})" for note in [", ".join(notes)] if note)
    return (
        f"Data: {which}, mixed training images{words}, eval mode, trained with seed {seeds}, pairs and lambda drawn "
        f"with seed {drawn}; runs {', '.join(dict.fromkeys(run.name for run in runs))}."
    )


def planar_source(networks: Iterable[Shown]) -> str:
    """Return these words for planar pictures, which show the samples of three classes."""
    every = list(networks)
    counts = []
    for some in every:
        a, b = (np.isin(column, CLASSES) for column in (some.activations.class_a, some.activations.class_b))
        counts.append(int((a & b).sum()))
    return source(every, f"the {span(counts)} of 3,000 committed samples a run with both classes among the three")


def scored_source(networks: Iterable[Shown]) -> str:
    """Return these words for figures of a comparison, which are those of the half that nothing was fitted to."""
    every = list(networks)
    return source(every, f"{span([some.comparison['samples'] for some in every])} samples a run, the scored half")


def span(counts: Sequence[int]) -> str:
    """Return one number, or the least and the largest, in words."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def scatter(axis: Axes, every: Sequence[Shown], point: Callable[[Shown], tuple[float, float]]) -> None:
    """Draw a point per network: colour and marker tell the data set, filled with mixup, hollow not mixed."""
    for i, title in enumerate(DATA.values()):
        for mixed in (True, False):
            points = [point(some) for some in every if some.data == title and (some.kind != "none") == mixed]
            face = PALETTE[i] if mixed else "none"
            look = {"marker": MARKERS[i], "color": PALETTE[i], "markerfacecolor": face, "markersize": 4.5}
            axis.plot(*np.array(points).reshape(-1, 2).T, linestyle="", **look, label=title if mixed else None)
