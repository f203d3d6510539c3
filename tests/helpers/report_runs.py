"""Synthetic runs for the tests of the report: activations of known shape, and the folder of a compared run."""

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ufm
from tests.helpers.networks import following_the_theory
from ufm._support.files import write_json

CONFIG: dict[str, Any] = {
    "config": {
        "data": "synthetic",
        "network": {"architecture": "none", "etf_multiplier": None},
        "mixing": {"kind": "mixup", "alpha": 1.0},
        "loss": "cross_entropy",
        "epochs": 2,
        "seed": 0,
    }
}


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


def write_run(folder: Path, activations: ufm.Activations, *, config: Any = CONFIG) -> Path:
    """Write the folder of a compared run, as the project's experiments do, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    comparison = compared(activations)
    figures = {**asdict(comparison), "table": comparison.table()}
    layers = [{**asdict(ufm.layer_pattern(activations, "flat")), "interpolation": 0.95}] if activations.layers else []
    write_json(
        folder / "comparison.json",
        {
            "recordings": {"eval": activations.description, "train": activations.description},
            "comparisons": {"eval": figures, "train": figures},
            "layers": layers,
        },
    )
    write_json(folder / "config.json", config)
    rows = [
        {"epoch": epoch, "test_accuracy": 0.5 + epoch / 10, "test_ece": 0.02}
        | dict.fromkeys(("nc1", "nc2", "nc3", "etf_error"), 1 / (1 + epoch))
        for epoch in range(2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    K = len(activations.classifier)
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(400, K)))
    report = ufm.calibrate(logits, logits.argmax(1))
    predicted = ufm.law_calibration(ufm.Unmixed(K), comparison.beta)
    write_json(folder / "calibration.json", {"test": asdict(report), "predicted": asdict(predicted)})
    dataclasses.replace(activations, layers={}).save(folder / "summary.safetensors")
    return folder
