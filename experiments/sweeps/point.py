"""One point of a sweep: the solve, what it shows about collapse, and what the closed form says."""

import math
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

import ufm
from experiments.sweeps.grid import Point, parse_method
from ufm.solvers.solution import Message

# What is kept of a history: columns, and at most so many entries.
HISTORY = ("iteration", "seconds", "relative_gap", "gradient_norm")
HISTORY_LENGTH = 200
# Relative gaps whose first time is kept.
GAPS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
# Relative accuracy of objectives to which collapse is decided where the solve is not asked for a gap.
_ACCURACY = 1e-12


def solve_point(point: Point) -> dict[str, Any]:
    """Return the line of a point: key, parameters, status, message and, unless it failed, what was found.

    status: "converged", "not converged" with the solver's message, or "failed" with the exception's. Uses one thread.
    """
    torch.set_num_threads(1)
    line: dict[str, Any] = {"key": point.key, "parameters": point.written()}
    try:
        return line | _found(point)
    except Exception as error:  # whatever it is, it is this point's, and the sweep goes on
        return line | {"status": "failed", "message": f"{type(error).__name__}: {error}"}


def _found(point: Point) -> dict[str, Any]:
    law, (weight_decay, feature_decay) = point.law(), point.penalties()
    K = point.num_classes
    dim = K if point.dim is None else point.dim
    optimum = None
    if dim >= K - 1:
        optimum = ufm.joint_optimum(law, weight_decay, feature_decay, point.loss, nodes=point.nodes)
    problem = ufm.UFM(law.targets(point.nodes), dim, weight_decay, feature_decay, point.loss)
    solution = ufm.solve(
        problem,
        parse_method(point.method).method,
        tol=point.tol,
        gap_tol=point.gap_tol,
        max_iter=point.max_iter,
        seed=point.seed,
        record=point.record,
        device="cpu",
    )
    if solution.message is Message.INTERRUPTED:
        raise KeyboardInterrupt
    certificate = solution.certificate
    collapsed = is_collapsed(problem, certificate, max(point.gap_tol or 0.0, _ACCURACY))
    found: dict[str, Any] = {
        "status": "converged" if solution.converged else "not converged",
        "message": str(solution.message),
        "objective": solution.objective,
        "lower_bound": certificate.lower_bound,
        "relative_gap": certificate.relative_gap,
        "gradient_norm": solution.gradient_norm,
        "iterations": solution.iterations,
        "seconds": solution.seconds,
        "classifier_norm": torch.linalg.matrix_norm(solution.classifier).item(),
        "etf_error": None if collapsed or dim < K - 1 else _etf_error(solution.classifier),
        "collapsed": collapsed,
        "weight_decay": weight_decay,
        "feature_decay": feature_decay,
        "closed_form": None,
    }
    if optimum is not None:
        names = ("beta", "multiplier", "objective", "threshold", "collapsed")
        found["closed_form"] = {name: getattr(optimum, name) for name in names}
    if point.record:
        columns = _columns(solution)
        found["reached"] = reached(columns)
        found["history"] = thinned(columns)
    return found


def _columns(solution: ufm.Solution) -> dict[str, np.ndarray]:
    history = solution.history
    # Without convergence the last entry is the best iterate's, out of order; it is in the line already.
    end = None if solution.converged or len(history.gap) == 1 else -1
    columns = {**vars(history), "relative_gap": history.gap / np.abs(history.objective)}
    return {name: columns[name][:end] for name in HISTORY}


def reached(columns: dict[str, np.ndarray]) -> dict[str, dict[str, float] | None]:
    """Return seconds and iteration of the first entry at or below each of `GAPS`, or None."""
    found = {}
    for gap in GAPS:
        rows = np.flatnonzero(columns["relative_gap"] <= gap)
        first = {name: float(columns[name][rows[0]]) for name in ("seconds", "iteration")} if len(rows) else None
        found[f"{gap:.0e}"] = first
    return found


def is_collapsed(problem: ufm.UFM, certificate: ufm.Certificate, accuracy: float) -> bool | None:
    """Return whether zero is the global optimum, as far as a certified solve without bias can tell; None if it cannot.

    With F(0) the objective at zero: no, if the point's objective is below F(0) by more than `accuracy` F(0), which
    proves that zero is not optimal; yes, if the certified lower bound proves that nothing is. No closed form is used.
    """
    w, h = (
        torch.zeros(n, problem.dim, dtype=torch.float64) for n in (problem.targets.num_classes, len(problem.targets))
    )
    at_zero = problem.evaluate(w, h).objective.item()
    if at_zero - certificate.objective > accuracy * at_zero:
        return False
    return True if at_zero - certificate.lower_bound <= accuracy * at_zero else None


def _etf_error(classifier: torch.Tensor) -> float | None:
    return ufm.nearest_etf(classifier).relative_error if bool(classifier.any()) else None


def thinned(columns: dict[str, np.ndarray], length: int = HISTORY_LENGTH) -> dict[str, list[float | None]]:
    """Return at most `length` entries, evenly spaced in the logarithm of their number, first and last included."""
    count = len(next(iter(columns.values())))
    rows = np.unique(np.geomspace(1, count, length).round().astype(int)) - 1
    return {
        name: [float(f"{value:.6g}") if math.isfinite(value) else None for value in column[rows].tolist()]
        for name, column in columns.items()
    }


def versions() -> dict[str, str]:
    """Return what the numbers were computed with."""
    packages = {name: version(name) for name in ("torch", "numpy", "scipy")}
    return {"ufm": ufm.__version__, "python": platform.python_version(), **packages, "machine": platform.machine()}
