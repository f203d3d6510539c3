"""What needs a GPU, in calls that end after an epoch: the paper's own networks, and the solver for many classes.

    python -m experiments.gpu train [--seconds 540] [--only fashion-wrn ...]
    python -m experiments.gpu solve [--num-classes 1000]

`train` trains the networks of gpu.toml one epoch at a time, says how long an epoch takes, and ends before an epoch that
would run over; the same call goes on from there. What is complete is recorded and measured as a point of the regime
suite, one JSON line each in experiments/results/gpu/points.jsonl. `solve` minimises the UFM of all class pairs in
float64, streamed, and writes what is certified to experiments/results/gpu/solve.json. Exit status: 0, also if time ran
out; 1 if a network or the solve failed; 2 for bad arguments; 130 if interrupted.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import ufm
from experiments.data import load_data
from experiments.regime import measure_point, read_points, record_point, write_points
from experiments.suite import chosen, read_suite
from experiments.training import TrainConfig, train
from experiments.training.processes import device_name, local_device
from experiments.training.run import trained_run
from ufm._support.arrays import check_integer, check_number
from ufm._support.console import run_command
from ufm._support.files import write_json

NETWORKS = Path(__file__).with_name("gpu.toml")
RESULTS = "experiments/results/gpu"


@dataclass(frozen=True)
class Train:
    """Train, record and measure networks until the time is up."""

    runs: str = "runs/gpu"
    """folder for the networks' folders"""
    out: str = f"{RESULTS}/points.jsonl"
    """file of JSON lines"""
    file: str = str(NETWORKS)
    """TOML file of networks"""
    only: tuple[str, ...] = ()
    """names of networks; all by default"""
    seconds: float = 540.0
    """time for training in this call, > 0; an epoch that would run over it is left to the next call, but for the first
    one of a network, whose length is not known; recording and measuring a complete network come on top"""
    samples: int = 20_000
    """mixed training images that are recorded of each, >= 1"""
    device: str = "auto"
    """auto, cpu or cuda"""
    compiled: bool = False
    """run the networks through torch.compile"""

    def run(self) -> int:
        """Train, and return the exit status."""
        check_number("seconds", self.seconds, above=0)
        check_integer("samples", self.samples, minimum=1)
        end, failed = time.perf_counter() + self.seconds, 0
        for name, config in chosen(read_suite(self.file), self.only).items():
            folder = Path(self.runs) / name
            try:
                left = self._train(name, config, folder, end)
                if left:
                    print(f"{name}: time is up with {left} of {config.epochs} epochs left; the same command goes on")
                    break
                record_point(trained_run(folder), samples=self.samples, device=self.device)
                points = read_points(self.out)
                points[name] = {**measure_point(trained_run(folder)), "device": device_name(local_device(self.device))}
                write_points(points, self.out)
                print(f"{name}: excess {points[name]['excess_loss']:.4f}, R² fit-free {points[name]['r2_fit_free']}")
            except (ValueError, OSError, RuntimeError) as error:
                print(f"{name}: failed: {error}", file=sys.stderr)
                failed += 1
        return 1 if failed else 0

    def _train(self, name: str, config: TrainConfig, folder: Path, end: float) -> int:
        """Train while there is time for one more epoch, and return how many are left."""
        data = load_data(config.data)
        history = _history(folder)
        # Measuring and writing take their time beside the epoch's own.
        before = done = len(history)
        longest = 1.2 * max((line["seconds"] for line in history), default=0.0)
        while done < config.epochs:
            begin = time.perf_counter()
            if begin + longest > end:
                break
            history = train(
                config, data, folder, device=self.device, compiled=self.compiled, stop_after=done + 1, progress=False
            ).history
            if done == before:
                print(f"{name}: {history[-1]['seconds']:.1f} s an epoch, {config.epochs} in all", flush=True)
            done, longest = len(history), max(longest, time.perf_counter() - begin)
        return config.epochs - done


def _history(folder: Path) -> list[dict[str, Any]]:
    return trained_run(folder).history if folder.exists() else []


@dataclass(frozen=True)
class Solve:
    """Minimise the UFM of mixup on many classes, in float64 with the targets streamed."""

    num_classes: int = 1000
    """K >= 3"""
    nodes: int = 4
    """values of lambda per class pair, >= 1"""
    weight_decay: float = 1e-4
    """lambda_W > 0"""
    feature_decay: float = 1e-4
    """lambda_H > 0"""
    gap_tol: float = 1e-8
    """certified relative gap to stop at, > 0"""
    max_iter: int = 200
    """steps, >= 1"""
    device: str = "auto"
    """auto, cpu or cuda"""
    out: str = f"{RESULTS}/solve.json"
    """file for the result"""

    def run(self) -> int:
        """Solve, and return the exit status."""
        law = ufm.Mixup(self.num_classes)
        problem = ufm.UFM(law.pair_targets(self.nodes), self.num_classes, self.weight_decay, self.feature_decay)
        solution = ufm.solve(problem, gap_tol=self.gap_tol, max_iter=self.max_iter, device=self.device, stream=True)
        optimum = ufm.joint_optimum(law, self.weight_decay, self.feature_decay, nodes=self.nodes)
        result = {
            "config": asdict(self),
            "targets": len(problem.targets),
            "device": device_name(local_device(self.device)),
            "torch": torch.__version__,
            "message": str(solution.message),
            "iterations": solution.iterations,
            "seconds": solution.seconds,
            "objective": solution.objective,
            "relative_gap": solution.certificate.relative_gap,
            "objective_closed_form": float(optimum.objective),
        }
        write_json(self.out, result)
        print(
            f"{len(problem.targets):,} targets: relative gap {result['relative_gap']:.1e} in {solution.seconds:.1f} s"
        )
        return 0 if solution.converged else 1


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
)  # fmt: skip


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Command, prog="python -m experiments.gpu", description=__doc__)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    sys.exit(main())
