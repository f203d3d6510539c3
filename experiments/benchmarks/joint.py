"""The joint optimum in closed form against direct minimisation, for several laws, losses, K and penalties.

    python -m experiments.benchmarks.joint [--out experiments/results/joint/joint.json]

Each row: a free classifier solved by L-BFGS in float64 from a random start, on the law's targets at `nodes` nodes; the
relative difference of objectives, the largest entry of W W^T minus the closed form's, and the certified gap.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import ufm
from ufm._support.files import write_json
from ufm.labels.laws import Law
from ufm.losses import LOSSES


@dataclass(frozen=True)
class JointConfig:
    """What to compare."""

    num_classes: tuple[int, ...] = (3, 5, 10)
    """K"""
    nodes: int = 4
    """Gauss-Jacobi nodes in each dimension of lambda"""
    tol: float = 1e-12
    """of the solver's gradient norm"""
    seed: int = 0
    """of the solver's start"""
    out: str = "experiments/results/joint/joint.json"
    """result file"""


def laws(K: int) -> dict[str, Law]:
    """Return the laws that are compared."""
    return {
        "mixup": ufm.Mixup(K),
        "label smoothing + mixup": ufm.LabelSmoothing(ufm.Mixup(K), 0.1),
        "3-way mixup": ufm.Mixup(K, ways=3),
        "unmixed": ufm.Unmixed(K),
    }


def rows(config: JointConfig) -> Iterator[dict[str, Any]]:
    """Yield one comparison at a time: the product of penalties is a multiple of the collapse threshold."""
    for K, loss in itertools.product(config.num_classes, LOSSES):
        for name, law in laws(K).items():
            threshold = ufm.joint_optimum(law, 1.0, 1.0, loss, nodes=config.nodes).threshold
            for fraction in (1e-3, 0.1, 0.9, 1.5):
                weight_decay = feature_decay = (fraction * threshold) ** 0.5
                optimum = ufm.joint_optimum(law, weight_decay, feature_decay, loss, nodes=config.nodes)
                problem = ufm.UFM(law.targets(config.nodes), K + 1, weight_decay, feature_decay, loss)
                solution = ufm.solve(problem, "lbfgs", tol=config.tol, seed=config.seed)
                gram, ideal = (w @ w.T for w in (solution.classifier, optimum.classifier(K + 1)))
                yield {
                    "K": K,
                    "loss": loss,
                    "law": name,
                    "targets": len(problem.targets),
                    "fraction_of_threshold": fraction,
                    "collapsed": optimum.collapsed,
                    "objective": optimum.objective,
                    "relative_difference": abs(solution.objective / float(optimum.objective) - 1),
                    "gram_difference": (gram - ideal).abs().max().item(),
                    "certified_gap": solution.certificate.gap,
                    "converged": solution.converged,
                }


def main() -> int:
    """Compare, print the worst figures and write the result file."""
    config = tyro.cli(JointConfig, description=__doc__)
    found = list(rows(config))
    worst = {
        key: max(abs(row[key]) for row in found) for key in ("relative_difference", "gram_difference", "certified_gap")
    }
    worst["unconverged"] = sum(not row["converged"] for row in found)
    print(f"{len(found)} problems; worst: {worst}")
    result = {"command": "python -m experiments.benchmarks.joint", "rows": found, "worst": worst}
    write_json(Path(config.out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
