"""`ufm.CollapseMetric` against what others offer for the same, on the same batches in the same run.

    python -m experiments.benchmarks.streaming [--out experiments/results/speed/streaming.json]

Baselines: (a) two passes over all batches, first class means by the product with one-hot labels, then the covariance of
the differences, as the accumulators of the package neural-collapse do (github.com/rhubarbwu/neural-collapse), in its
dtype float32 and in float64; from these NC1 to NC3 follow; (b) `MulticlassCalibrationError` of torchmetrics, which
keeps every confidence, with softmax before it; this gives the calibration error. `CollapseMetric` takes in both in one
pass, in float64, and excess loss and channel besides; `compute` is timed apart. Batches are in memory as float32, as a
network returns them; a second pass over a data set costs a second forward pass too, which is not counted.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

import ufm
from experiments.benchmarks.machine import machine
from experiments.benchmarks.speed import median_seconds
from ufm._support.files import to_json, write_json

_SIZES = ((50_000, 10, 512), (20_000, 1000, 2048))
_BATCH = 256


@dataclass(frozen=True)
class StreamingConfig:
    """What to measure."""

    repeats: int = 5
    """timed runs of each, of which the median is reported"""
    shrink: int = 1
    """divide every N by this, for trying the script"""
    out: str = "experiments/results/speed/streaming.json"
    """result file"""


@dataclass(frozen=True)
class _Data:
    features: Tensor
    labels: Tensor
    classifier: Tensor

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.features.split(_BATCH), self.labels.split(_BATCH), strict=True)

    def stream(self) -> ufm.CollapseMetric:
        metric = ufm.CollapseMetric(len(self.classifier), self.classifier)
        for h, y in self.batches():
            metric.update(h, y)
        return metric

    def two_passes(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return class means and covariance within the classes."""
        K, d = self.classifier.shape
        total, count = torch.zeros(K, d, dtype=dtype), torch.zeros(K, dtype=dtype)
        for h, y in self.batches():
            one_hot = (y[:, None] == torch.arange(K)).to(dtype)
            total += one_hot.T @ h.to(dtype)
            count += one_hot.sum(0)
        means, scatter = total / count.clamp(min=1)[:, None], torch.zeros(d, d, dtype=dtype)
        for h, y in self.batches():
            difference = h.to(dtype) - means[y]
            scatter += difference.T @ difference
        return means, scatter / count.sum()

    def calibration(self, error: Any) -> float:
        error.reset()
        for h, y in self.batches():
            error.update((h @ self.classifier.T).softmax(1), y)
        return float(error.compute())


def measure(samples: int, num_classes: int, dim: int, repeats: int) -> dict[str, Any]:
    """Return medians and ratios for one size."""
    draw = torch.Generator().manual_seed(0)
    classifier = torch.randn(num_classes, dim, generator=draw) / dim**0.5
    labels = torch.randint(num_classes, (samples,), generator=draw)
    labels[:num_classes] = torch.arange(num_classes)[:samples]
    features = 4 * classifier[labels] + torch.randn(samples, dim, generator=draw)
    data = _Data(features, labels, classifier)
    timed: dict[str, Callable[[], Any]] = {
        "ufm": data.stream,
        "two passes, float32": lambda: data.two_passes(torch.float32),
        "two passes, float64": lambda: data.two_passes(torch.float64),
    }
    metric, errors = data.stream(), {}
    found = metric.compute()
    try:
        from torchmetrics.classification import MulticlassCalibrationError  # pyright: ignore[reportMissingImports]
    except ImportError:
        pass
    else:
        error = MulticlassCalibrationError(num_classes, n_bins=15, norm="l1")
        timed["torchmetrics, calibration only"] = lambda: data.calibration(error)
        errors["ece_torchmetrics"] = abs(data.calibration(error) - found.ece)
    for dtype in (torch.float32, torch.float64):
        means, covariance = data.two_passes(dtype)
        centred = (means - means.mean(0)).double()
        nc1 = (torch.linalg.pinv(centred.T @ centred / num_classes, hermitian=True) * covariance).sum() / num_classes
        errors[f"nc1_{str(dtype).removeprefix('torch.')}"] = abs(nc1.item() / found.nc1 - 1)
    medians = {name: median_seconds(run, repeats) for name, run in timed.items()}
    return {
        "samples": samples,
        "num_classes": num_classes,
        "dim": dim,
        "seconds": medians,
        "seconds_of_compute": median_seconds(metric.compute, repeats),
        "over_ufm": {name: value / medians["ufm"] for name, value in medians.items() if name != "ufm"},
        "differences": errors,
    }


def main() -> int:
    """Measure every size, print, and write the result file."""
    config = tyro.cli(StreamingConfig, description=__doc__)
    rows = [measure(samples // config.shrink, K, d, config.repeats) for samples, K, d in _SIZES]
    result = {"config": asdict(config), "machine": machine(), "batch": _BATCH, "rows": rows}
    print(to_json(result))
    write_json(Path(config.out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
