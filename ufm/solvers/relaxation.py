"""An independent oracle for small problems: the convex relaxation of the UFM, by a conic solver."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ufm.solvers.problem import UFM

_LARGEST = 20_000


@dataclass(frozen=True)
class Relaxation:
    """Result of the conic solver, with its own word on how far it got.

    value: the objective reached. status: the solver's, "optimal" where it met its tolerance. logits (N, K).
    """

    value: float
    status: str
    logits: Float[np.ndarray, "N K"]


def nuclear_norm_optimum(problem: UFM, *, tol: float = 1e-9, max_iter: int = 200_000) -> Relaxation:
    """Return the optimum of the relaxation, which equals that of a UFM with a free classifier and d >= min(K, N):

        min over Z of sum_j pi_j loss(z_j, y_j) + sqrt(lambda_W lambda_H) || (sqrt(pi_j) z_j)_j ||_*

    Solved by SCS through cvxpy, sharing no code with the solvers and the closed forms; for at most 20,000 logits.
    problem: with a free classifier. tol: the conic solver's. max_iter: its limit.
    Raises ValueError for a fixed classifier or too large a problem.

    Source: derivations/duality_gap.py.
    """
    import cvxpy as cp

    if problem.classifier is not None:
        raise ValueError("problem: got a fixed classifier, expected a free one, as the relaxation has")
    for name in ("has_bias", "nonnegative", "feature_norm", "row_norm"):
        if getattr(problem, name):
            raise ValueError(f"problem: got one with {name}, expected the plain one, as the relaxation has")
    labels, weights = (x.double().cpu().numpy() for x in (problem.targets.labels, problem.targets.weights))
    N, K = labels.shape
    if N * K > _LARGEST:
        raise ValueError(f"problem: got {N} x {K} logits, expected at most {_LARGEST} for a conic solver")
    z = cp.Variable((N, K))
    if problem.loss == "cross_entropy":
        losses = cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(labels, z), axis=1)
    else:
        losses = cp.sum(cp.square(z + 1 / K - labels), axis=1) / 2
    root = np.sqrt(weights)[:, None] * np.ones((1, K))
    penalty = math.sqrt(problem.weight_decay * problem.feature_decay) * cp.normNuc(cp.multiply(root, z))
    program = cp.Problem(cp.Minimize(weights @ losses + penalty))
    with warnings.catch_warnings():
        # The status tells it, to callers that do not read warnings too.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        value = program.solve(solver=cp.SCS, eps=tol, max_iters=max_iter)
    return Relaxation(float(value), str(program.status), np.asarray(z.value))  # pyright: ignore[reportArgumentType]
