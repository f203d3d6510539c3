"""An independent oracle for small problems: the convex relaxation of the UFM, by a conic solver."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ufm._support.arrays import check_integer, check_number
from ufm.solvers.problem import UFM, check_problem

_LARGEST = 20_000


@dataclass(frozen=True)
class Relaxation:
    """Result of the conic solver, with its own word on how far it got.

    Attributes
    ----------
    value : float
        The objective reached.
    status : str
        The solver's status; "optimal" where it met its tolerance.
    logits : (N, K) array
        The logits at that value.
    """

    value: float
    status: str
    logits: Float[np.ndarray, "N K"]


def nuclear_norm_optimum(problem: UFM, *, tol: float = 1e-9, max_iter: int = 200_000) -> Relaxation:
    r"""Return the optimum of the relaxation, which equals that of a UFM with a free classifier and d >= min(K, N).

    It is solved by SCS through cvxpy, and shares no code with the solvers and the closed forms.

    Parameters
    ----------
    problem : UFM
        With a free classifier, without bias and constraints, of at most 20,000 logits, and with a loss that has a
        conic form (`Loss.conic`).
    tol : float
        The conic solver's tolerance.
    max_iter : int
        Its limit on iterations.

    Returns
    -------
    Relaxation
        Value, status and logits.

    Raises
    ------
    ValueError
        For a fixed classifier, a bias, a constraint, a loss without conic form, or too large a problem.

    Notes
    -----
    .. math::

        \min_Z \sum_j \pi_j \ell(z_j, y_j)
        + \sqrt{\lambda_W \lambda_H}\, \bigl\|(\sqrt{\pi_j}\, z_j)_j\bigr\|_*

    References
    ----------
    derivations/duality_gap.py

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(ufm.Unmixed(3).targets(), 3, 0.1, 0.1)
    >>> round(ufm.nuclear_norm_optimum(problem).value, 5), round(ufm.solve(problem).objective, 5)
    (0.43784, 0.43784)
    """
    check_problem(problem)
    check_number("tol", tol, above=0)
    check_integer("max_iter", max_iter, minimum=1)
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
    losses = problem.loss_function.conic(z, labels)
    root = np.sqrt(weights)[:, None] * np.ones((1, K))
    penalty = math.sqrt(problem.weight_decay * problem.feature_decay) * cp.normNuc(cp.multiply(root, z))
    program = cp.Problem(cp.Minimize(weights @ losses + penalty))
    with warnings.catch_warnings():
        # SCS's status already says so, also to callers that do not read warnings.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        value = program.solve(solver=cp.SCS, eps=tol, max_iters=max_iter)
    return Relaxation(float(value), str(program.status), np.asarray(z.value))  # pyright: ignore[reportArgumentType]
