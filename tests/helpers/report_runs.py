"""Synthetic runs for the tests of the report: activations of known shape, and the folder of a compared run."""

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ufm
from tests.helpers.networks import following_the_theory
from ufm.runs.record import CalibrationRecord, Layer, RunRecord, Training, write_record

TRAINING = Training(data="synthetic", architecture="none", epochs=2, seed=0)


def theory_network(num_classes: int = 3, samples: int = 600) -> ufm.Activations:
    """Return a network that follows the closed form at beta = 100, with two layers before its features.

    The layer "flat" is linear in the label; the layer "bent" is the closed form's logits.
    """
    some = following_the_theory(100.0, num_classes, samples)
    layers = {"flat": some.labels.float(), "bent": some.logits.float()}
    said = {"data": "synthetic, mixed", "mode": "eval", "seed": "1", "samples": str(samples)}
    return dataclasses.replace(some, layers=layers, description=said)


def straight_network(num_classes: int = 3, samples: int = 600) -> ufm.Activations:
    """Return a network whose logits are linear in the label, with an ETF for a classifier."""
    some = following_the_theory(100.0, num_classes, samples)
    W = some.classifier
    h = some.labels @ W * 6
    return dataclasses.replace(some, features=h, logits=h @ W.T)


def compared(activations: ufm.Activations, weight_decay: float | None = None) -> ufm.Comparison:
    """Return the comparison with the theory of mixup."""
    return ufm.compare(activations, ufm.Mixup(len(activations.classifier)), weight_decay=weight_decay)


def run_of(activations: ufm.Activations, training: Training = TRAINING, **further: Any) -> RunRecord:
    """Return the record of a run that was compared in one mode."""
    K = len(activations.classifier)
    return RunRecord("made up", K, training, comparisons={"eval": compared(activations)}, **further)


def write_run(folder: Path, activations: ufm.Activations, *, training: Training = TRAINING, **further: Any) -> Path:
    """Write the folder of a compared run, as the project's experiments do, and return it."""
    comparison = compared(activations)
    layers = [Layer(**asdict(ufm.layer_pattern(activations, "flat")), interpolation=0.95)] if activations.layers else []
    history = [
        {"epoch": epoch, "test_accuracy": 0.5 + epoch / 10, "test_ece": 0.02}
        | dict.fromkeys(("nc1", "nc2", "nc3", "etf_error"), 1 / (1 + epoch))
        for epoch in range(2)
    ]
    K = len(activations.classifier)
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(400, K)))
    predicted = ufm.law_calibration(ufm.Unmixed(K), comparison.beta)
    record = RunRecord(
        folder.name,
        K,
        training,
        configuration={"config": {"mixing": training.mixing, "data": training.data}},
        history=history,
        recordings={"eval": activations.description, "train": activations.description},
        comparisons={"eval": comparison, "train": comparison},
        layers=layers,
        calibration=CalibrationRecord(ufm.calibrate(logits, logits.argmax(1)), predicted),
    )
    write_record(dataclasses.replace(record, **further), folder)
    dataclasses.replace(activations, layers={}).save(folder / "summary.safetensors")
    return folder
