"""Minority collapse against the imbalance ratio, with and without mixup, every point certified.

    python -m experiments.minority [--out experiments/results/minority/minority.json]

Half of the classes are `ratio` times as frequent as the other half. Without mixup the classifier rows of the rare
classes draw together as the ratio grows, and coincide from a finite ratio on (Fang, He, Long and Su, "Exploring deep
neural networks via layer-peeled model", PNAS 2021); the question is what mixup, whose labels inherit the imbalance,
does to that. The classifier is that of the global optimum up to the certified gap, for which no closed form is used.

Prediction: where the rare rows coincide, predictions are equal among the rare classes, so that in the directions v
between these (sum of v zero) the residual is minus the label's part, with E (v.y)^2 = r q ||v||^2, q the probability of
a rare class and r = E[lambda^2 + (1-lambda)^2]. The point is optimal as long as that is at most lambda_W lambda_H: rare
rows coincide from the ratio r/(n lambda_W lambda_H) - 1 on, n being the number of frequent and of rare classes. As
r <= 1, mixup brings minority collapse on earlier.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

import ufm
from experiments.benchmarks.machine import machine
from ufm._support.files import write_json


@dataclass(frozen=True)
class MinorityConfig:
    """What to solve."""

    num_classes: int = 10
    """K, even; the dimension is K"""
    ratios: tuple[float, ...] = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 80, 100, 150, 200, 300, 500, 1000)
    """frequency of a frequent class over that of a rare one, >= 1"""
    alphas: tuple[float | None, ...] = (None, 0.2, 1.0, 4.0)
    """mixup's alpha; None for no mixup"""
    decays: tuple[float, ...] = (5e-3, 2e-2)
    """lambda_W = lambda_H, expectation convention"""
    nodes: int = 8
    """Gauss-Jacobi nodes in lambda per class pair"""
    out: str = "experiments/results/minority/minority.json"
    """result file"""


def cosine(rows: Tensor) -> float:
    """Return the mean cosine between different rows; 1 where all of them vanish together."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if float(lengths.min()) < 1e-7:
        return 1.0
    unit = rows / lengths
    K = len(rows)
    return ((unit @ unit.T).sum().item() - K) / (K * (K - 1))


def collapse_ratio(num_classes: int, alpha: float | None, decay: float) -> float:
    """Return the ratio from which on the rare rows are predicted to coincide."""
    r = 1.0 if alpha is None else (alpha + 1) / (2 * alpha + 1)
    return r / (num_classes // 2 * decay**2) - 1


def points(config: MinorityConfig) -> Iterator[dict[str, Any]]:
    """Yield one solve at a time; beside the given ratios, 10 % below and above the predicted collapse."""
    K, half = config.num_classes, config.num_classes // 2
    for decay, alpha in itertools.product(config.decays, config.alphas):
        predicted = collapse_ratio(K, alpha, decay)
        near = [0.9 * predicted, 1.1 * predicted] if 1 <= 0.9 * predicted <= max(config.ratios) else []
        for ratio in sorted([*config.ratios, *near]):
            total = half * (ratio + 1)
            priors = (ratio / total,) * half + (1 / total,) * (K - half)
            law = ufm.Unmixed(K, priors) if alpha is None else ufm.Mixup(K, alpha, priors=priors)
            problem = ufm.UFM(law.targets(config.nodes), K, decay, decay)
            solution = ufm.solve(problem, "newton", tol=1e-13)
            frequent, rare = solution.classifier[:half], solution.classifier[half:]
            spread = torch.linalg.matrix_norm(rare - rare.mean(0)).item()
            yield {
                "decay": decay,
                "alpha": alpha,
                "predicted_collapse_ratio": predicted,
                "ratio": ratio,
                "message": solution.message.name,
                "relative_gap": solution.certificate.relative_gap,
                "objective": solution.objective,
                "cosine_frequent": cosine(frequent),
                "cosine_rare": cosine(rare),
                "norm_frequent": torch.linalg.vector_norm(frequent, dim=1).mean().item(),
                "norm_rare": torch.linalg.vector_norm(rare, dim=1).mean().item(),
                "spread_rare": spread / torch.linalg.matrix_norm(solution.classifier).item(),
            }


def main() -> int:
    """Solve, print the curve and write the result file."""
    config = tyro.cli(MinorityConfig, description=__doc__)
    torch.set_num_threads(1)
    found = []
    for point in points(config):
        found.append(point)
        shown = {"decay": "g", "ratio": ".4g", "cosine_rare": ".4f", "spread_rare": ".1e", "relative_gap": ".1e"}
        figures = "  ".join(f"{key} {point[key]:{form}}" for key, form in shown.items())
        print(f"alpha {point['alpha']}  {figures}  {point['message']}", flush=True)
    command = "python -m experiments.minority"
    write_json(Path(config.out), {"command": command, "machine": machine(), "config": asdict(config), "points": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
