"""Speed of the closed form against named baselines, medians and ratios on the same inputs in the same run.

    python -m experiments.benchmarks.speed [--out experiments/results/speed/speed.json]

Dense labels: `ufm.prox_logsumexp` on an (N, K) array against (a) torch.softmax on the same array, the floor that any
function of all entries has; (b) SciPy's brentq on sum_k wrightomega(beta y_k + tau) = beta, row by row, on some of the
rows; (c) torch.optim.LBFGS (float64, strong Wolfe, history 50) on all logits at once, to the same gradient.
Orbits: the joint optimum for mixup and its proximal points, against K.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy import optimize, special

import ufm
from ufm._support.files import to_json, write_json
from ufm.prox import prox_logits

_SCIPY_ROWS = 100
_LBFGS_TOLERANCE = 1e-8


@dataclass(frozen=True)
class SpeedConfig:
    """What to measure."""

    repeats: int = 9
    """timed runs of each, of which the median is reported"""
    threads: int = 0
    """torch threads; 0 for its own choice"""
    shrink: int = 1
    """divide every N by this, for trying the script"""
    out: str = "experiments/results/speed/speed.json"
    """result file"""


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median wall time of `function`, after one run that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def scipy_rows(labels: np.ndarray, beta: float) -> np.ndarray:
    """Return the logits by root finding, one row at a time."""
    logits = np.empty_like(labels)
    for row, out in zip(labels, logits, strict=True):

        def excess(tau: float, row: np.ndarray = row) -> float:
            return special.wrightomega(beta * row + tau).sum() - beta

        high = np.log(beta / len(row))
        tau = optimize.brentq(excess, high - beta - 50, high + 1e-9, xtol=1e-13)
        out[:] = np.log(special.wrightomega(beta * row + tau)) - tau
    return logits


def torch_lbfgs(labels: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the logits by direct minimisation of the sum over rows."""
    z = torch.zeros_like(labels, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [z], max_iter=2000, tolerance_grad=_LBFGS_TOLERANCE, tolerance_change=0, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = (torch.logsumexp(z, 1) - (labels * z).sum(1) + z.square().sum(1) / (2 * beta)).sum()
        value.backward()
        return value

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    return z.detach()


def dense(N: int, K: int, beta: float, repeats: int) -> dict[str, float]:
    """Time the proximal point of dense labels, uniform on the simplex, against the three baselines."""
    rng = np.random.default_rng(0)
    labels = rng.dirichlet(np.ones(K), N)
    y = torch.from_numpy(labels)
    b = torch.full((N,), beta, dtype=y.dtype)
    closed = median_seconds(lambda: ufm.prox_logsumexp(y, beta), repeats)
    kernel = median_seconds(lambda: prox_logits(y, b), repeats)
    ufm.compile_kernels()
    compiled = median_seconds(lambda: prox_logits(y, b), repeats)
    ufm.compile_kernels(enabled=False)
    softmax = median_seconds(lambda: torch.softmax(y, 1), repeats)
    some = labels[:_SCIPY_ROWS]
    rows = median_seconds(lambda: scipy_rows(some, beta), 3) / len(some) * N
    begin = time.perf_counter()
    direct = torch_lbfgs(y, beta)
    lbfgs = time.perf_counter() - begin
    z = torch.as_tensor(ufm.prox_logsumexp(y, beta).logits)
    return {
        "N": N,
        "K": K,
        "beta": beta,
        "seconds": closed,
        "seconds_unchecked": kernel,
        "seconds_softmax": softmax,
        "seconds_scipy_rows_extrapolated": rows,
        "seconds_lbfgs": lbfgs,
        "seconds_compiled": compiled,
        "times_softmax": closed / softmax,
        "times_softmax_compiled": compiled / softmax,
        "times_softmax_unchecked": kernel / softmax,
        "faster_than_scipy_rows": rows / closed,
        "faster_than_lbfgs": lbfgs / closed,
        "largest_difference_from_scipy": float(np.abs(scipy_rows(some, beta) - z[: len(some)].numpy()).max()),
        "largest_difference_from_lbfgs": (direct - z).abs().max().item(),
    }


def orbits(K: int, repeats: int) -> dict[str, float]:
    """Time the joint optimum for mixup on K classes, continuous and with 16 nodes, and 10^4 proximal points."""
    law, decay = ufm.Mixup(K), 1e-3 / K**0.5
    lam = torch.linspace(0.001, 0.999, 10_000, dtype=torch.float64)
    return {
        "K": K,
        "milliseconds_joint_optimum": 1e3 * median_seconds(lambda: ufm.joint_optimum(law, decay, decay), repeats),
        "milliseconds_joint_optimum_16_nodes": 1e3
        * median_seconds(lambda: ufm.joint_optimum(law, decay, decay, nodes=16), repeats),
        "milliseconds_channel_10000": 1e3 * median_seconds(lambda: ufm.channel(lam, 1e4, K), repeats),
    }


def main() -> int:
    """Measure, print and write the result file."""
    config = tyro.cli(SpeedConfig, description=__doc__)
    if config.threads:
        torch.set_num_threads(config.threads)
    result = {
        "config": asdict(config),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "dense": [
            dense(N // config.shrink, K, beta, config.repeats)
            for N, K, betas in ((100_000, 10, (1e1, 1e3, 1e6)), (10_000, 1000, (1e1, 1e3)))
            for beta in betas
        ],
        "orbits": [orbits(K, config.repeats) for K in (10, 10**3, 10**6)],
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "command": "python -m experiments.benchmarks.speed",
    }
    print(to_json(result))
    write_json(Path(config.out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
