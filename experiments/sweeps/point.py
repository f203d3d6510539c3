"""One point of a sweep: the solve, what it shows about collapse, and what the closed form says."""

import math
from typing import Any

import numpy as np
import torch

import ufm
from experiments.sweeps.grid import GridPoint, parse_method
from ufm.solvers.certificate import relative_gap
from ufm.solvers.solution import Message

# What is kept of a history: columns, and at most so many entries.
HISTORY = ("iteration", "seconds", "relative_gap", "gradient_norm")
HISTORY_LENGTH = 200
# Relative gaps whose first time is kept.
GAPS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
# Relative accuracy of objectives to which collapse is decided where the solve is not asked for a gap.
_ACCURACY = 1e-12


def solve_point(point: GridPoint) -> dict[str, Any]:
    """Return the line of a point, solved on one thread.

    Its status is "converged", "not converged" or "failed", with the solver's message or the exception's. Unless the
    solve failed, the line says what was found.
    """
    torch.set_num_threads(1)
    try:
        return {"key": point.key, "parameters": point.written(), **_found(point)}
    except Exception as error:  # whatever it is, it is this point's, and the sweep goes on
        return failed(point, error)


def failed(point: GridPoint, error: BaseException) -> dict[str, Any]:
    """Return the line of a point whose solve ended in an exception."""
    message = f"{type(error).__name__}: {error}"[:2000]
    return {"key": point.key, "parameters": point.written(), "status": "failed", "message": message}


def _found(point: GridPoint) -> dict[str, Any]:
    law, (weight_decay, feature_decay) = point.law(), point.penalties()
    K = point.num_classes
    dim = K if point.dim is None else point.dim
    closed_form = None
    if dim >= K - 1:
        optimum = ufm.joint_optimum(law, weight_decay, feature_decay, point.loss, nodes=point.nodes)
        names = ("beta", "multiplier", "objective", "threshold", "collapsed")
        closed_form = {name: getattr(optimum, name) for name in names}
    problem = ufm.UFM(law.targets(point.nodes), dim, weight_decay, feature_decay, point.loss)
    same = {name: getattr(point, name) for name in ("tol", "gap_tol", "max_iter", "seed", "record")}
    solution = ufm.solve(problem, parse_method(point.method)[0], device="cpu", **same)
    if solution.message is Message.INTERRUPTED:
        raise KeyboardInterrupt
    certificate, classifier = solution.certificate, solution.classifier
    collapsed = is_collapsed(problem, certificate, max(point.gap_tol or 0.0, _ACCURACY))
    is_etf = not collapsed and dim >= K - 1 and bool(classifier.any())
    found: dict[str, Any] = {
        "status": "converged" if solution.converged else "not converged",
        "message": str(solution.message),
        "objective": solution.objective,
        "lower_bound": certificate.lower_bound,
        "relative_gap": certificate.relative_gap,
        "gradient_norm": solution.gradient_norm,
        "iterations": solution.iterations,
        "seconds": solution.seconds,
        "classifier_norm": torch.linalg.matrix_norm(classifier).item(),
        "etf_error": ufm.nearest_etf(classifier).relative_error if is_etf else None,
        "collapsed": collapsed,
        "weight_decay": weight_decay,
        "feature_decay": feature_decay,
        "closed_form": closed_form,
    }
    if point.record:
        history = solution.history
        # Without convergence the last entry is the best iterate's, out of order; it is in the line already.
        end = None if solution.converged or len(history.gap) == 1 else -1
        gaps = np.array([relative_gap(*pair) for pair in zip(history.gap, history.objective, strict=True)])
        columns = {**vars(history), "relative_gap": gaps}
        columns = {name: columns[name][:end] for name in HISTORY}
        found |= {"reached": reached(columns), "history": thinned(columns)}
    return found


def reached(columns: dict[str, np.ndarray]) -> dict[str, dict[str, float] | None]:
    """Return seconds and iteration of the first entry at or below each of `GAPS`, or None."""
    found = {}
    for gap in GAPS:
        rows = np.flatnonzero(columns["relative_gap"] <= gap)
        first = {name: float(columns[name][rows[0]]) for name in ("seconds", "iteration")} if len(rows) else None
        found[f"{gap:.0e}"] = first
    return found


def is_collapsed(problem: ufm.UFM, certificate: ufm.Certificate, accuracy: float) -> bool | None:
    """Return whether zero is the global optimum of a problem without bias, or None if the certificate cannot tell.

    With F(0) the objective at zero: no, if the point's objective is below F(0) by more than `accuracy` F(0), which
    proves that zero is not optimal; yes, if the lower bound proves that nothing is. No closed form is used.
    """
    w, h = (
        torch.zeros(n, problem.dim, dtype=torch.float64) for n in (problem.targets.num_classes, len(problem.targets))
    )
    at_zero = problem.evaluate(w, h).objective.item()
    if at_zero - certificate.objective > accuracy * at_zero:
        return False
    return True if at_zero - certificate.lower_bound <= accuracy * at_zero else None


def thinned(columns: dict[str, np.ndarray], length: int = HISTORY_LENGTH) -> dict[str, list[float | None]]:
    """Return at most `length` entries, evenly spaced in the logarithm of their number, first and last included."""
    count = len(next(iter(columns.values())))
    rows = np.unique(np.geomspace(1, count, length).round().astype(int)) - 1
    return {
        name: [float(f"{value:.6g}") if math.isfinite(value) else None for value in column[rows].tolist()]
        for name, column in columns.items()
    }
