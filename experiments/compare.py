"""Hold trained networks against closed form, solver and straight line, with their earlier layers and calibration.

    python -m experiments.compare runs/fashion-mixup [runs/...] [--out experiments/results/networks]

For each run, recorded first where it is not yet: comparison.json (everything), comparison.csv (a row per mode and
prediction), calibration.json, summary.safetensors, some of the recorded samples with their features in coordinates of
the classifier's row space, which `ufm compare` takes too, and layers.safetensors, the outputs of every layer for three
classes in the plane of their means. They go into the run's folder, or with --out, together
with config.json and metrics.jsonl, into a folder of the run's name there. Exit status: 0; 1 if the GPU failed; 2 for
bad arguments; 130 if interrupted.
"""

import shutil
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from safetensors.numpy import save_file

import ufm
from experiments.data import ImageData
from experiments.networks import Network
from experiments.record import Recording, interpolation, record_network
from experiments.training.measures import logits_of
from experiments.training.processes import local_device
from experiments.training.run import TrainedRun, read_run
from ufm._support.arrays import check_integer
from ufm._support.console import run_command
from ufm._support.files import atomic_path, write_csv, write_json
from ufm.networks.predictions import Head

_SUMMARY_SAMPLES = 3000
_RESAMPLES = 200
_PLANE_SAMPLES = 500


def compare_run(run: TrainedRun, recording: Recording, out: Path) -> dict[str, ufm.Comparison]:
    """Compare one run, write everything to `out`, and return the comparisons by mode."""
    if not run.complete:
        raise ValueError(f"run: got {run.name!r} after {len(run.history)} of {run.config.epochs} epochs")
    data = run.data()
    network = run.network(data).to(local_device(recording.device))
    missing = tuple(mode for mode in recording.modes if not _is_recorded(run, recording, mode))
    if missing:
        record_network(run, network, data, replace(recording, modes=missing))
    law = run.config.law(data.num_classes)
    recorded = {mode: ufm.load(recording.path(run, mode)) for mode in recording.modes}
    comparisons = {
        mode: ufm.compare(some, law, weight_decay=run.config.classifier_decay, resamples=_RESAMPLES)
        for mode, some in recorded.items()
    }
    first = next(iter(recorded.values()))
    layers = [
        {**asdict(ufm.layer_pattern(first, name)), "interpolation": found}
        for name, found in interpolation(network, data, run.config.evaluation_mixing()).items()
    ]
    out.mkdir(parents=True, exist_ok=True)
    described = {mode: some.description for mode, some in recorded.items()}
    figures = {mode: {**asdict(comparison), "table": comparison.table()} for mode, comparison in comparisons.items()}
    write_json(out / "comparison.json", {"recordings": described, "comparisons": figures, "layers": layers})
    rows = [{"run": run.name, "mode": mode, **row} for mode, c in comparisons.items() for row in c.table()]
    write_csv(out / "comparison.csv", rows)
    write_json(out / "calibration.json", calibration(network, data, recorded, comparisons))
    summarise(first).save(out / "summary.safetensors")
    with atomic_path(out / "layers.safetensors") as temporary:
        save_file(layer_planes(first), temporary)
    if out.resolve() != run.folder.resolve():
        for name in ("config.json", "metrics.jsonl"):
            shutil.copyfile(run.folder / name, out / name)
    return comparisons


def _is_recorded(run: TrainedRun, recording: Recording, mode: str) -> bool:
    """Return whether the run has this very recording of the network as it is now."""
    path = recording.path(run, mode)
    return path.exists() and recording.describe(run).items() <= ufm.load(path).description.items()


def calibration(
    network: Network, data: ImageData, recorded: dict[str, ufm.Activations], comparisons: dict[str, ufm.Comparison]
) -> dict[str, Any]:
    """Return calibration on the test images before and after temperature scaling, and confidence against lambda.

    The temperature is fitted on one random half of the test images and both are measured on the other. predicted: what
    the theory says of unmixed inputs at the fitted beta.
    """
    mode, comparison = next(iter(comparisons.items()))
    some = recorded[mode]
    report = ufm.calibrate(logits_of(network, data.test_images, data), data.test_classes)
    predicted = ufm.law_calibration(ufm.Unmixed(data.num_classes), comparison.beta)
    return {
        "test": asdict(report),
        "mode": mode,
        "confidence": asdict(ufm.confidence_curve(some.logits, some.class_a, some.class_b, some.lam)),
        "predicted_confidence": comparison.curves["closed form"].confidence,
        "predicted": asdict(predicted),
    }


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


def layer_planes(
    activations: ufm.Activations, classes: tuple[int, int, int] = (0, 1, 2), samples: int = _PLANE_SAMPLES
) -> dict[str, np.ndarray]:
    """Return each layer's outputs for samples of three classes in the plane of its same-class means, as arrays.

    class_a, class_b, lam (n,): of the first `samples` samples whose classes are among the three. <layer>.points (n, 2):
    their outputs. <layer>.rows (3, 2): the classes' means over all same-class samples. A layer whose three means lie on
    a line is left out.
    """
    three = torch.tensor(classes)
    among = (torch.isin(activations.class_a, three) & torch.isin(activations.class_b, three)).nonzero()[:, 0]
    chosen = among[:samples]
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
    threads: int = 1
    """of the CPU's arithmetic"""

    def run(self) -> int:
        """Compare, print a line per run, mode and prediction, and return the exit status."""
        if not self.runs:
            raise ValueError("runs: got none, expected the folder of at least one training run")
        torch.set_num_threads(check_integer("threads", self.threads, minimum=1))
        for run in [read_run(folder) for folder in self.runs]:
            out = run.folder if self.out is None else Path(self.out) / run.name
            for mode, comparison in compare_run(run, self.recording, out).items():
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
