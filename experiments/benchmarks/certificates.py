"""Certificates against the objective in interval arithmetic: no lower bound may be above the true optimum.

    python -m experiments.benchmarks.certificates [--cases 10000] [--out FILE]

Each random problem is solved, and its objective at the best point is enclosed by Arb's balls at 320 bits, with labels
and weights over their exact sums: that is at least the optimum, and at a converged point above it by far less than an
ulp. Then the solution itself and points near it are certified, at distances from 1e-12 to 1, and each lower bound is
compared with the ball. Nothing is shared with `ufm` but the point.

The distance of a tight bound (at a converged point with d >= min(K, N) or a fixed classifier) from the ball is given in
ulp of the larger of the objective and of what enters it, sum_j pi_j (|z_j| . |p_j - y_j|). It holds what is left of
the gradient, of 1e-12, too: the median tells what the allowance for rounding costs.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from flint import arb, ctx

import ufm
from ufm._support.files import write_json

_BITS = 320
_EPSILON = float(np.finfo(float).eps)
# Certified at each solution: itself, and points so far away.
_DISTANCES = (0.0, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
LABELS = ("one-hot", "dirichlet", "mixup", "tiny", "uniform")
LOSSES = ("cross_entropy", "mean_squared_error")


@dataclass(frozen=True)
class CertificatesConfig:
    """What to check."""

    cases: int = 10_000
    """certificates in all"""
    seed: int = 0
    """of the problems"""
    out: str = "experiments/results/exactness/certificates.json"
    """result file"""


def labels_of(kind: str, N: int, K: int, rng: np.random.Generator) -> np.ndarray:
    """Return labels (N, K) of a kind."""
    hard = np.eye(K)[rng.integers(K, size=N)]
    if kind == "one-hot":
        return hard
    if kind == "uniform":
        return np.full((N, K), 1 / K)
    if kind == "dirichlet":
        return rng.dirichlet(np.full(K, 10.0 ** rng.uniform(-1, 1)), N)
    other = np.eye(K)[rng.integers(K, size=N)]
    small = rng.random((N, 1)) if kind == "mixup" else 10.0 ** rng.uniform(-12, -2, (N, 1))
    return (1 - small) * hard + small * other


def problem_of(kind: str, rng: np.random.Generator) -> ufm.UFM:
    """Return a random problem whose labels are of a kind."""
    N, K, d = int(rng.integers(1, 9)), int(rng.integers(2, 7)), int(rng.integers(1, 7))
    weights = rng.dirichlet(np.ones(N)) * 0.9 + 0.1 / N
    targets = ufm.Targets(labels_of(kind, N, K, rng), weights / weights.sum())
    decays = 10.0 ** rng.uniform(-5, 0, 2)
    loss, bias = LOSSES[rng.integers(2)], (None, None, 0.0, 0.03)[rng.integers(4)]
    fixed = rng.normal(size=(K, d)) if rng.random() < 0.3 else None
    nonnegative = rng.random() < 0.1
    weight_decay, feature_decay = decays.tolist()
    return ufm.UFM(
        targets, d, weight_decay, feature_decay, loss, classifier=fixed, bias_decay=bias, nonnegative=nonnegative
    )


def ball(problem: ufm.UFM, w: torch.Tensor, h: torch.Tensor, b: torch.Tensor | None) -> tuple[arb, float]:
    """Return the objective as a ball, and the size of what enters it."""
    y, pi = (np.asarray(x) for x in (problem.targets.labels, problem.targets.weights))
    K = y.shape[1]
    rows, columns = ([[arb(float(v)) for v in row] for row in x] for x in (w, h))
    bias = [arb(0)] * K if b is None else [arb(float(v)) for v in b]
    own = arb(1) / K if problem.loss == "mean_squared_error" and b is None else arb(0)
    total_weight = sum((arb(float(v)) for v in pi), arb(0))
    total, size = arb(0), 0.0
    for label, weight, feature in zip(y, pi, columns, strict=True):
        whole = sum((arb(float(v)) for v in label), arb(0))
        target = [arb(float(v)) / whole for v in label]
        z = [sum((u * v for u, v in zip(row, feature, strict=True)), c) for row, c in zip(rows, bias, strict=True)]
        if problem.loss == "cross_entropy":
            top = max(z, key=float).mid()
            exponentials = [(v - top).exp() for v in z]
            partition = sum(exponentials, arb(0))
            loss = partition.log() + top - sum((u * v for u, v in zip(target, z, strict=True)), arb(0))
            residual = [u / partition - v for u, v in zip(exponentials, target, strict=True)]
        else:
            residual = [u + own - v for u, v in zip(z, target, strict=True)]
            loss = sum((v * v for v in residual), arb(0)) / 2
        share = arb(float(weight)) / total_weight
        total += share * (loss + arb(problem.feature_decay) / 2 * sum((v * v for v in feature), arb(0)))
        size += float(share) * sum(abs(float(u)) * abs(float(v)) for u, v in zip(z, residual, strict=True))
    total += arb(problem.weight_decay) / 2 * sum((v * v for row in rows for v in row), arb(0))
    if b is not None:
        total += arb(problem.bias_decay or 0.0) / 2 * sum((v * v for v in bias), arb(0))
    return total, size


def certificates(problem: ufm.UFM, rng: np.random.Generator) -> Iterator[dict[str, float | bool]]:
    """Yield, for the solution and points around it, how far the bound is below the ball."""
    method = "lbfgs" if problem.nonnegative else "newton"
    solution = ufm.solve(problem, method, tol=1e-12, max_iter=60, seed=int(rng.integers(1000)))
    w, h, b = solution.classifier, solution.features, solution.bias
    objective, size = ball(problem, w, h, b)
    rank = min(problem.targets.num_classes, len(problem.targets))
    tight = solution.gradient_norm < 1e-11 and (problem.classifier is not None or problem.dim >= rank)
    for distance in _DISTANCES:

        def moved(x: torch.Tensor, distance: float = distance) -> torch.Tensor:
            return x + distance * torch.from_numpy(rng.normal(size=tuple(x.shape)))

        at = moved(h).clamp(min=0) if problem.nonnegative and distance else moved(h) if distance else h
        found = ufm.certify(
            problem, w if problem.classifier is not None else moved(w), at, None if b is None else moved(b)
        )
        below = objective - arb(found.lower_bound) if np.isfinite(found.lower_bound) else arb(1)
        scale = max(float(objective), size)
        yield {
            # At this precision a ball around zero is zero: an optimum of zero, certified as such.
            "above": bool(below < 0),
            "finite": bool(np.isfinite(found.lower_bound)),
            "tight": tight and distance == 0 and not problem.nonnegative,
            "ulp": float(below) / (_EPSILON * scale) if scale else 0.0,
        }


def check(config: CertificatesConfig) -> dict[str, dict[str, float]]:
    """Return, by kind of labels, the numbers of certificates and of those above, and how far the tight ones are off."""
    precision = ctx.prec
    ctx.prec = _BITS
    rng = np.random.default_rng(config.seed)
    rows: dict[str, list[dict]] = {kind: [] for kind in LABELS}
    done = 0
    try:
        while done < config.cases:
            kind = LABELS[rng.integers(len(LABELS))]
            found = list(certificates(problem_of(kind, rng), rng))[: config.cases - done]
            rows[kind] += found
            done += len(found)
    finally:
        ctx.prec = precision
    summary = {}
    for kind, cases in rows.items():
        tight = [case["ulp"] for case in cases if case["tight"]]
        summary[kind] = {
            "certificates": len(cases),
            "above": sum(case["above"] for case in cases),
            "without_proof": sum(not case["finite"] for case in cases),
            "tight": len(tight),
            "median_ulp": float(np.median(tight)) if tight else 0.0,
            "nine_in_ten_ulp": float(np.quantile(tight, 0.9)) if tight else 0.0,
        }
    return summary


def main() -> int:
    """Check, print a table and write the result file; return 1 if a bound was above."""
    config = tyro.cli(CertificatesConfig, description=__doc__)
    begin = time.perf_counter()
    summary = check(config)
    above = sum(row["above"] for row in summary.values())
    result = {
        "config": {"cases": config.cases, "seed": config.seed},
        "above": above,
        "kinds": summary,
        "seconds": time.perf_counter() - begin,
        "command": f"python -m experiments.benchmarks.certificates --cases {config.cases} --seed {config.seed}",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    write_json(Path(config.out), result)
    print(json.dumps(summary, indent=2))
    return int(above > 0)


if __name__ == "__main__":
    sys.exit(main())
