"""The regime suite: many small trainings, and in which of them the network follows the theory.

    python -m experiments.regime train [--only digits-5 digits-20 ...]
    python -m experiments.regime measure

A point is one training of regime.toml. `train` trains every point that is not complete, in the order of the file, into
runs/regime/<name>/, and records there what the trained network does in evaluation mode: activations_eval.safetensors
with fresh mixed training images, test.safetensors with the logits of the unmixed test images, recorded.json with the
rest. `measure` reads what was recorded, trains nothing, and writes one JSON object a point to
experiments/results/regime/points.jsonl; points that are not in the runs' folder keep the line that they have there.
Exit status: 0; 1 if some point failed; 2 for bad arguments; 130 if interrupted.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import ufm
from experiments.mixing import mixed_batches
from experiments.record import Recording, interpolation
from experiments.regime_point import point_figures
from experiments.suite import chosen, for_each, read_suite, train_run
from experiments.training import TrainConfig
from experiments.training.monitoring import logits_of
from experiments.training.processes import local_device
from experiments.training.run import TrainedRun, trained_run
from ufm._support.console import run_command
from ufm._support.files import to_json, write_json, write_text
from ufm._support.reading import read_json, read_json_lines
from ufm._support.tensorfile import map_tensors, write_tensors

POINTS = Path(__file__).with_name("regime.toml")
RESULTS = "experiments/results/regime/points.jsonl"

_ACTIVATIONS, _TEST, _RECORDED = "activations_eval.safetensors", "test.safetensors", "recorded.json"
_SAMPLES = 20_000
_POINTS = "a JSON object with a name on each line"


def record_point(run: TrainedRun, *, samples: int = _SAMPLES, device: str = "auto") -> None:
    """Record a trained point's network in evaluation mode, once: three files in the run's folder.

    Parameters
    ----------
    run
        The training run, complete.
    samples
        Fresh mixed training images that are recorded.
    device
        auto, cpu or cuda.

    Raises
    ------
    ValueError
        If the run is not complete.
    """
    run.check_complete()
    recording = Recording(samples=samples, modes=("eval",))
    path = run.folder / _RECORDED
    if path.is_file() and read_json("run", path, "a recorded point")["recording"] == recording.describe(run):
        return
    data = run.data()
    network = run.network(data).to(local_device(device))
    mixing = run.config.evaluation_mixing()
    ufm.record(
        network,
        mixed_batches(data, mixing, recording.samples, seed=recording.seed, batch_size=512, device=network.device),
        classifier="head",
        out=run.folder / _ACTIVATIONS,
        description=recording.describe(run),
    )
    test = {"logits": logits_of(network, data.test_images, data), "classes": data.test_classes}
    write_tensors(run.folder / _TEST, test, {})
    # Written last: with it the recording is complete.
    recorded = {
        "recording": recording.describe(run),
        "images_per_class": len(data.train_images) / data.num_classes,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "interpolation": interpolation(network, data, mixing),
    }
    write_json(path, recorded)


def measure_point(run: TrainedRun) -> dict[str, Any]:
    """Return the figures of a trained and recorded point, from its recorded files alone.

    Parameters
    ----------
    run
        The training run.

    Returns
    -------
    dict
        The point's name and the figures of `experiments.regime_point.point_figures`.

    Raises
    ------
    ValueError
        If the run is not complete and recorded, or its activations are damaged.
    """
    path = run.folder / _RECORDED
    if not run.complete or not path.is_file():
        raise ValueError(f"run: got {run.name!r}, which is not recorded, expected one that `train` has completed")
    recorded = read_json("run", path, "a recorded point")
    activations = ufm.load(run.folder / _ACTIVATIONS)
    test, _ = map_tensors(run.folder / _TEST, name="run")
    figures = point_figures(run.config, activations, test["logits"], test["classes"])
    return {
        "name": run.name,
        "data": run.config.data,
        "images_per_class": recorded["images_per_class"],
        **figures,
        "interpolation_r2": recorded["interpolation"],
        "parameters": recorded["parameters"],
        "train_loss": run.history[-1]["loss"],
        "seconds": sum(line["seconds"] for line in run.history),
        "torch": activations.description["torch"],
    }


def read_points(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the measured points by name, none if there is no such file.

    Parameters
    ----------
    path
        A file of JSON lines as `measure` writes it.

    Returns
    -------
    dict
        The figures of each point by its name.

    Raises
    ------
    ValueError
        If a line is not the JSON of a point.
    """
    if not Path(path).exists():
        return {}
    points = list(read_json_lines("out", path, _POINTS))
    if not all(isinstance(point.get("name"), str) for point in points):
        raise ValueError(f"out: got {str(path)!r}, expected {_POINTS}")
    return {point["name"]: point for point in points}


def write_points(points: dict[str, dict[str, Any]], path: str | Path) -> None:
    """Write measured points, one line each, atomically.

    Parameters
    ----------
    points
        The figures of each point by its name.
    path
        The file; its folder is made if it does not exist.
    """
    write_text(path, "".join(to_json(one, indent=None) + "\n" for one in points.values()))


@dataclass(frozen=True)
class Train:
    """Train and record every point that is not complete."""

    runs: str = "runs/regime"
    """folder for the points' folders"""
    file: str = str(POINTS)
    """TOML file of points"""
    only: tuple[str, ...] = ()
    """names of points; all by default"""
    samples: int = _SAMPLES
    """mixed training images that are recorded of each, >= 1"""
    jobs: int = 1
    """points at a time, one thread each"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def run(self) -> int:
        """Train, and return the exit status."""
        configs = chosen(read_suite(self.file), self.only)
        tasks = {name: (config, Path(self.runs) / name, self.samples, self.device) for name, config in configs.items()}
        return for_each(_train, tasks, self.jobs)


def _train(config: TrainConfig, folder: Path, samples: int, device: str) -> str:
    line = train_run(config, folder, device)
    record_point(trained_run(folder), samples=samples, device=device)
    return line


@dataclass(frozen=True)
class Measure:
    """Measure every point that is complete, from what was recorded."""

    runs: str = "runs/regime"
    """folder with the points' folders"""
    out: str = RESULTS
    """file of JSON lines"""
    file: str = str(POINTS)
    """TOML file of points"""
    only: tuple[str, ...] = ()
    """names of points; all by default"""

    def run(self) -> int:
        """Measure, say which points are not complete, and return the exit status."""
        configs = read_suite(self.file)
        points = {name: point for name, point in read_points(self.out).items() if name in configs}
        present = {}
        for name in chosen(configs, self.only):
            if (Path(self.runs) / name).exists():
                present[name] = (configs[name], Path(self.runs) / name, points)
            else:
                print(f"{name}: {'kept as it was measured' if name in points else 'not trained'}")
        status = for_each(_measure, present, 1)
        write_points({name: points[name] for name in configs if name in points}, self.out)
        print(self.out)
        return status


def _measure(config: TrainConfig, folder: Path, points: dict[str, dict[str, Any]]) -> str:
    torch.set_num_threads(1)
    run = trained_run(folder)
    if run.config != config:
        raise ValueError(f"run: got {str(folder)!r}, which holds a run of another configuration")
    points[run.name] = figures = measure_point(run)
    names = ("excess_loss", "r2_closed_form", "r2_fit_free", "r2_line", "nc1", "nc3", "test_accuracy", "seconds")
    return ", ".join(f"{name} {figures[name]:.4g}" for name in names if figures[name] is not None)


Command = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Measure, tyro.conf.subcommand("measure")]


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(
        Command,
        prog="python -m experiments.regime",
        description=__doc__,
        interrupted="interrupted; the same command goes on",
    )


if __name__ == "__main__":
    sys.exit(main())
