"""Record what trained networks do with mixed images: features, logits, classifier and every stage.

    python -m experiments.record runs/fashion-mixup [runs/...] [--samples 10000] [--modes eval train]

Writes activations_eval.safetensors and so on into each run's folder: `ufm compare` takes them, and any safetensors
reader opens them. Exit status: 0; 1 if the GPU failed; 2 for bad arguments; 130 if
interrupted.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

import ufm
from experiments.data import ImageData
from experiments.mixing import Mixing, mixed_batches
from experiments.networks import Network
from experiments.training.processes import local_device
from experiments.training.run import TrainedRun, trained_run
from ufm._support.arrays import check_choice, check_integer
from ufm._support.console import run_command

_MODES = ("eval", "train")


@dataclass(frozen=True)
class Recording:
    """What is recorded."""

    samples: int = 10_000
    """mixed images, >= 1"""
    modes: tuple[str, ...] = _MODES
    """eval (BatchNorm with running statistics), train (with those of the batch), or both"""
    split: str = "train"
    """images of the train or the test set"""
    seed: int = 1
    """of pairs and mixing coefficients"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_integer("samples", self.samples, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        check_choice("split", self.split, ("train", "test"))
        if not self.modes:
            raise ValueError(f"modes: got none, expected at least one of {', '.join(_MODES)}")
        for mode in self.modes:
            check_choice("modes", mode, _MODES)

    def describe(self, run: TrainedRun) -> dict[str, str]:
        """Return what is written beside a recording, by which it is known again."""
        return {
            "run": run.name,
            "epochs": str(len(run.history)),
            "data": f"{run.config.data}, mixed {self.split} images",
            "mixing": str(run.config.evaluation_mixing()),
            "wanted": str(self.samples),
            "seed": str(self.seed),
        }

    def path(self, run: TrainedRun, mode: str) -> Path:
        """Return where the recording in a mode goes."""
        suffix = "" if self.split == "train" else f"_{self.split}"
        return run.folder / f"activations_{mode}{suffix}.safetensors"


def record_run(run: TrainedRun, recording: Recording) -> dict[str, Path]:
    """Record a run's network on mixed images, every mode on the same ones; return the files by mode."""
    data = run.data()
    return record_network(run, run.network(data).to(local_device(recording.device)), data, recording)


def record_network(run: TrainedRun, network: Network, data: ImageData, recording: Recording) -> dict[str, Path]:
    """Do the same with the run's network and data at hand."""
    written = {}
    for mode in recording.modes:
        written[mode] = recording.path(run, mode)
        batches = mixed_batches(
            data,
            run.config.evaluation_mixing(),
            recording.samples,
            seed=recording.seed,
            split=recording.split,
            # BatchNorm's batch statistics in train mode are those of the batches that it was trained with.
            batch_size=run.config.batch_size,
            device=network.device,
        )
        ufm.record(
            network,
            batches,
            classifier="head",
            layers=stage_names(network),
            pool=True,
            train_mode=mode == "train",
            out=written[mode],
            description=recording.describe(run),
        )
    return written


def stage_names(network: Network) -> list[str]:
    """Return the names of the stages before the one whose output is the features."""
    return [f"stages.{name}" for name, _ in network.stages.named_children()][:-1]


def interpolation(
    network: Network, data: ImageData, mixing: Mixing, samples: int = 2000, seed: int = 2
) -> dict[str, float]:
    """Return, by stage, how well its output on mixed images is the mixture of its outputs on the two images.

    In evaluation mode, outputs averaged over positions; see `ufm.interpolation_r2`. Mixup's images would be 1.
    """
    layers = stage_names(network)
    recorded = []
    for which in ("mixed", "first", "second"):
        batches = mixed_batches(data, mixing, samples, seed=seed, show=which, device=network.device)
        recorded.append(ufm.record(network, batches, classifier="head", layers=layers, pool=True))
    mixed, first, second = recorded
    found = {
        name: ufm.interpolation_r2(mixed.layers[name], first.layers[name], second.layers[name], mixed.lam)
        for name in layers
    }
    return found | {"features": ufm.interpolation_r2(mixed.features, first.features, second.features, mixed.lam)}


@dataclass(frozen=True)
class Record:
    """Record one or many runs."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """folders of training runs"""
    recording: tyro.conf.OmitArgPrefixes[Recording] = field(default_factory=Recording)
    threads: int = 1
    """of the CPU's arithmetic"""

    def run(self) -> int:
        """Record, print the files, and return the exit status."""
        if not self.runs:
            raise ValueError("runs: got none, expected the folder of at least one training run")
        torch.set_num_threads(check_integer("threads", self.threads, minimum=1))
        for run in [trained_run(folder) for folder in self.runs]:
            for path in record_run(run, self.recording).values():
                print(path)
        return 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Record, prog="python -m experiments.record", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
