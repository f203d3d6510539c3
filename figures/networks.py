"""The committed networks, as the figures take them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

import ufm
from ufm.plotting import MARKERS, PALETTE, PlanarPanel, planar_panel
from ufm.runs.record import CalibrationRecord, Layer, RunRecord, read_record

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
    """A committed network: its record, and its samples."""

    record: RunRecord

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record.name

    @property
    def comparison(self) -> ufm.Comparison:
        """The comparison in eval mode."""
        return self.record.comparisons["eval"]

    @property
    def calibration(self) -> CalibrationRecord:
        """Calibration on test images, and confidence against lambda."""
        if self.record.calibration is None:
            raise ValueError(f"results: got {self.name!r} without calibration, expected one")
        return self.record.calibration

    @property
    def kind(self) -> str:
        """mixup, none, mse or etf."""
        training = self.record.training
        if training.fixed_etf:
            return "etf"
        return "mse" if training.loss == "mean_squared_error" else training.mixing

    @property
    def data(self) -> str:
        """The data set's name in print."""
        name = self.record.training.data
        return _IN_PRINT.get(name, name)

    @property
    def architecture(self) -> str:
        """The architecture's name in print."""
        name = self.record.training.architecture
        return ARCHITECTURES.get(name, name)

    @property
    def activations(self) -> ufm.Activations:
        """The committed samples of mixed training images in eval mode, in the classifier's row space."""
        if self.record.samples is None:
            raise ValueError(f"results: got {self.name!r} without samples, expected some")
        return self.record.samples

    @property
    def layers(self) -> list[Layer]:
        """The comparison's layers, first to last, without a last stage that is the features themselves."""
        layers = list(self.record.layers)
        same = all(getattr(layers[-1], key) == getattr(layers[-2], key) for key in ("line", "channel", "interpolation"))
        return [*layers[:-2], layers[-1]] if same else layers

    @property
    def logits(self) -> torch.Tensor:
        """The samples' centred logits (N, K), in float64."""
        some = self.activations
        z = some.logits.double()
        return z - z.mean(1, keepdim=True)

    def curve(self, name: str) -> ufm.ChannelCurve:
        """Return one of the comparison's channel curves."""
        return self.comparison.curves[name]

    def panel(self, title: str) -> PlanarPanel:
        """Return the samples of the first three classes in the plane of their classifier rows."""
        some = self.activations
        return planar_panel(
            title, some.classifier, some.features, some.class_a, some.class_b, some.lam, CLASSES, scale=True
        )


def network(results: Path, name: str, folder: str = "networks") -> Shown:
    """Return a committed network; raise ValueError if it is not there."""
    return Shown(_read(results / folder / name))


@cache
def _read(folder: Path) -> RunRecord:
    return read_record(folder)


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
    seeds, drawn = (
        " and ".join(dict.fromkeys(values))
        for values in (
            [str(some.record.training.seed) for some in every],
            [some.record.recordings["eval"]["seed"] for some in every],
        )
    )
    notes = ["CIFAR-10 re-encoded as JPEG"] if any(some.data == "CIFAR-10" for some in every) else []
    notes += ["ResNet-18 of width 8"] if any(some.architecture == "ResNet-18" for some in every) else []
    words = "".join(f" ({note})" for note in [", ".join(notes)] if note)
    return (
        f"Data: {which}, mixed training images{words}, eval mode, trained with seed {seeds}, pairs and lambda drawn "
        f"with seed {drawn}; runs {', '.join(dict.fromkeys(some.name for some in every))}."
    )


def planar_source(networks: Iterable[Shown]) -> str:
    """Return these words for planar pictures, which show the samples of three classes."""
    every = list(networks)
    counts = []
    for some in every:
        a, b = (np.isin(column, CLASSES) for column in (some.activations.class_a, some.activations.class_b))
        counts.append(int((a & b).sum()))
    return source(
        every, f"the {span(counts)} of the first 3,000 recorded samples a run with both classes among the three"
    )


def scored_source(networks: Iterable[Shown]) -> str:
    """Return these words for figures of a comparison, which are those of the half that nothing was fitted to."""
    every = list(networks)
    return source(every, f"{span([some.comparison.samples for some in every])} samples a run, the scored half")


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
