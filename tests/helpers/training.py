"""Small trainings, and what they leave on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from experiments.data import ImageData, digits
from experiments.networks import NetworkConfig
from experiments.training import OptimiserConfig, TrainConfig, TrainResult, train

SMALL = TrainConfig(
    train_samples=300, network=NetworkConfig(width=2, dim=10), epochs=4, batch_size=100, measure_every=4
)

# A perceptron that is trained by steps.
TINY_STEPS = TrainConfig(
    train_samples=60,
    network=NetworkConfig("mlp", width=24, dim=12),
    optimiser=OptimiserConfig(learning_rate=0.2, weight_decay=5e-4, schedule="onecycle"),
    epochs=4,
    epoch_steps=25,
    batch_size=128,
    measure_every=100,
)


def small(**changes: Any) -> TrainConfig:
    return replace(SMALL, **changes)


def trained(config: TrainConfig, out: Path, data: ImageData | None = None, **settings: Any) -> TrainResult:
    return train(config, data or digits(), out, device="cpu", progress=False, **settings)


def metrics(out: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return lines


def arrays(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint.safetensors")


def assert_same_end(one: Path, other: Path) -> None:
    """Check that two runs ended in the same weights, optimiser state and figures, bit for bit."""
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys()
    assert any(name.startswith("optimiser.") for name in first)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert metrics(one) == metrics(other)
