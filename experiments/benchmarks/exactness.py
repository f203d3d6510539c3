"""Exactness of the proximal point against 96-digit interval arithmetic, over random and adversarial labels.

    python -m experiments.benchmarks.exactness [--cases 100000] [--out experiments/results/exactness/exactness.json]

The oracle solves sum_k W(exp(beta y_k + tau)) = beta sum_k y_k for tau by bisection-safeguarded Newton in Arb's ball
arithmetic, W being Arb's Lambert function: no code, and no formula for the logits, is shared with `ufm`.

Errors are in ulp (machine epsilon) of the row's scale: the largest logit ("logits"), or the larger of that and of what
a relative change of the labels by one does to a logit, beta y_k/(1 + beta p_k) ("conditioned": no algorithm that
reads rounded labels can do better than about one half). Probabilities: |p - p*| in ulp of the larger of p* times the
largest logit and p*.
"""

import json
import sys
import time
import warnings
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
_BATCH = 256


@dataclass(frozen=True)
class ExactnessConfig:
    """What to measure."""

    cases: int = 100_000
    """labels in all"""
    seed: int = 0
    """of the labels"""
    dtype: str = "float64"
    """float64 or float32"""
    out: str = "experiments/results/exactness/exactness.json"
    """result file"""


def labels_of(kind: str, K: int, rng: np.random.Generator) -> np.ndarray:
    """Return one label (K,) with few distinct entries, so that the oracle's cost does not grow with K."""
    y = np.zeros(K)
    if kind == "one-hot":
        y[rng.integers(K)] = 1
    elif kind == "uniform":
        y[:] = 1 / K
    elif kind == "nearly uniform":
        y[:] = 1 / K
        y[0] *= 1 + 10.0 ** rng.uniform(-15, -1)
    elif kind == "mixup":
        lam = 10.0 ** rng.uniform(-300, 0) if rng.random() < 0.5 else rng.random()
        y[0] = 1 - lam
        y[1] = lam
    elif kind == "ties":
        size = int(rng.integers(1, K + 1))
        y[:size] = 1 / size
    else:  # a few levels over 300 decades, each on a random number of classes
        levels = 10.0 ** rng.uniform(-300 if kind == "tiny" else -3, 0, 5)
        y[:] = levels[rng.integers(5, size=K)]
        y[rng.integers(K)] = 1
    return y / y.sum()


KINDS = ("one-hot", "uniform", "nearly uniform", "mixup", "ties", "levels", "tiny")


def batches(config: ExactnessConfig) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (kind, labels (n, K), beta (n,)) until there are enough cases: K in 2..1000, beta in 1e-8..1e14."""
    rng = np.random.default_rng(config.seed)
    done = 0
    while done < config.cases:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        K = round(10.0 ** rng.uniform(np.log10(2), 3))
        n = min(_BATCH, config.cases - done)
        labels = np.stack([labels_of(kind, K, rng) for _ in range(n)]).astype(config.dtype)
        yield kind, labels, (10.0 ** rng.uniform(-8, 14, n)).astype(config.dtype)
        done += n


def oracle(levels: np.ndarray, counts: np.ndarray, beta: float) -> tuple[list[arb], list[arb]]:
    """Return the exact logits and probabilities, one per level, of the label y / sum(y)."""
    y, n = [arb(float(v)) for v in levels], [arb(int(c)) for c in counts]
    total = sum((c * v for c, v in zip(n, y, strict=True)), arb(0))
    b = arb(beta) * total
    y = [v / total for v in y]
    tau = (b / sum(n, arb(0))).log()  # on the right of the root, from where Newton's iterates fall monotonically
    for _ in range(400):
        omega = [(b * v + tau).mid().exp().lambertw().mid() for v in y]
        value = sum((c * w for c, w in zip(n, omega, strict=True)), arb(0)) - b
        slope = sum((c * w / (1 + w) for c, w in zip(n, omega, strict=True)), arb(0))
        step = (value / slope).mid()
        tau = (tau - step).mid()
        if abs(step) < arb(2) ** (100 - _BITS) * (1 + abs(tau)):
            break
    else:
        raise ArithmeticError("the oracle did not converge")
    omega = [(b * v + tau).exp().lambertw() for v in y]
    return [b * v - w for v, w in zip(y, omega, strict=True)], [w / b for w in omega]


def measure(kind: str, labels: np.ndarray, beta: np.ndarray, epsilon: float) -> Iterator[dict[str, float]]:
    """Yield the errors of each row, in ulp."""
    prox = ufm.prox_logsumexp(torch.from_numpy(labels), torch.from_numpy(beta))
    z_all, p_all = prox.logits.numpy(), prox.probabilities.numpy()  # pyright: ignore[reportAttributeAccessIssue]
    for row, b, z, p in zip(labels, beta, z_all, p_all, strict=True):
        levels, first, counts = np.unique(row, return_index=True, return_counts=True)
        exact_z, exact_p = oracle(levels, counts, float(b))
        largest = max(abs(float(v)) for v in exact_z)
        sensitivity = max(float(b) * float(v) / (1 + float(b) * float(q)) for v, q in zip(levels, exact_p, strict=True))
        # Differences of logits are what softmax sees; their errors are at most twice the largest deviation.
        errors = [float(arb(float(z[i])) - e) for i, e in zip(first, exact_z, strict=True)]
        worst = max(errors) - min(errors) if len(errors) > 1 else 0.0
        relative = max(
            abs(float((arb(float(p[i])) - e) / e)) if float(e) > 1e-290 else 0.0
            for i, e in zip(first, exact_p, strict=True)
        )
        yield {
            "logits": worst / (epsilon * largest) if largest > 0 else worst / epsilon,
            "conditioned": worst / (epsilon * max(largest, sensitivity)),
            "probabilities": relative / (epsilon * max(1.0, largest)),
            "finite": float(np.isfinite(z).all() and np.isfinite(p).all()),
        }


def main() -> int:
    """Measure, print a table and write the result file."""
    config = tyro.cli(ExactnessConfig, description=__doc__)
    ctx.prec = _BITS
    epsilon = float(np.finfo(config.dtype).eps)
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    begin, told = time.perf_counter(), 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, labels, beta in batches(config):
            rows[kind] += measure(kind, labels, beta, epsilon)
            if time.perf_counter() - told > 60:
                told = time.perf_counter()
                print(f"{sum(map(len, rows.values()))} of {config.cases} cases", file=sys.stderr)
    summary = {}
    for kind, cases in rows.items():
        if cases:
            columns = {key: np.array([case[key] for case in cases]) for key in cases[0]}
            summary[kind] = {
                "cases": len(cases),
                **{f"{key}_max_ulp": columns[key].max() for key in ("logits", "conditioned", "probabilities")},
                "conditioned_median_ulp": np.median(columns["conditioned"]),
                "all_finite": bool(columns["finite"].all()),
            }
    result = {
        "config": {"cases": config.cases, "seed": config.seed, "dtype": config.dtype},
        "epsilon": epsilon,
        "kinds": summary,
        "warnings": 0,
        "seconds": time.perf_counter() - begin,
        "command": f"python -m experiments.benchmarks.exactness --cases {config.cases} --dtype {config.dtype}",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    write_json(Path(config.out), result)
    print(json.dumps(summary, indent=2, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
