"""How exact the direct solver ends, over classes, penalties and random starts.

    python -m experiments.benchmarks.precision [--out experiments/results/solver/precision.json]

Free classifier, cross entropy, mixup; the method "newton" knows nothing of the joint closed form. A run is stuck if it
ends above the closed form's optimum by more than rounding.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import ufm
from experiments.benchmarks.machine import machine
from ufm._support.files import write_json

LIMIT = 1e-13


@dataclass(frozen=True)
class PrecisionConfig:
    """What to solve."""

    num_classes: tuple[int, ...] = (3, 5, 10, 30)
    """K; the dimension is K + 2"""
    decays: tuple[float, ...] = (2e-2, 2e-3, 2e-4)
    """lambda_W = lambda_H, expectation convention"""
    nodes: int = 9
    """Gauss-Jacobi nodes in lambda per class pair"""
    seeds: int = 20
    """random starts"""
    tol: float = 1e-15
    """on the gradient norm: at the rounding level, so that a run ends there or where no step improves any more"""
    out: str = "experiments/results/solver/precision.json"
    """result file"""


def rows(config: PrecisionConfig) -> Iterator[dict[str, Any]]:
    """Yield one solve at a time."""
    for K, decay in itertools.product(config.num_classes, config.decays):
        law = ufm.Mixup(K)
        optimum = float(ufm.joint_optimum(law, decay, decay, nodes=config.nodes).objective)
        problem = ufm.UFM(law.targets(config.nodes), K + 2, decay, decay)
        for seed in range(config.seeds):
            solution = ufm.solve(problem, "newton", tol=config.tol, seed=seed)
            yield {
                "K": K,
                "decay": decay,
                "seed": seed,
                "message": solution.message.name,
                "iterations": solution.iterations,
                "seconds": solution.seconds,
                "relative_gap": abs(solution.certificate.relative_gap),
                "relative_gradient": solution.certificate.relative_gradient,
                "above_closed_form": solution.objective / optimum - 1,
            }


def main() -> int:
    """Solve, print the worst figures by K and penalty, and write the result file."""
    config = tyro.cli(PrecisionConfig, description=__doc__)
    torch.set_num_threads(1)
    found = list(rows(config))
    worst = []
    for K, decay in itertools.product(config.num_classes, config.decays):
        group = [row for row in found if (row["K"], row["decay"]) == (K, decay)]
        figures = {key: max(row[key] for row in group) for key in ("relative_gap", "relative_gradient", "iterations")}
        stuck = sum(abs(row["above_closed_form"]) > LIMIT for row in group)
        within = sum(row["relative_gap"] <= LIMIT and row["relative_gradient"] <= LIMIT for row in group)
        worst.append({"K": K, "decay": decay, **figures, "stuck": stuck, "within": within, "of": len(group)})
        print("  ".join(f"{key} {value:.3g}" for key, value in worst[-1].items()))
    command = "python -m experiments.benchmarks.precision"
    result = {"command": command, "machine": machine(), "config": asdict(config), "worst": worst, "rows": found}
    write_json(Path(config.out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
