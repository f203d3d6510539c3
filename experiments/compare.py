"""Hold trained networks against closed form, solver and straight line, with their earlier layers and calibration.

    python -m experiments.compare runs/fashion-mixup [runs/...] [--out experiments/results/networks]

Each run is recorded first where it is not yet. Its record, run.json and metrics.jsonl, then holds the comparison as
well as the training; it goes into the run's folder or, with --out, into a folder of the run's name there. What --keep
names joins it: `samples`, the first 3,000 recorded samples as summary.safetensors, their features in coordinates of the
classifier's row space, which `ufm compare` takes too; or `planar`, only those of them whose classes are 0, 1 or 2; and
`layers`, the outputs of every layer for these classes in the plane of their means, as layers.safetensors. Exit status:
0; 1 if the GPU failed; 2 for bad arguments; 130 if interrupted.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import tyro

import ufm
from experiments.data import ImageData
from experiments.networks import Network
from experiments.record import Recording, interpolation, record_network
from experiments.training.monitoring import logits_of
from experiments.training.processes import local_device
from experiments.training.run import TrainedRun, trained_run
from ufm._support.arrays import check_choice, check_integer
from ufm._support.console import run_command
from ufm._support.tensorfile import write_tensors
from ufm.networks.predictions import Head
from ufm.runs.compared import compared_run
from ufm.runs.record import LAYERS, SUMMARY, CalibrationRecord, RunRecord, write_record

KEPT = ("samples", "layers")
CHOICES = ("samples", "planar", "layers")
_CLASSES = (0, 1, 2)
_SUMMARY_SAMPLES = 3000
_PLANE_SAMPLES = 500


def compare_run(run: TrainedRun, recording: Recording, out: Path, *, keep: Sequence[str] = KEPT) -> RunRecord:
    """Compare a run with the theory, write its record to `out`, and return it.

    Parameters
    ----------
    run : TrainedRun
        Complete.
    recording : Recording
        What is recorded, unless it is there already.
    out : Path
        Folder for run.json, metrics.jsonl, and what is kept.
    keep : sequence of str
        "samples", or "planar" for those of three classes only, for summary.safetensors; "layers" for
        layers.safetensors.

    Raises
    ------
    ValueError
        If the run is not complete.
    """
    run.check_complete()
    data = run.data()
    network = run.network(data).to(local_device(recording.device))
    missing = tuple(mode for mode in recording.modes if not _is_recorded(run, recording, mode))
    if missing:
        record_network(run, network, data, replace(recording, modes=missing))
    recorded = {mode: ufm.load(recording.path(run, mode)) for mode in recording.modes}
    first = next(iter(recorded.values()))
    record = compared_run(
        run.name,
        recorded,
        run.config.law(data.num_classes),
        run.config.training(),
        interpolation=interpolation(network, data, run.config.evaluation_mixing()),
        configuration=run.record.configuration,
        history=run.record.history,
        # Of a demo, which keeps its own beside the network's.
        theory=run.record.theory,
        solves=run.record.solves,
        checks=run.record.checks,
    )
    record = replace(record, calibration=calibration(network, data, first, record))
    write_record(record, out)
    if "samples" in keep or "planar" in keep:
        summary = summarise(first)
        (summary if "samples" in keep else of_three_classes(summary)).save(out / SUMMARY)
    if "layers" in keep:
        write_tensors(out / LAYERS, {name: torch.from_numpy(plane) for name, plane in layer_planes(first).items()}, {})
    return record


def _is_recorded(run: TrainedRun, recording: Recording, mode: str) -> bool:
    """Return whether the run has this very recording of the network as it is now."""
    path = recording.path(run, mode)
    return path.exists() and recording.describe(run).items() <= ufm.load(path).description.items()


def calibration(network: Network, data: ImageData, recorded: ufm.Activations, record: RunRecord) -> CalibrationRecord:
    """Return calibration on the test images before and after temperature scaling, and confidence against lambda.

    The temperature is fitted on one random half of the test images; both are measured on the other half.
    """
    beta = next(iter(record.comparisons.values())).beta
    return CalibrationRecord(
        test=ufm.calibrate(logits_of(network, data.test_images, data), data.test_classes),
        predicted=ufm.law_calibration(ufm.Unmixed(data.num_classes), beta),
        confidence=ufm.confidence_curve(recorded.logits, recorded.class_a, recorded.class_b, recorded.lam),
    )


def summarise(activations: ufm.Activations, samples: int = _SUMMARY_SAMPLES) -> ufm.Activations:
    """Return some of the samples with classifier and features in coordinates of the centred classifier's row space.

    An isometry on that space, so that all differences of logits are as recorded; what is outside of it, which the
    theory has nothing of, is left out, so that angles and lengths are those of the projected features.
    """
    head = Head.of(activations.classifier, activations.bias)
    basis, centre = head.basis, activations.classifier.double().mean(0)
    few = slice(samples)
    features = activations.features[few].double()
    return replace(
        activations,
        features=(features @ basis).float(),
        # The rows' mean, which the logits of all classes share, is left out of both.
        logits=(activations.logits[few].double() - (features @ centre).unsqueeze(1)).float(),
        class_a=activations.class_a[few],
        class_b=activations.class_b[few],
        lam=activations.lam[few],
        classifier=(head.rows @ basis).float(),
        layers={},
        description=activations.description | {"features": "in coordinates of the classifier's row space"},
    )


def of_three_classes(activations: ufm.Activations) -> ufm.Activations:
    """Return the samples of which both classes are 0, 1 or 2; the layers are left out."""
    rows = _among(activations, _CLASSES)
    names = ("features", "logits", "class_a", "class_b", "lam")
    chosen = {name: getattr(activations, name)[rows] for name in names}
    said = activations.description | {"classes": ", ".join(map(str, _CLASSES))}
    return replace(activations, **chosen, layers={}, description=said)


def _among(activations: ufm.Activations, classes: tuple[int, int, int]) -> torch.Tensor:
    """Return the rows of the samples of which both classes are among three."""
    three = torch.tensor(classes)
    return (torch.isin(activations.class_a, three) & torch.isin(activations.class_b, three)).nonzero()[:, 0]


def layer_planes(
    activations: ufm.Activations, classes: tuple[int, int, int] = _CLASSES, samples: int = _PLANE_SAMPLES
) -> dict[str, np.ndarray]:
    """Return each layer's outputs for samples of three classes in the plane of its same-class means, as arrays.

    class_a, class_b, lam (n,): of the first `samples` samples whose classes are among the three. <layer>.points (n, 2):
    their outputs. <layer>.rows (3, 2): the classes' means over all same-class samples. A layer whose three means lie on
    a line is left out.
    """
    chosen = _among(activations, classes)[:samples]
    arrays = {name: getattr(activations, name)[chosen].numpy() for name in ("class_a", "class_b", "lam")}
    for name, output in {**activations.layers, "features": activations.features}.items():
        h = output.reshape(len(output), -1).double()
        own = [(activations.class_a == k) & (activations.class_b == k) for k in classes]
        means = torch.stack([h[rows].mean(0) for rows in own])
        try:
            plane = ufm.classifier_plane(means)
        except ValueError:
            continue
        arrays[f"{name}.points"] = np.asarray(plane.project(h[chosen]), np.float32)
        arrays[f"{name}.rows"] = np.asarray(plane.project(means), np.float32)
    return arrays


@dataclass(frozen=True)
class Compare:
    """Compare one or many runs."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """folders of finished training runs"""
    out: str | None = None
    """folder for a folder per run; the runs' own folders by default"""
    recording: tyro.conf.OmitArgPrefixes[Recording] = field(default_factory=Recording)
    keep: tuple[str, ...] = KEPT
    """what stands beside the record: samples or planar, layers, or nothing"""
    threads: int = 1
    """of the CPU's arithmetic"""

    def run(self) -> int:
        """Compare, print a line per run, mode and prediction, and return the exit status."""
        if not self.runs:
            raise ValueError("runs: got none, expected the folder of at least one training run")
        for what in self.keep:
            check_choice("keep", what, CHOICES)
        torch.set_num_threads(check_integer("threads", self.threads, minimum=1))
        for run in [trained_run(folder) for folder in self.runs]:
            out = run.folder if self.out is None else Path(self.out) / run.name
            record = compare_run(run, self.recording, out, keep=self.keep)
            for mode, comparison in record.comparisons.items():
                for score in comparison.scores:
                    figures = f"R² {score.r2:.3f}, binned {score.r2_binned:.3f}, angle {score.angle_mixed:.1f}°"
                    print(f"{run.name} {mode:<5} {score.name:<20} {figures}")
            print(out)
        return 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Compare, prog="python -m experiments.compare", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
